"""The JSON shapes of the golden signals.  Pure.

Numbers that nobody knows are null, never 0: a rate while no sidecar answered, a success share or a quantile in a window
without requests.  Shares are between 0 and 1, durations in these shapes milliseconds, rates per second.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from meshctl.wire.models import Shape

Circuit = Literal["", "closed", "open", "half_open"]


class Bucket(Shape, frozen=True, kw_only=True):
    """Requests that took at most ``le_ms`` and longer than the bucket before; the last one has no end (null).

    ``le_ms`` is ``1.2 ** (index / 2)``: buckets two apart are a factor of 1.2 apart.
    """

    index: int
    le_ms: float | None
    count: int


class Figures(Shape, frozen=True, kw_only=True):
    """What happened in a window.

    ``requests`` counts a request once, however often it was tried; ``retries`` are the tries after the first.
    ``failures`` are those that got no answer, a status from 500, or a gRPC status that is the server's fault.
    ``statuses`` are by HTTP status (``0``: no answer), ``grpc`` by the name of the gRPC status, ``reasons`` by Envoy's
    response flags (``UH``, ``UT``, …) and ``circuit_open`` for what an open circuit turned away, of those requests that
    have one. ``buckets`` is empty unless asked for.
    """

    requests: int = 0
    failures: int = 0
    retries: int = 0
    rate: float | None = None
    success: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    statuses: dict[str, int] = msgspec.field(default_factory=dict)
    grpc: dict[str, int] = msgspec.field(default_factory=dict)
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    sent_rate: float | None = None
    received_rate: float | None = None
    """Bytes a second of requests and of answers, with their headers."""
    buckets: list[Bucket] = msgspec.field(default_factory=list)


class Row(Figures, frozen=True, kw_only=True):
    """Figures of one thing. Names that do not apply are empty: a service's row has no ``source``.

    The figures are what callers saw, retries, timeouts and answers of their own sidecars included, except in
    ``served`` and in rows of instances: those are what the sidecars of the instances saw, every try by itself.
    ``active`` (requests under way), ``connections`` (open ones), ``ejected`` (instances that outlier detection keeps
    away) and ``circuit`` are as they are now. ``secured`` is whether the way there is mTLS, null for what is not known.
    Retries, bytes and these are of versions, edges and services, and 0 or null in rows of routes and flows.
    ``age_s`` is how old the oldest of the figures is; ``stale`` names the sidecars that did not answer of late.
    """

    source: str = ""
    destination: str = ""
    version: str = ""
    instance: str = ""
    route: str = ""
    active: int | None = None
    connections: int | None = None
    ejected: int = 0
    circuit: Circuit = ""
    secured: bool | None = None
    age_s: float | None = None
    stale: list[str] = msgspec.field(default_factory=list)
    served: Figures | None = None


class SidecarFigures(Shape, frozen=True, kw_only=True):
    """How fresh the figures of one sidecar are: ``age_s`` is null when it never answered."""

    sidecar: str
    age_s: float | None
    stale: bool
    error: str
    resets: int
    """How often its counters began anew, which they do when it is restarted."""


class ProcessUse(Shape, frozen=True, kw_only=True):
    """What an instance or a sidecar uses: ``cpu`` in cores (null at first sight), ``memory`` in bytes."""

    name: str
    service: str
    pid: int
    cpu: float | None
    memory: int


class Metrics(Shape, frozen=True, kw_only=True):
    """The golden signals of a window that ends at ``time``, all of them or those of one service.

    ``services``, ``versions`` and ``routes`` are by destination, over all callers; ``edges`` by source and
    destination; ``flows`` the finest: source, destination, version and route; ``instances`` by instance, as its own
    sidecar saw it. Each is sorted by its names. Things without traffic have rows too.
    """

    time: float
    window_s: float
    services: list[Row]
    versions: list[Row]
    edges: list[Row]
    routes: list[Row]
    flows: list[Row]
    instances: list[Row]
    sidecars: list[SidecarFigures]
    processes: list[ProcessUse]


class Point(Shape, frozen=True, kw_only=True):
    """One step of a history; ``time`` is its end."""

    time: float
    requests: int
    failures: int
    rate: float | None
    success: float | None
    p50_ms: float | None
    p99_ms: float | None


class Series(Shape, frozen=True, kw_only=True):
    """The history of one thing, as its callers saw it, oldest first."""

    source: str
    destination: str
    version: str
    points: list[Point]


class History(Shape, frozen=True, kw_only=True):
    """Figures in equal steps: what sparklines and charts are drawn from. One series for each edge and version."""

    time: float
    step_s: float
    series: list[Series]
