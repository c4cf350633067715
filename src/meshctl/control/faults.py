"""The faults that are on: one register for every kind, each fault with an id and a deadline.  I/O.

Enters: what a verb or the topology asks for. Leaves: faults made, undone in time, and told of. Invariant 7: a fault is
stored before it is made and until all of it is undone, and it ends at its deadline whoever started it; whatever makes a
kind of fault sees to it that it also ends when the control plane has died.

A kind of fault is a ``FaultKind``, put into ``Faults.kinds`` under the name that its records carry::

    plane.fault_register.kinds["pause"] = Pauses(engine)
    order = FaultOrder(kind="pause", subject="payment-v1-1", services=("payment",), ...)
    record, acked = await plane.fault_register.inject(order)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from meshctl.control.engine import Engine
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, UsageError
from meshctl.ports import FaultRecord, StateStore
from meshctl.spec.fault_schema import LONGEST_DURATION
from meshctl.spec.values import format_duration

SHORTEST_DURATION = 1.0

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_TRY_AGAIN = 2.0
# Seconds until what could not be undone is tried again.

FaultState = Literal["starting", "on", "ending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultOrder:
    """A fault that is asked for; the fields are those of FaultRecord.

    ``duration`` is in seconds; ``id`` is empty for one that is chosen here.
    """

    kind: str
    subject: str
    services: tuple[str, ...]
    summary: str
    detail: str
    duration: float
    author: str
    reason: str = ""
    id: str = ""
    origin: Literal["command", "topology"] = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Whose requests meet a fault: of these ``callers`` alone (empty: of all), and what its services ask of others."""

    callers: tuple[str, ...] = ()
    own_calls: bool = False


class FaultKind(Protocol):
    """Makes and undoes the faults of one kind. All of it is asked for one fault at a time, in one event loop."""

    async def begin(self, fault: FaultRecord) -> int:
        """Make a fault, which is stored and listed already; returns how many sidecars have acknowledged it (0: none
        were asked) when it is in effect.

        Raises a leaf of MeshctlError when that fails: ``end`` is called then, and the fault is forgotten.
        """
        ...

    async def end(self, fault: FaultRecord) -> int:
        """Undo whatever there is of a fault; one that was never made, or is undone already, is no error.

        Returns as ``begin`` does. What raises a leaf of MeshctlError is tried again every two seconds, and the fault
        is listed as ``ending`` for that time.
        """
        ...

    async def resume(self, fault: FaultRecord) -> None:
        """Take over a fault of an earlier control plane whose time is not up, and make again what was lost of it.

        Raises a leaf of MeshctlError when that cannot be (its instance is gone, say): then it is ended.
        """
        ...

    def reach(self, fault: FaultRecord) -> Reach:
        """Whose requests meet a fault, beside those of all callers of its services."""
        ...


