"""Live requests: sidecars report while somebody taps, and are told to stop when the last one goes.  I/O.

What sidecars are asked for is a runtime value of theirs, part of what is published; a control plane that dies leaves
them reporting, at a bounded rate and to nobody, and the next one publishes values without taps.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from meshctl.control.engine import Engine
from meshctl.errors import ConflictError, MeshctlError, NotFoundError
from meshctl.plan.addresses import instances_by_address
from meshctl.plan.policies.telemetry import REPORTED_PER_SECOND, TapPlan
from meshctl.spec.schema import Mesh
from meshctl.wire.requests import SeenRequest, TapItem, TapSummary, read_fields
from meshctl.wire.taps import TapQuery

PASSED_STAT = "meshctl.tap.passed"

_ACK_TIMEOUT = 1.0
_ANSWER = 0.5
_LOOK = 1.0
_QUEUE = 2000
_STATS_PATH = f"/stats?filter=^{PASSED_STAT.replace('.', '[.]')}$"


class _Tap:
    """One who taps: what is wanted, and what waits to be taken."""

    def __init__(self, query: TapQuery) -> None:
        self.query = query
        self.nodes: frozenset[str] = frozenset()
        self.waiting: deque[SeenRequest] = deque()
        self.arrived = asyncio.Event()
        self.shown = 0
        self.reported = 0
        self.passed = 0
        self.dropped = 0
        self.unread: dict[str, int] = {}
        """Nodes whose count at the beginning is not known, with how many requests they have reported since."""

    def offer(self, node: str, request: SeenRequest) -> None:
        if node not in self.nodes or request.side != self.query.side:
            return
        self.reported += 1
        if node in self.unread:
            self.unread[node] += 1
        if not self.query.match(request):
            return
        if len(self.waiting) >= _QUEUE:
            self.dropped += 1
            return
        self.waiting.append(request)
        self.arrived.set()


class Taps:
    """Everybody who taps the mesh."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._taps: list[_Tap] = []
        self._counts: dict[str, int] = {}
        self._instances: Mapping[str, str] = {}
        self._looker: asyncio.Task[None] | None = None
        self._unheard: frozenset[str] = frozenset()

    def plan(self, mesh: Mesh) -> Mapping[str, TapPlan]:
        """What each sidecar is to report, by node; without those that nobody taps. Asked anew for each plan."""
        if not self._taps:
            return {}
        self._instances = instances_by_address(self._engine.parts.topology.ports)
        for tap in self._taps:
            tap.nodes = self._nodes_of(tap.query)
        return {
            node: _widest(_plan(tap.query, mesh) for tap in self._taps if node in tap.nodes)
            for node in sorted(self._nodes())
        }

    def take(self, node: str, fields: Mapping[str, Any]) -> None:
        """Take one report of a sidecar."""
        if not self._taps:
            return
        request = read_fields(fields, sidecar=node, instances=self._instances)
        for tap in self._taps:
            tap.offer(node, request)

    async def tap(self, query: TapQuery, *, count: int | None, seconds: float | None) -> AsyncIterator[TapItem]:
        """The requests that fit, as they end, and now and then a summary; the last item is one.

        Ends after ``count`` requests or ``seconds``, or when whoever asked goes away.

        Raises:
            ConflictError: there was no ``up`` yet, or the mesh is being stopped.
            NotFoundError: a named service does not exist.
        """
        tap = self._open(query)
        clock = self._engine.parts.clock
        try:
            await self._switch(tap)
            end = None if seconds is None else clock.monotonic() + seconds
            next_summary = clock.monotonic() + _LOOK
            yield TapItem(summary=self._sum_up(tap))
            while (count is None or tap.shown < count) and not self._engine.stopping:
                now = clock.monotonic()
                if end is not None and now >= end:
                    break
                if now >= next_summary:
                    next_summary = now + _LOOK
                    yield TapItem(summary=self._sum_up(tap))
                if not tap.waiting:
                    tap.arrived.clear()
                    until = next_summary if end is None else min(end, next_summary)
                    await _wait(tap.arrived, max(0.0, until - now))
                while tap.waiting and (count is None or tap.shown < count):
                    tap.shown += 1
                    yield TapItem(request=tap.waiting.popleft())
            await self._look(tap.nodes)
            yield TapItem(summary=self._sum_up(tap))
        finally:
            self._close(tap)

    # ------------------------------------------------------------------------------------------ who taps what

    def _open(self, query: TapQuery) -> _Tap:
        engine, mesh = self._engine, self._engine.mesh
        if mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        if engine.stopping:
            raise ConflictError("the mesh is being stopped")
        known = engine.nodes | mesh.services.keys()
        for name in (*query.to, *query.source):
            if name not in known:
                raise NotFoundError(f"no service {name}", hint=f"there are: {', '.join(sorted(known))}")
        tap = _Tap(query)
        tap.nodes = self._nodes_of(query)
        self._taps.append(tap)
        if self._looker is None:
            self._looker = engine.spawn("taps", self._look_forever())
        return tap

    def _nodes_of(self, query: TapQuery) -> frozenset[str]:
        nodes = self._engine.nodes
        named = query.source if query.side == "caller" else query.to
        return nodes & frozenset(named) if named else nodes

    def _close(self, tap: _Tap) -> None:
        self._taps.remove(tap)
        if not self._taps and self._looker is not None:
            self._looker.cancel()
            self._looker = None
        self._engine.mark_dirty()

    async def _switch(self, tap: _Tap) -> None:
        """Have sidecars report; returns when they have taken it, or soon after if some do not answer."""
        engine = self._engine
        # What passed before is none of this tap's.
        tap.unread = dict.fromkeys(await self._look(tap.nodes), 0)
        tap.passed = 0
        changed = engine.publish_changed()
        try:
            await engine.parts.publisher.wait(changed, _ACK_TIMEOUT)
        except MeshctlError:
            # Those that take it later report later; the summary names them until then.
            return

    # ------------------------------------------------------------------------------------------ how much passed

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            await self._look(self._nodes())

    def _nodes(self) -> frozenset[str]:
        return frozenset[str]().union(*(tap.nodes for tap in self._taps))

    async def _look(self, nodes: frozenset[str]) -> frozenset[str]:
        """Read from sidecars how many requests passed that taps might want; returns those that did not answer."""
        running = sorted(nodes & self._engine.running_versions().keys())
        counts = await asyncio.gather(*(self._count(node) for node in running))
        for node, now in zip(running, counts, strict=True):
            if now is None:
                continue
            before = self._counts.get(node, now)
            self._counts[node] = now
            # A sidecar that was restarted begins anew.
            more = now - before if now >= before else now
            for tap in self._taps:
                if node in tap.unread:
                    # What passed before the tap began is among them.
                    tap.passed += tap.unread.pop(node)
                elif node in tap.nodes:
                    tap.passed += more
        self._unheard = frozenset(node for node, now in zip(running, counts, strict=True) if now is None)
        return self._unheard

    async def _count(self, node: str) -> int | None:
        parts = self._engine.parts
        try:
            async with asyncio.timeout(_ANSWER):
                text = await parts.admin.get(parts.paths.admin_socket(node), _STATS_PATH)
        except OSError:  # TimeoutError is one
            return None
        _, _, number = text.partition(":")
        return int(number) if number.strip().isdecimal() else 0

    def _sum_up(self, tap: _Tap) -> TapSummary:
        running = self._engine.running_versions()
        sync = self._engine.parts.sync
        silent = sorted(
            node for node in tap.nodes & running.keys() if node in self._unheard or sync(node).state != "synced"
        )
        return TapSummary(
            shown=tap.shown,
            reported=tap.reported,
            # What was reported since sidecars were last asked has passed, too.
            passed=max(tap.passed, tap.reported),
            dropped=tap.dropped,
            per_second=REPORTED_PER_SECOND,
            sidecars=len(tap.nodes & running.keys()),
            silent=silent,
        )


def _plan(query: TapQuery, mesh: Mesh) -> TapPlan:
    low, high = query.status_range()
    is_caller = query.side == "caller"
    return TapPlan(
        inbound=not is_caller,
        outbound=is_caller,
        upstreams=tuple(sorted(query.to or mesh.services)) if is_caller else (),
        lowest_status=low,
        highest_status=high,
        minimum_ms=int(query.minimum_ms),
    )


def _widest(plans: Iterable[TapPlan]) -> TapPlan:
    """What covers several plans, of which there is at least one."""
    found = list(plans)
    return TapPlan(
        inbound=any(plan.inbound for plan in found),
        outbound=any(plan.outbound for plan in found),
        upstreams=tuple(sorted({name for plan in found for name in plan.upstreams})),
        lowest_status=min(plan.lowest_status for plan in found),
        highest_status=max(plan.highest_status for plan in found),
        minimum_ms=min(plan.minimum_ms for plan in found),
    )


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
