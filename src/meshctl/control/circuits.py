"""Circuit breakers: what state they are in, forcing them, and telling of their changes.  I/O.

The breakers live in the sidecars and need no control plane. Their state is read from memory that the sidecars share:
one number for each sidecar tells whether anything has changed since the last look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from meshctl.control.engine import Engine
from meshctl.control.events import Level
from meshctl.control.policy_changer import PolicyChanger
from meshctl.control.revisions import Stamp
from meshctl.envoy.circuit_layout import (
    FILE_SIZE,
    HEADER_SIZE,
    CircuitChange,
    CircuitSlot,
    read_change_count,
    read_slots,
)
from meshctl.errors import ConflictError, NotFoundError
from meshctl.plan.circuits import find_circuits
from meshctl.plan.model import MeshPlan
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan
from meshctl.ports import CircuitFiles
from meshctl.spec.values import format_duration
from meshctl.wire.circuits import CircuitList, CircuitShape, CircuitState, ForceRequest
from meshctl.wire.models import AppliedResult

LOOK_EVERY = 0.25
"""Seconds between two looks."""

_KIND = {"open": "circuit.opened", "half_open": "circuit.half_opened", "closed": "circuit.closed"}


class Circuits:
    """The circuit breakers of a running mesh; fits api.backend.CircuitBackend."""

    def __init__(
        self,
        engine: Engine,
        changer: PolicyChanger,
        files: CircuitFiles,
        *,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._changer = changer
        self._files = files
        self._wait = wait
        self._counts: dict[str, int] = {}
        # Changes that are known, by node in all, and by node and service.
        self._known: dict[tuple[str, str], int] = {}

    # ------------------------------------------------------------------------------------------ verbs

    def list(self, service: str = "") -> CircuitList:
        """The state of every breaker, or of those to one service."""
        plan = self._plan()
        if service and service not in (mesh.services if (mesh := self._engine.mesh) is not None else ()):
            raise self._unknown(service)
        found = [shape for shape in self._shapes(plan) if service in ("", shape.service)]
        return CircuitList(circuits=sorted(found, key=lambda shape: (shape.caller, shape.service)))

    def states(self) -> dict[tuple[str, str], CircuitState]:
        """The state of every breaker by caller and service; none before any ``up``."""
        if self._engine.mesh is None:
            return {}
        return {(shape.caller, shape.service): shape.state for shape in self.list().circuits}

    async def force(self, request: ForceRequest) -> AppliedResult:
        """Hold the circuits to a service open or closed, or let them work.

        Raises what PolicyChanger.set_policy raises; ConflictError for a service that has no circuits.
        """
        mesh = self._engine.mesh
        service = mesh.services.get(request.service) if mesh is not None else None
        if service is None:
            raise self._unknown(request.service)
        if service.protocol == "tcp":
            raise ConflictError(f"{service.name} speaks plain TCP: no single calls are seen, so no circuit breaks")
        author, reason = request.author, request.reason
        if request.forced == "auto":
            stamp = Stamp(author=author, reason=reason)
            changed = await self._changer.release(service.name, "circuit_breaker", "forced", "auto", stamp)
        else:
            value = {"forced": request.forced}
            changed = await self._changer.set_policy(
                service.name, "circuit_breaker", value, author=author, reason=reason, merge=True
            )
        held = {"auto": "left to its failures", "open": "held open", "closed": "held closed"}[request.forced]
        message = f"the circuit to {service.name} is {held}"
        if changed.changes:
            kind = f"circuit.forced_{request.forced}"
            self._engine.parts.events.add(kind, service.name, f"{service.name}: its circuit is {held} at every caller")
        return AppliedResult(
            message=message, acked=changed.sidecars, total=changed.sidecars, duration_ms=changed.duration_ms
        )

    # ------------------------------------------------------------------------------------------ telling of changes

    def begin(self) -> None:
        """Take what is so as known: what an earlier control plane told is not told again."""
        for node in self._engine.nodes:
            self._take(node, self._count(node))

    async def run(self) -> None:
        """Tell of changes until cancelled."""
        self.begin()
        while True:
            await self._wait(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Tell of the changes since the last look."""
        for node in sorted(self._engine.nodes):
            count = self._count(node)
            if count == self._counts.get(node, 0):
                continue
            if count < self._counts.get(node, 0):
                # A file that was made anew.
                self._forget(node)
            for slot, change in self._take(node, count):
                self._tell(node, slot, change)

    def _take(self, node: str, count: int) -> Sequence[tuple[CircuitSlot, CircuitChange]]:
        """The changes of a sidecar that were not known, in their order; known from now on."""
        self._counts[node] = count
        new: Sequence[tuple[CircuitSlot, CircuitChange]] = []
        for slot in self._slots(node) if count else ():
            known = self._known.get((node, slot.target), 0)
            new = [*new, *((slot, change) for change in slot.recent if change.number >= known)]
            self._known[node, slot.target] = slot.changes
        return sorted(new, key=lambda item: (item[1].time, item[0].target, item[1].number))

    def _tell(self, node: str, slot: CircuitSlot, change: CircuitChange) -> None:
        subject = f"{node} -> {slot.target}"
        state = change.after.replace("_", "-")
        level: Level = "warning" if change.after == "open" else "info"
        message = f"{subject}: circuit {state}: {describe_reason(change)}"
        self._engine.parts.events.add(_KIND[change.after], subject, message, level)

    def _forget(self, node: str) -> None:
        self._known = {key: number for key, number in self._known.items() if key[0] != node}

    # ------------------------------------------------------------------------------------------ reading

    def _count(self, node: str) -> int:
        head = self._files.read(self._engine.parts.paths.circuits(node), HEADER_SIZE)
        return read_change_count(head) if len(head) == HEADER_SIZE else 0

    def _slots(self, node: str) -> tuple[CircuitSlot, ...]:
        data = self._files.read(self._engine.parts.paths.circuits(node), FILE_SIZE)
        return read_slots(data) if len(data) == FILE_SIZE else ()

    def _plan(self) -> MeshPlan:
        mesh = self._engine.mesh
        if mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return self._engine.plan(mesh)

    def _shapes(self, plan: MeshPlan) -> Iterator[CircuitShape]:
        now = self._files.clock()
        for node, proxy in plan.proxies.items():
            slots = {slot.target: slot for slot in self._slots(node)}
            for breaker, meant in find_circuits(proxy):
                slot = slots.get(breaker.target)
                if meant or slot is not None:
                    yield _shape(node, breaker, slot, now)

    def _unknown(self, service: str) -> NotFoundError:
        mesh = self._engine.mesh
        known = ", ".join(sorted(mesh.services)) if mesh is not None else "none"
        return NotFoundError(f"no service {service}", hint=f"services: {known}")


