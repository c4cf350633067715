"""Traces: where spans come in, of how many requests they are made, and who asks for them.  I/O.

Sidecars and services send spans while they work; nobody of them waits for what becomes of these. A control plane that
dies takes the traces of late with it and nothing else: the next one begins with none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from meshctl.control.engine import Engine
from meshctl.control.waterfall import build_trace, is_called, is_retried, summarize
from meshctl.errors import NotFoundError, UsageError
from meshctl.plan.addresses import COLLECTOR_KEY, LOOPBACK
from meshctl.spec.schema import Mesh
from meshctl.telemetry.rollup import History
from meshctl.telemetry.sampling import FULL, Sampling, step
from meshctl.telemetry.spans import Span
from meshctl.telemetry.trace_store import KeptTrace, TraceStore
from meshctl.wire.traces import SidecarShare, Trace, TraceList, TraceQuery

_PERIOD = 1.0
_RECENT = 3.0
# Seconds of counted requests that tell what passes now.

_SHOWN_IDS = 5


class SpanReceiver(Protocol):
    """Receives spans (adapters.collector)."""

    @property
    def dropped(self) -> int:
        """How many bodies were not looked at, because too much came."""
        ...

    def connect(
        self, take: Callable[[list[Span]], None], forward: Callable[[str, bytes, Mapping[str, str]], None]
    ) -> None:
        """Say where spans go, and bodies with their path and headers."""
        ...

    async def open_port(self, port: int) -> None:
        """Receive from services, on a port of loopback. Raises OSError when that cannot be."""
        ...

    async def close_port(self) -> None:
        """Receive no more from services."""
        ...


class SpanForwarder(Protocol):
    """Passes bodies on to another receiver (adapters.otlp_forward)."""

    @property
    def url(self) -> str:
        """Where to."""
        ...

    @property
    def dropped(self) -> int:
        """How many bodies were not passed on."""
        ...

    def offer(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Take a body to pass on; never waits."""
        ...

    async def run(self) -> None:
        """Pass on until cancelled."""
        ...


MakeForwarder = Callable[[str, Callable[[str], None]], SpanForwarder]
"""Makes one for a URL; it calls back with why something was dropped, and with nothing when it goes on."""


