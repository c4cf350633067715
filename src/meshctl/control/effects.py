"""Carries out the commands of the state machines and turns what comes of them into events.  I/O.

This is a runner's boundary: whatever goes wrong here is an event of the one instance that it concerns, never the end
of the supervisor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, assert_never

from meshctl.control.entries import Entry
from meshctl.errors import MeshctlError
from meshctl.lifecycle.model import (
    Command,
    Drain,
    Drained,
    Event,
    InstanceSpec,
    Level,
    ProbeKind,
    ProbeResult,
    Remember,
    Report,
    RunProbe,
    Signal,
    Spawn,
    Started,
    StartFailed,
    Sweep,
    Swept,
)
from meshctl.ports import InstanceRecord, ProcessHost
from meshctl.spec.schema import Probe
from meshctl.tasks import TaskBag

RunOneProbe = Callable[[InstanceSpec, Probe], Awaitable[tuple[bool, str]]]
ReportEvent = Callable[[str, str, str, Level], object]


class Effects:
    """Does what machines command. Every task is held by ``bag``; ``post`` takes the events that come of it."""

    def __init__(
        self,
        *,
        host: ProcessHost,
        probe: RunOneProbe,
        drain: Callable[[str], Awaitable[None]],
        remember: Callable[[InstanceRecord], None],
        report: ReportEvent,
        post: Callable[[Entry, Event], None],
        bag: TaskBag,
    ) -> None:
        self._host = host
        self._probe = probe
        self._drain = drain
        self._remember = remember
        self._report = report
        self._post = post
        self._bag = bag

    def execute(self, entry: Entry, command: Command) -> None:
        """Carry out one command; what takes time goes on in a task."""
        match command:
            case Remember(record=record):
                self._remember(record)
            case Report(kind=kind, message=message, level=level):
                self._report(kind, entry.spec.id, message, level)
            case Spawn():
                self._spawn(entry, "start", self._start(entry))
            case Signal(signum=signum):
                self._spawn(entry, "signal", self._signal(entry, signum))
            case Sweep():
                entry.cancel_tasks()
                self._spawn(entry, "sweep", self._sweep(entry))
            case Drain(start=start):
                entry.cancel_tasks()
                self._hold(entry, "drain", self._leave(entry, start))
            case RunProbe(kind=kind, start=start):
                self._hold(entry, kind, self._ask(entry, kind, start))
            case _:  # pragma: no cover
                assert_never(command)

    def _spawn(self, entry: Entry, what: str, coro: Coroutine[Any, Any, None]) -> None:
        self._bag.spawn(f"{what} {entry.spec.id}", coro)

    def _hold(self, entry: Entry, what: str, coro: Coroutine[Any, Any, None]) -> None:
        entry.tasks[what] = self._bag.spawn(f"{what} {entry.spec.id}", coro)

    async def _start(self, entry: Entry) -> None:
        try:
            handle = await self._host.start(entry.spec.process)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._post(entry, StartFailed(message=_explain(error)))
        else:
            self._post(entry, Started(pid=handle.pid, started_at=handle.started_at))

    async def _signal(self, entry: Entry, signum: int) -> None:
        try:
            await self._host.signal(entry.spec.id, signum)
        except Exception as error:  # noqa: BLE001 - the boundary; the deadline of the stop does the rest
            self._warn(entry, f"it could not be signalled: {_explain(error)}")

    async def _sweep(self, entry: Entry) -> None:
        try:
            await self._host.sweep(entry.spec.id)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._warn(entry, f"what it left behind could not be ended: {_explain(error)}")
        self._post(entry, Swept())

    async def _leave(self, entry: Entry, start: int) -> None:
        try:
            await self._drain(entry.spec.id)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._warn(entry, f"it is stopped although callers may still use it: {_explain(error)}")
        self._post(entry, Drained(start=start))

    async def _ask(self, entry: Entry, kind: ProbeKind, start: int) -> None:
        probe = entry.spec.readiness if kind == "readiness" else entry.spec.liveness
        if probe is None:
            return
        try:
            ok, message = await self._probe(entry.spec, probe)
        except Exception as error:  # noqa: BLE001 - the boundary
            ok, message = False, _explain(error)
        self._post(entry, ProbeResult(kind=kind, start=start, ok=ok, message=message))

    def _warn(self, entry: Entry, message: str) -> None:
        self._report("instance.trouble", entry.spec.id, message, "warning")


def _explain(error: Exception) -> str:
    return str(error) if isinstance(error, MeshctlError | OSError) else f"internal error: {error!r}"