def describe_reason(change: CircuitChange) -> str:
    """Why a breaker changed, in words."""
    value = f"{change.value:g}"
    return {
        "failures": f"{value} failure{'' if change.value == 1 else 's'} in a row",
        "failure_rate": f"{change.value:.0f}% of the last calls failed",
        "timeout": f"calls may try again after {format_duration(change.value)}",
        "probe": "a call that tried again failed",
        "successes": f"{value} success{'' if change.value == 1 else 'es'}",
    }.get(change.reason, "")


def _shape(node: str, breaker: CircuitBreakerPlan, slot: CircuitSlot | None, now: float) -> CircuitShape:
    # What is forced holds from the moment of the command; its sidecar notes it with the next request.
    noted = slot is not None and slot.forced == breaker.forced
    state = slot.state if slot is not None and noted else "open" if breaker.forced == "open" else "closed"
    last = slot.recent[-1] if slot is not None and slot.recent else None
    if last is not None and last.after != state:
        # It was forced since, which is no change of its own.
        last = None
    return CircuitShape(
        caller=node,
        service=breaker.target,
        state=state,  # type: ignore[arg-type]
        forced=breaker.forced,
        failures=slot.failures if slot is not None and noted else 0,
        failure_threshold=breaker.failure_threshold,
        successes=slot.successes if slot is not None and noted else 0,
        success_threshold=breaker.success_threshold,
        window_calls=slot.window_fill if slot is not None and noted else 0,
        window_failed=slot.window_failed if slot is not None and noted else 0,
        retry_in=(
            round(max(0.0, slot.retry_at - now), 1)
            if slot is not None and state == "open" and breaker.forced == "auto"
            else None
        ),
        failed=slot.failed if slot is not None else 0,
        rejected=slot.rejected if slot is not None else 0,
        changed_at=None if last is None else round(last.time, 3),
        reason="" if last is None else describe_reason(last),
    )