class Faults:
    """The register. Its verbs raise leaves of MeshctlError."""

    def __init__(
        self, engine: Engine, store: StateStore, *, wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._engine = engine
        self._store = store
        self._wait = wait
        # What an earlier control plane left is on from the start, so that what is published first has it.
        self._active: dict[str, FaultRecord] = {record.id: record for record in store.faults()}
        self._states: dict[str, FaultState] = {
            record.id: "on" if self.remaining(record) else "ending" for record in self._active.values()
        }
        self._changed = asyncio.Event()
        self.kinds: dict[str, FaultKind] = {}
        """What makes the faults of each kind, by its name."""

    # ------------------------------------------------------------------------------------------ what is on

    def active(self, kind: str = "") -> tuple[FaultRecord, ...]:
        """The faults that are listed, of one kind unless it is empty, oldest first."""
        found = [record for record in self._active.values() if kind in ("", record.kind)]
        return tuple(sorted(found, key=lambda record: (record.started_at, record.id)))

    def state(self, fault_id: str) -> FaultState:
        """The state of a fault; ``ending`` for one that is over."""
        return self._states.get(fault_id, "ending")

    def is_meant(self, record: FaultRecord) -> bool:
        """True while a fault is to be in effect, False from the moment that it is being undone."""
        return self._states.get(record.id) in ("starting", "on")

    def describe(self, service: str) -> str:
        """Which faults users of a service notice, in words; empty when there are none."""
        found = [record for record in self.active() if service in record.services]
        return " and ".join(f"fault {record.id} ({record.summary})" for record in found)

    def remaining(self, record: FaultRecord) -> float:
        """Seconds until the deadline of a fault; 0 when it has passed."""
        return max(0.0, record.ends_at - self._engine.parts.clock.now())

    # ------------------------------------------------------------------------------------------ verbs

    async def inject(self, order: FaultOrder) -> tuple[FaultRecord, int]:
        """Make a fault; returns it, and how many sidecars acknowledged, when it is in effect.

        Raises:
            UsageError: the name or the duration cannot be.
            ConflictError: a fault of that name is on, or the mesh is not up or is being stopped.
            MeshctlError: whatever ``FaultKind.begin`` raises; nothing is left of the fault then.
        """
        self._engine.refuse_while_stopping()
        if self._engine.mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        record = self._record(order)
        self._store.put_fault(record)
        self._active[record.id], self._states[record.id] = record, "starting"
        try:
            acked = await self.kinds[record.kind].begin(record)
        except (MeshctlError, asyncio.CancelledError):
            # Whoever asked may have gone away: what was begun is undone all the same.
            self._begin_undo(record, "it could not be made")
            raise
        self._states[record.id] = "on"
        self._changed.set()
        lasts = format_duration(round(self.remaining(record)))
        self._tell("fault.on", record, f"{record.subject}: fault {record.id} is on for {lasts}: {record.summary}")
        return record, acked

    async def clear(self, ids: Iterable[str] = (), *, why: str = "") -> tuple[tuple[FaultRecord, ...], int]:
        """End faults before their time: these, or all of them; returns them, and how many sidecars acknowledged.

        Raises:
            NotFoundError: no fault of that id is on; says which are.
            MeshctlError: what ``FaultKind.end`` raises; it is tried again until it has worked.
        """
        wanted = list(dict.fromkeys(ids))
        missing = [fault_id for fault_id in wanted if fault_id not in self._active]
        if missing:
            known = ", ".join(record.id for record in self.active()) or "none"
            raise NotFoundError(f"no fault {', '.join(missing)} is on", hint=f"faults that are on: {known}")
        records = tuple(self._active[fault_id] for fault_id in wanted) if wanted else self.active()
        return records, max([await self._end(record, why or "cleared") for record in records], default=0)

    # ------------------------------------------------------------------------------------------ the life of a fault

    async def take_over(self) -> None:
        """Take over what an earlier control plane left: ends what is overdue, and makes the rest again.

        It comes when the engine has started: then there is a mesh that runs, or there is nothing to take over.
        """
        for record in self.active():
            if self._engine.mesh is None:
                self._forget(record)
            elif self._states[record.id] == "ending":
                self._begin_undo(record, "its time was up while there was no control plane")
            else:
                try:
                    await self.kinds[record.kind].resume(record)
                except MeshctlError as error:
                    self._begin_undo(record, str(error))
        self._changed.set()

    async def run(self) -> None:
        """End faults at their deadlines, until cancelled."""
        while True:
            now = self._engine.parts.clock.now()
            due = [record for record in self.active() if record.ends_at <= now and self._states[record.id] == "on"]
            for record in due:
                self._begin_undo(record, "its time is up")
            self._changed.clear()
            left = [self.remaining(record) for record in self.active() if self._states[record.id] == "on"]
            try:
                async with asyncio.timeout(min(left, default=None)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def end_all(self, why: str) -> None:
        """End every fault, whatever fails on the way: the mesh goes down."""
        for record in self.active():
            try:
                await self._end(record, why)
            except MeshctlError as error:
                self._engine.report_bug(f"fault {record.id}", error)
                self._forget(record)

    async def _end(self, record: FaultRecord, why: str) -> int:
        if record.id not in self._active:
            return 0
        self._states[record.id] = "ending"
        acked = await self.kinds[record.kind].end(record)
        if self._forget(record):
            self._tell("fault.off", record, f"{record.subject}: fault {record.id} is over: {why}")
        return acked

    def _begin_undo(self, record: FaultRecord, why: str) -> None:
        self._states[record.id] = "ending"
        self._engine.spawn("fault", self._undo(record, why))

    async def _undo(self, record: FaultRecord, why: str) -> None:
        """Undo a fault, again and again until that has worked."""
        told = ""
        while record.id in self._active:
            try:
                await self._end(record, why)
            except MeshctlError as error:
                if told != str(error):
                    told = str(error)
                    message = f"{record.subject}: fault {record.id} cannot be undone yet: {error}"
                    self._engine.parts.events.add("fault.stuck", record.subject, message, "error")
                await self._wait(_TRY_AGAIN)

    def _forget(self, record: FaultRecord) -> bool:
        self._store.drop_fault(record.id)
        self._states.pop(record.id, None)
        self._changed.set()
        return self._active.pop(record.id, None) is not None

    def _tell(self, kind: str, record: FaultRecord, message: str) -> None:
        self._engine.parts.events.add(kind, record.subject, message, "warning" if kind == "fault.on" else "info")
        self._engine.notify()

    # ------------------------------------------------------------------------------------------ making records

    def _record(self, order: FaultOrder) -> FaultRecord:
        if not SHORTEST_DURATION <= order.duration <= LONGEST_DURATION:
            raise UsageError(
                f"a fault cannot last {format_duration(order.duration)}",
                hint="write a duration from 1s to 24h; a fault always has a deadline",
            )
        if order.id and _NAME.fullmatch(order.id) is None:
            raise UsageError(
                f"{order.id!r} cannot be the name of a fault",
                hint="use up to 40 small letters, digits and dashes",
            )
        if order.id in self._active:
            raise ConflictError(
                f"a fault {order.id} is on already: {self._active[order.id].summary}",
                hint=f"clear it first: meshctl inject clear {order.id}",
            )
        now = self._engine.parts.clock.now()
        return FaultRecord(
            # Not an id that was used before: whoever reads a log later must not take one fault for another.
            id=order.id or f"f{self._store.number_fault()}",
            kind=order.kind,
            subject=order.subject,
            services=order.services,
            summary=order.summary,
            detail=order.detail,
            started_at=now,
            ends_at=now + order.duration,
            author=order.author,
            reason=order.reason,
            origin=order.origin,
        )
