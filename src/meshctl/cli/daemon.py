"""The control plane's process as the command line sees it: start it, wait for it, know when it is gone.

Enters: a Project.  Leaves: a process detached from the terminal, whose output goes to its log.  I/O.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from meshctl.cli.project import Project, connect
from meshctl.errors import NotRunningError, StartError, WaitTimeoutError

_START_TIMEOUT = 30.0
"""Seconds for the API to answer. It takes a fraction of one; machines that swap take longer."""

_GONE_TIMEOUT = 15.0
"""Seconds for a control plane that has stopped everything to end itself."""

_POLL = 0.02
_TAIL = 12


# -P: modules of the user's folder must not pass for those of Python or meshctl.
DAEMON_ARGV = (sys.executable, "-P", "-m", "meshctl", "daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A running control plane; ``process`` is set when this command started it.

    ``started_at`` tells it from a later process of the same pid, as psutil gives it; None when it has ended already.
    """

    pid: int
    started_at: float | None
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_ours(self) -> bool:
        """True when this command started it."""
        return self.process is not None

    def is_alive(self) -> bool:
        """Whether the process exists; one that this command started is reaped on the way."""
        if self.process is not None:
            return self.process.poll() is None
        return self.started_at is not None and self.started_at == _read_start(self.pid)

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
    return make_daemon(status.daemon_pid)


def make_daemon(pid: int) -> Daemon:
    """The control plane of a pid that it gave itself just now."""
    return Daemon(pid=pid, started_at=_read_start(pid))


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
    argv = [*DAEMON_ARGV, "--directory", project.directory]
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
                    return replace(running, process=process) if ours else running
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


def _read_start(pid: int) -> float | None:
    """The start time of a live process; a zombie that nobody reaps (in a container, say) has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


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
