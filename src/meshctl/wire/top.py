"""The JSON shapes of ``meshctl top -o json``: the rows that its tables show, before they are sorted or cut.  Pure.

Numbers that nobody knows are null, never 0, as in ``metrics``; what does not apply to a row is null or empty.
"""

from __future__ import annotations

import msgspec

from meshctl.wire.models import FaultShape, MeshState, Shape


class TopRow(Shape, frozen=True, kw_only=True):
    """One service, version, instance or edge: what it is, how it is, and what happened to it in the window.

    ``service`` is the destination of an edge, ``source`` its caller. ``rps`` and ``retry_rate`` are per second,
    ``success`` is a share between 0 and 1. ``weights`` are percent by version: all those of a service, the own one of
    a version. ``rollout`` is the phase of a rollout that is under way, of the service and of the version. ``cpu`` is
    in cores, ``memory`` in bytes, of instances without their sidecar. ``age_s`` is how old the figures are, ``stale``
    names the sidecars that they lack because these do not answer. ``faults`` are ids of those that its requests meet.
    """

    source: str = ""
    service: str
    version: str = ""
    instance: str = ""
    route: str = ""
    state: str = ""
    health: str = ""
    secured: bool | None = None
    requests: int = 0
    failures: int = 0
    rps: float | None = None
    success: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    connections: int | None = None
    active: int | None = None
    retries: int = 0
    retry_rate: float | None = None
    circuit: str = ""
    ejected: int = 0
    weights: dict[str, int] = msgspec.field(default_factory=dict)
    rollout: str = ""
    cpu: float | None = None
    memory: int | None = None
    restarts: int | None = None
    age_s: float | None = None
    stale: list[str] = msgspec.field(default_factory=list)
    faults: list[str] = msgspec.field(default_factory=list)


class StaleSidecar(Shape, frozen=True, kw_only=True):
    """A sidecar that does not answer: since when, in seconds (null: it never did), and what is wrong."""

    sidecar: str
    age_s: float | None
    error: str


class TopSnapshot(Shape, frozen=True, kw_only=True):
    """Everything that ``meshctl top`` shows at one moment: the window of ``window_s`` seconds that ends at ``time``.

    ``total`` are the figures of all edges together. ``routes`` are by destination, ``flows`` by source, destination,
    version and route.
    """

    mesh: str
    state: MeshState
    time: float
    window_s: float
    total: TopRow
    services: list[TopRow]
    edges: list[TopRow]
    versions: list[TopRow]
    instances: list[TopRow]
    routes: list[TopRow]
    flows: list[TopRow]
    stale: list[StaleSidecar]
    faults: list[FaultShape] = msgspec.field(default_factory=list)