class Tracing:
    """Takes spans, keeps traces, and tells sidecars of how many requests to make them."""

    def __init__(
        self,
        engine: Engine,
        *,
        receiver: SpanReceiver,
        make_forwarder: MakeForwarder,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._receiver = receiver
        self._make_forwarder = make_forwarder
        self._wait = wait
        self._store = TraceStore()
        self._sampling = Sampling()
        self._forwarder: SpanForwarder | None = None
        self._forwarding: asyncio.Task[None] | None = None
        self._forward_dropped = 0
        self._port = 0
        self._told_port = 0
        receiver.connect(self.take, self._forward)

    def shares(self) -> Mapping[str, int]:
        """The share of requests, in millionths, of sidecars that do not record all; asked anew for each plan."""
        return self._sampling.shares()

    def take(self, spans: list[Span]) -> None:
        """Take spans that came."""
        mesh = self._engine.mesh
        if mesh is None or not spans or mesh.telemetry.tracing == "off":
            return
        now = self._engine.parts.clock.now()
        self._store.add(spans, now, slow_ns=round(mesh.telemetry.slow_request * 1e9))

    async def run(self) -> None:
        """Keep the port, the forwarding and the shares as they should be, until cancelled."""
        try:
            while True:
                await self.reconcile()
                await self._wait(_PERIOD)
        finally:
            await self._receiver.close_port()

    async def reconcile(self) -> None:
        """Do what is due each second."""
        mesh = self._engine.mesh
        await self._keep_port()
        self._keep_forwarding(mesh)
        self._sample(mesh)

    # ------------------------------------------------------------------------------------------ who asks

    def list(self, query: TraceQuery) -> TraceList:
        """The newest traces that fit, or of those that were slow the slowest.

        Raises NotFoundError for a service that does not exist.
        """
        self._check_service(query.service)
        fitting = [kept for kept in self._store.newest() if _fits(kept, query)]
        if query.slow:
            fitting.sort(key=lambda kept: kept.start_ns - kept.end_ns)
        kept = self._store.kept()
        mesh = self._engine.mesh
        return TraceList(
            traces=[summarize(found) for found in fitting[: query.limit]],
            found=len(fitting),
            kept=kept.traces,
            kept_spans=kept.spans,
            kept_bytes=kept.size,
            evicted=kept.evicted,
            dropped=kept.dropped,
            dropped_bodies=self._receiver.dropped,
            forward_dropped=self._forward_dropped + (self._forwarder.dropped if self._forwarder is not None else 0),
            mode=mesh.telemetry.tracing if mesh is not None else "adaptive",
            sampling=[SidecarShare(sidecar=name, share=share / FULL) for name, share in self.shares().items()],
            endpoint=f"http://{LOOPBACK}:{self._port}" if self._port else "",
        )

    def get(self, trace_id: str) -> Trace:
        """One trace, by the beginning of its id.

        Raises:
            UsageError: no id begins so because this is none, or several do.
            NotFoundError: there is no such trace.
        """
        prefix = trace_id.lower()
        if not prefix or len(prefix) > 32 or prefix.strip("0123456789abcdef"):
            raise UsageError(
                f"{trace_id!r} is no trace id", hint="write its first digits, as meshctl traces shows them"
            )
        found = self._store.find(prefix)
        if len(found) > 1:
            some = ", ".join(name[: len(prefix) + 4] for name in found[:_SHOWN_IDS])
            more = f" and {len(found) - _SHOWN_IDS} more" if len(found) > _SHOWN_IDS else ""
            raise UsageError(f"{len(found)} traces begin with {prefix}: {some}{more}", hint="write more of the id")
        kept = self._store.get(found[0]) if found else None
        if kept is None:
            raise NotFoundError(
                f"there is no trace {prefix}",
                hint="traces of late are kept, those recorded of them: meshctl traces shows which",
            )
        return build_trace(kept)

    def _check_service(self, name: str) -> None:
        mesh = self._engine.mesh
        known = (self._engine.nodes | mesh.services.keys()) if mesh is not None else frozenset[str]()
        if name and name not in known:
            raise NotFoundError(f"no service {name}", hint=f"there are: {', '.join(sorted(known))}")

    # ------------------------------------------------------------------------------------------ what is due

    async def _keep_port(self) -> None:
        """Listen where services were told to send spans; a port that is taken is told once, and tried again."""
        wanted = self._engine.parts.topology.ports.get(COLLECTOR_KEY, 0) if not self._engine.stopping else 0
        if wanted == self._port:
            return
        if not wanted:
            await self._receiver.close_port()
            self._port = 0
            return
        try:
            await self._receiver.open_port(wanted)
        except OSError as error:
            self._port = 0
            if self._told_port != wanted:
                self._told_port = wanted
                message = f"services cannot send spans to port {wanted}: {error.strerror or error}"
                self._engine.parts.events.add("traces.port_taken", "traces", message, "error")
            return
        self._port, self._told_port = wanted, 0

    def _keep_forwarding(self, mesh: Mesh | None) -> None:
        endpoint = mesh.telemetry.otlp if mesh is not None else None
        wanted = endpoint.url if endpoint is not None else ""
        if wanted == (self._forwarder.url if self._forwarder is not None else ""):
            return
        if self._forwarding is not None:
            self._forwarding.cancel()
            self._forwarding = None
        if self._forwarder is not None:
            self._forward_dropped += self._forwarder.dropped
            self._forwarder = None
        if wanted:
            self._forwarder = self._make_forwarder(wanted, lambda why: self._tell_forwarding(wanted, why))
            self._forwarding = self._engine.spawn("forward spans", self._forwarder.run())
            self._engine.parts.events.add("traces.forwarded", "traces", f"spans are passed on to {wanted}")

    def _tell_forwarding(self, url: str, why: str) -> None:
        events = self._engine.parts.events
        if why:
            message = f"spans are not passed on to {url}: {why}; they are dropped until it takes them again"
            events.add("traces.forward_failed", "traces", message, "warning")
        else:
            events.add("traces.forwarded", "traces", f"spans are passed on to {url} again")

    def _forward(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        if self._forwarder is not None:
            self._forwarder.offer(path, body, headers)

    def _sample(self, mesh: Mesh | None) -> None:
        spans = self._store.take_counts()
        if mesh is None or mesh.telemetry.tracing != "adaptive":
            self._sampling = Sampling()
            return
        reader = self._engine.parts.metrics.reader
        now = reader.now()
        histories = reader.rollup.sidecars
        rates = {node: _rate(histories[node], now) if node in histories else 0.0 for node in sorted(self._engine.nodes)}
        before = self._sampling.shares()
        self._sampling = step(self._sampling, spans=spans, requests=rates, seconds=_PERIOD)
        if self._sampling.shares() != before:
            self._engine.mark_dirty()


def _rate(history: History, now: float) -> float:
    """Requests a second that a sidecar saw in the newest second that was counted."""
    for slot in reversed(history.fine):
        if slot.at < now - _RECENT:
            break
        if slot.seconds > 0:
            count = sum(sum(delta.outcomes.values()) for delta in slot.flows.values())
            return count / slot.seconds
    return 0.0


def _fits(kept: KeptTrace, query: TraceQuery) -> bool:
    duration_ms = (kept.end_ns - kept.start_ns) / 1e6
    return (
        # A try that reached nobody has no span of its own.
        (not query.error or kept.failed or any(is_retried(span) for span in kept.spans.values()))
        and (not query.slow or kept.slow)
        and duration_ms >= query.minimum_ms
        and (query.since is None or kept.start_ns >= query.since * 1e9)
        and (not query.service or any(_has_part(span, query.service) for span in kept.spans.values()))
    )


def _has_part(span: Span, service: str) -> bool:
    """Whether a service made a span, or its sidecar did, or it was called: one that is down says nothing itself."""
    return span.service == service or is_called(span, service)
