"""The JSON shapes of traces.  Pure; see ``models`` for what holds of all shapes."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshctl.wire.models import Shape

SpanKind = Literal["caller", "callee", "own"]


class SpanMoment(Shape, frozen=True, kw_only=True):
    """Something that happened during a span, ``at_ms`` after the trace began."""

    at_ms: float
    name: str
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


class SpanRow(Shape, frozen=True, kw_only=True):
    """One span in its place in the waterfall: rows come in the order in which they are drawn.

    ``kind`` says who saw it: ``caller``, the sidecar of ``source`` its request to ``destination``, retries included, or
    a copy that it sent to the version to which requests are mirrored, whose ``name`` is ``mirrored copy``;
    ``callee``, the sidecar of ``instance`` what came to it; ``own``, a service what it did itself. ``attempt`` is which
    try of the request above a ``callee`` saw, from 1 on, and 0 where there was but one. ``status`` is 0 without an
    answer, and of spans of services. ``notes`` say in words why it went as it did. ``parent`` is the row it belongs
    under; ``placed`` is ``by_time`` where its own parent never came, and ``late`` marks a row that was still under way
    when its parent had ended.
    """

    id: str
    parent: str
    depth: int
    kind: SpanKind
    service: str
    source: str
    destination: str
    version: str
    instance: str
    name: str
    attempt: int
    start_ms: float
    duration_ms: float
    status: int
    failed: bool
    late: bool
    placed: Literal["", "by_time"]
    notes: list[str]
    attributes: dict[str, str]
    events: list[SpanMoment]


class Trace(Shape, frozen=True, kw_only=True):
    """One trace. ``missing`` says in words what of it has not come; it is ``complete`` without any of that.

    ``time`` is when it began, in seconds since the epoch.
    """

    id: str
    time: float
    duration_ms: float
    failed: bool
    complete: bool
    missing: list[str]
    services: list[str]
    spans: list[SpanRow]


class TraceSummary(Shape, frozen=True, kw_only=True):
    """One trace in a line: ``service`` is where it entered the mesh or began, ``name`` what was asked for there.

    ``failed`` is how it ended for whoever began it; ``failed_spans`` counts what failed on the way.
    """

    id: str
    time: float
    duration_ms: float
    service: str
    name: str
    status: int
    failed: bool
    slow: bool
    complete: bool
    services: list[str]
    spans: int
    failed_spans: int
    notes: list[str]


class SidecarShare(Shape, frozen=True, kw_only=True):
    """The share of requests that begin at a sidecar of which spans are made, from 0 to 1."""

    sidecar: str
    share: float


class TraceList(Shape, frozen=True, kw_only=True):
    """Traces, newest first (slow ones slowest first), and how much is kept.

    ``found`` counts all that fit, of which ``traces`` are the first. ``evicted`` traces made room for others;
    ``dropped`` spans had no room in their trace; ``dropped_bodies`` came too fast to be read, ``forward_dropped`` could
    not be passed on. ``sampling`` names the sidecars that do not record all.
    ``endpoint`` is where services send their spans to, empty while nobody listens there.
    """

    traces: list[TraceSummary]
    found: int
    kept: int
    kept_spans: int
    kept_bytes: int
    evicted: int
    dropped: int
    dropped_bodies: int
    forward_dropped: int
    mode: Literal["adaptive", "all", "off"]
    sampling: list[SidecarShare]
    endpoint: str


class TraceQuery(Shape, frozen=True, kw_only=True):
    """Which traces are wanted: the newest ``limit`` of those that fit all that is given.

    ``service`` was called in them or called; ``error``: something in them failed, if only a try; ``slow``: they took as
    long as ``telemetry.slow_request`` says, and the slowest are wanted; ``since`` is in seconds since the epoch.
    """

    service: str = ""
    error: bool = False
    slow: bool = False
    minimum_ms: float = 0.0
    since: float | None = None
    limit: int = 20
