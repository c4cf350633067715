"""The control plane's process as the command line sees it: start it, wait for it, know when it is gone.

Enters: a Project.  Leaves: a process detached from the terminal, whose output goes to its log.  I/O.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from meshctl.cli.project import Project, connect
from meshctl.errors import NotRunningError, StartError, WaitTimeoutError

_START_TIMEOUT = 30.0
"""Seconds for the API to answer. It takes a fraction of one; machines that swap take longer."""

_GONE_TIMEOUT = 15.0
"""Seconds for a control plane that has stopped everything to end itself."""

_POLL = 0.02
_TAIL = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A running control plane; ``process`` is set when this command started it."""

    pid: int
    process: subprocess.Popen[bytes] | None

    @property
    def is_ours(self) -> bool:
        """True when this command started it."""
        return self.process is not None

    def is_alive(self) -> bool:
        """Whether the process exists; one that this command started is reaped on the way."""
        if self.process is not None:
            return self.process.poll() is None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def detach(self) -> None:
        """Let it go on without this command."""
        if self.process is not None and self.process.returncode is None:
            self.process.returncode = 0  # subprocess warns of children that are left, and this one is meant to be


async def find_daemon(project: Project) -> Daemon | None:
    """The control plane that answers for a project, if any."""
    try:
        async with connect(project) as client:
            status = await client.status()
    except NotRunningError:
        return None
    return Daemon(pid=status.daemon_pid, process=None)


async def ensure_daemon(project: Project) -> Daemon:
    """The control plane of a project, started if there is none.

    Raises:
        StartError: it ended before it answered; the detail has the end of its log.
        WaitTimeoutError: it did not answer in 30 seconds.
    """
    running = await find_daemon(project)
    if running is not None:
        return running
    begin = _log_size(project)
    process = spawn_daemon(project)
    try:
        return await _wait_for_api(project, process, begin)
    except asyncio.CancelledError:
        process.terminate()
        process.wait()
        raise


def spawn_daemon(project: Project, *, teardown: bool = False) -> subprocess.Popen[bytes]:
    """Start the control plane in a session of its own, where no terminal's Ctrl+C or hang-up reaches it."""
    state = Path(project.paths.state)
    Path(project.paths.logs).mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    ignore = state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    # -P: modules of the user's folder must not pass for the standard library's.
    argv = [sys.executable, "-P", "-m", "meshctl", "daemon", "--directory", project.directory]
    if teardown:
        argv.append("--teardown")
    with Path(project.paths.daemon_log).open("ab") as log:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=project.directory,
            start_new_session=True,
        )


async def wait_gone(daemon: Daemon) -> None:
    """Return when the control plane's process has ended. Raises WaitTimeoutError after 15 seconds."""
    try:
        async with asyncio.timeout(_GONE_TIMEOUT):
            while daemon.is_alive():  # noqa: ASYNC110 - no event tells of the end of somebody else's child
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise WaitTimeoutError(f"the control plane (pid {daemon.pid}) does not end") from None


async def run_teardown(project: Project) -> None:
    """Stop what a dead control plane left behind. Raises StartError when that fails."""
    begin = _log_size(project)
    process = spawn_daemon(project, teardown=True)
    while process.poll() is None:  # noqa: ASYNC110 - as above
        await asyncio.sleep(_POLL)
    if process.returncode != 0:
        raise StartError(
            "what was left of the mesh could not be stopped",
            detail=_read_log(project, begin),
            hint=f"the whole log: {project.paths.daemon_log}",
        )


async def _wait_for_api(project: Project, process: subprocess.Popen[bytes], begin: int) -> Daemon:
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            while True:
                ended = process.poll() is not None
                running = await find_daemon(project)
                if running is not None:
                    # Two `up` at once: one control plane wins, and this may not be the one started here.
                    ours = running.pid == process.pid
                    if not ours:
                        process.wait()
                    return Daemon(pid=running.pid, process=process if ours else None)
                if ended:
                    break
                await asyncio.sleep(_POLL)
    except TimeoutError:
        process.terminate()
        process.wait()
        raise WaitTimeoutError(
            f"the control plane did not answer in {_START_TIMEOUT:.0f} s",
            detail=_read_log(project, begin),
            hint=f"the whole log: {project.paths.daemon_log}",
        ) from None
    raise StartError(
        f"the control plane ended with exit code {process.returncode}",
        detail=_read_log(project, begin),
        hint=f"the whole log: {project.paths.daemon_log}",
    )


def _log_size(project: Project) -> int:
    try:
        return Path(project.paths.daemon_log).stat().st_size
    except OSError:
        return 0


def _read_log(project: Project, begin: int) -> str:
    """The last lines that were written after a place in the log."""
    try:
        with Path(project.paths.daemon_log).open(encoding="utf-8", errors="replace") as log:
            log.seek(begin)
            return "".join(deque(log, maxlen=_TAIL))
    except OSError:
        return ""
