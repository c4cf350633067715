"""Processes that belong to a mesh though nobody waits for them: found by what marks them, and killed.  I/O.

Enters: the mesh's tag.  Leaves: processes. A service may start others, which may leave its process group and its
session; all inherit the variable MESHCTL_PROCESS. One that also drops its environment is found as long as it descends
from one that is known, or once it was handed to the keeper as an orphan.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from meshctl.adapters.keeper_protocol import MARKER
from meshctl.errors import MeshctlError, WaitTimeoutError
from meshctl.ports import ProcessHandle
from meshctl.tasks import TaskBag

KILL_SECONDS = 10.0
_SAME_START = 1.5
"""Seconds: macOS tells psutil the exact start and ps the whole second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A process as a scan saw it; ``name`` is the service process that it comes from, or empty when unknown."""

    pid: int
    started_at: float
    name: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One process of this user; ``marker`` is the value of MESHCTL_PROCESS, or empty."""

    pid: int
    parent: int
    group: int
    session: int
    started_at: float
    marker: str
    command: str


class Scanner:
    """Lists processes. Whoever asks while a scan runs shares the next one: stopping forty services costs few scans."""

    def __init__(self, tasks: TaskBag) -> None:
        self._tasks = tasks
        self._lock = asyncio.Lock()
        self._next: asyncio.Future[tuple[Seen, ...]] | None = None

    async def scan(self) -> tuple[Seen, ...]:
        """The processes at a moment that is later than this call."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._tasks.spawn("scan", self._run(self._next))
        return await asyncio.shield(self._next)

    async def _run(self, result: asyncio.Future[tuple[Seen, ...]]) -> None:
        try:
            async with self._lock:
                self._next = None
                seen = await asyncio.to_thread(scan_processes)
            result.set_result(seen)
        finally:
            if not result.done():
                result.set_exception(MeshctlError("the processes of this machine could not be listed"))
                result.exception()  # nobody may be waiting for it


def scan_processes() -> tuple[Seen, ...]:
    """All live processes that may be looked into, this one left out, by pid. Takes some 0.1 ms each."""
    return tuple(seen for pid in psutil.pids() if pid != os.getpid() and (seen := _look_at(pid)) is not None)


def select_family(
    table: Iterable[Seen], *, marker: str, leader: ProcessHandle | None, known: Iterable[tuple[int, float]] = ()
) -> tuple[Seen, ...]:
    """
    What belongs to one process of the mesh: marked as such, in the leader's group or session, ``known`` by pid and
    start from an earlier scan, or descending from one of these.
    """
    by_pid = {seen.pid: seen for seen in table}
    number = leader.pid if leader else -1
    if leader and number in by_pid and abs(by_pid[number].started_at - leader.started_at) > _SAME_START:
        number = -1  # the pid was given to another process, so that the numbers say nothing
    remembered = set(known)
    return _with_descendants(
        by_pid,
        lambda seen: (
            seen.marker == marker
            or number in (seen.pid, seen.group, seen.session)
            or (seen.pid, seen.started_at) in remembered
        ),
    )


async def find_strays(
    tag: str, known: Iterable[ProcessHandle] = (), *, keeper_pid: int | None = None
) -> tuple[Stray, ...]:
    """
    Processes of the mesh that belong to none of the ``known`` ones.

    With no known ones, orphans that came to the keeper without a mark are strays too.
    """
    handles = {handle.name: handle for handle in known}
    table = await asyncio.to_thread(scan_processes)
    prefix = f"{tag}/"

    def is_stray(seen: Seen) -> bool:
        if seen.marker.startswith(prefix):
            handle = handles.get(seen.marker.removeprefix(prefix))
            return handle is None or seen.started_at < handle.started_at - _SAME_START
        return not handles and keeper_pid is not None and seen.parent == keeper_pid

    family = _with_descendants({seen.pid: seen for seen in table}, is_stray)
    return tuple(
        Stray(
            pid=seen.pid,
            started_at=seen.started_at,
            name=seen.marker.removeprefix(prefix) if seen.marker.startswith(prefix) else "",
            command=seen.command,
        )
        for seen in family
        if seen.pid != keeper_pid
    )


async def kill_strays(strays: Iterable[Stray]) -> None:
    """
    SIGKILL processes and return when they are gone.

    Raises:
        WaitTimeoutError: one cannot be killed.
    """
    left = {(stray.pid, stray.started_at): stray for stray in strays}
    deadline = asyncio.get_running_loop().time() + KILL_SECONDS
    delay = 0.002
    while True:
        left = {key: stray for key, stray in left.items() if _kill_process(*key)}
        if not left:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise explain_unkillable(next(iter(left.values())))
        await asyncio.sleep(delay)
        delay = min(2 * delay, 0.2)


def kill_seen(seen: Seen) -> None:
    """SIGKILL one process, unless its pid was given to another since it was seen."""
    _kill_process(seen.pid, seen.started_at)


def explain_unkillable(process: Stray | Seen) -> WaitTimeoutError:
    """The error for a process that outlives SIGKILL."""
    return WaitTimeoutError(
        f"process {process.pid} ({process.command}) cannot be killed",
        hint="It belongs to another user, or waits within the system for a disk or a network file system. "
        f"Look at it with: ps -o pid,user,stat,wchan,args -p {process.pid}",
    )


def _kill_process(pid: int, started_at: float) -> bool:
    """SIGKILL it; False when it is gone or waits to be reaped."""
    try:
        process = psutil.Process(pid)
        if process.create_time() != started_at or process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return True


def _look_at(pid: int) -> Seen | None:
    try:
        group = os.getpgid(pid)
        if not group:  # a thread of the kernel
            return None
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return Seen(
                pid=pid,
                parent=process.ppid() or 0,
                group=group,
                session=os.getsid(pid),
                started_at=process.create_time(),
                marker=process.environ().get(MARKER, ""),
                command=process.name(),
            )
    except (OSError, psutil.Error):  # gone meanwhile, or another user's
        return None


def _with_descendants(by_pid: dict[int, Seen], belongs: Callable[[Seen], bool]) -> tuple[Seen, ...]:
    found = {pid for pid, seen in by_pid.items() if belongs(seen)}
    while more := {pid for pid, seen in by_pid.items() if seen.parent in found and pid not in found}:
        found |= more
    return tuple(by_pid[pid] for pid in sorted(found))
