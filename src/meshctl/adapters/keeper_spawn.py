"""Starting one process, and saying in plain words why it cannot be started.  I/O.

Enters: what ports.ProcessSpec says.  Leaves: a pid, or a Refusal.  Standard library only: the keeper imports this
module.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence

from meshctl.adapters.keeper_protocol import Refusal


def spawn(argv: Sequence[str], *, env: Mapping[str, str], cwd: str, stdout: int, stderr: int) -> int:
    """
    Start a process in a session of its own, where no terminal reaches it, and return its pid.

    Standard input is empty; no descriptor but the three standard ones is handed on.

    Raises:
        Refusal: it cannot be started; the message is for a person.
    """
    if not os.path.isdir(cwd):
        raise Refusal("start-failed", f"no such folder: {cwd}", "The command runs in this folder; create it.")
    program = find_program(argv[0], env=env, cwd=cwd)
    try:
        process = subprocess.Popen(
            list(argv),
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise _explain(error, program, cwd) from None
    except ValueError as error:  # a NUL byte in an argument
        raise Refusal("start-failed", f"cannot run {argv[0]}: {error}") from None
    # The keeper reaps its children itself; an object that thinks its process alive would complain when it is dropped.
    process.returncode = 0
    return process.pid


def find_program(name: str, *, env: Mapping[str, str], cwd: str) -> str:
    """
    The file that a command names: on the ``PATH`` of ``env``, or relative to ``cwd`` when it holds a slash.

    Raises:
        Refusal: there is none, or it may not be executed.
    """
    if "/" in name:
        path = os.path.join(cwd, name)
        if not os.path.exists(path):
            raise Refusal("start-failed", f"no such file: {name}", f"Looked for {path}.")
        _check_executable(path, name)
        return path
    refused = ""
    searched = env.get("PATH", os.defpath)
    for folder in searched.split(os.pathsep):
        path = os.path.join(cwd, folder, name)  # an empty entry means the current folder (POSIX)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            refused = refused or path
    if refused:
        _check_executable(refused, name)
    raise Refusal("start-failed", f"command not found: {name}", f"Looked in PATH={searched}")


def _check_executable(path: str, name: str) -> None:
    if os.path.isdir(path):
        raise Refusal("start-failed", f"not executable: {name} is a folder", f"Found {path}.")
    if not os.access(path, os.X_OK):
        raise Refusal("start-failed", f"not executable: {name}", f"Run: chmod +x {path}")


def _explain(error: OSError, program: str, cwd: str) -> Refusal:
    if error.filename == cwd:
        return Refusal("start-failed", f"cannot enter the folder {cwd}: {error.strerror}")
    if error.errno == errno.ENOEXEC:
        hint = "A script needs a first line such as #!/bin/sh; a binary must be made for this machine."
        return Refusal("start-failed", f"not executable: {program} is neither a script nor a binary", hint)
    if error.errno == errno.ENOENT:
        hint = "Check the first line (#!...) of the script, or the loader of the binary."
        return Refusal("start-failed", f"cannot run {program}: its interpreter does not exist", hint)
    if error.errno == errno.E2BIG:
        return Refusal("start-failed", f"cannot run {program}: arguments and environment are too long")
    return Refusal("start-failed", f"cannot run {program}: {error.strerror}")
