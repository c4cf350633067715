"""What the mesh is and what happened in it, joined: the rows of every table.  Pure.

Enters: ``MeshStatus`` (what there is) and ``Metrics`` (what happened).  Leaves: ``TopSnapshot``.  What either of
the two knows has a row: a service that is called and gone, or there and never called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from meshctl.wire.metrics import Figures, Metrics, ProcessUse, Row
from meshctl.wire.models import InstanceStatus, MeshStatus, ServiceStatus
from meshctl.wire.top import StaleSidecar, TopRow, TopSnapshot

_EXTERNAL = "external"


def build_snapshot(status: MeshStatus, metrics: Metrics) -> TopSnapshot:
    """The rows of a mesh. Services and versions stand in the order of their names, edges in that of their ends."""
    services = {service.name: service for service in status.services}
    uses = {use.name: use for use in metrics.processes}
    by_instance = {row.instance: row for row in metrics.instances}
    window = metrics.window_s
    snapshot = TopSnapshot(
        mesh=status.mesh,
        state=status.state,
        time=metrics.time,
        window_s=window,
        total=_total(metrics),
        services=[
            _service_row(name, services.get(name), row, uses, window)
            for (name,), row in _join(((name,) for name in services), {(r.destination,): r for r in metrics.services})
        ],
        edges=[_figures_row(row, window) for row in sorted(metrics.edges, key=lambda r: (r.source, r.destination))],
        versions=[
            _version_row((name, version), services.get(name), row, uses, window)
            for (name, version), row in _join(
                ((s.name, version) for s in status.services for version in _versions(s)),
                {(r.destination, r.version): r for r in metrics.versions},
            )
        ],
        instances=[
            _instance_row(service, instance, by_instance.get(instance.id), uses, window)
            for service in sorted(status.services, key=lambda s: s.name)
            for instance in service.instances
        ],
        routes=[_figures_row(row, window) for row in sorted(metrics.routes, key=lambda r: (r.destination, r.route))],
        flows=[
            _figures_row(row, window)
            for row in sorted(metrics.flows, key=lambda r: (r.source, r.destination, r.version, r.route))
        ],
        stale=[
            StaleSidecar(sidecar=sidecar.sidecar, age_s=sidecar.age_s, error=sidecar.error)
            for sidecar in metrics.sidecars
            if sidecar.stale
        ],
        faults=status.faults,
    )
    return _mark(snapshot) if status.faults else snapshot


def _mark(snapshot: TopSnapshot) -> TopSnapshot:
    """The snapshot with the faults that are on in the rows whose requests meet them."""

    def mark(rows: list[TopRow]) -> list[TopRow]:
        return [
            msgspec.structs.replace(row, faults=[f.id for f in snapshot.faults if f.is_met(row.source, row.service)])
            for row in rows
        ]

    return msgspec.structs.replace(
        snapshot,
        services=mark(snapshot.services),
        edges=mark(snapshot.edges),
        versions=mark(snapshot.versions),
        instances=mark(snapshot.instances),
        routes=mark(snapshot.routes),
        flows=mark(snapshot.flows),
    )


def _join(
    names: Iterable[tuple[str, ...]], rows: Mapping[tuple[str, ...], Row]
) -> list[tuple[tuple[str, ...], Row | None]]:
    """Every name with its row, sorted; also names that only rows have."""
    return [(name, rows.get(name)) for name in sorted({*names, *rows})]


def _service_row(
    name: str, service: ServiceStatus | None, row: Row | None, uses: Mapping[str, ProcessUse], window: float
) -> TopRow:
    if service is None:
        return _row(row, window, service=name)
    used = [uses[instance.id] for instance in service.instances if instance.id in uses]
    return _row(
        row,
        window,
        service=name,
        version=",".join(_versions(service)),
        state=_EXTERNAL if service.kind == "external" else service.state,
        health=service.health,
        weights=_shared(service),
        rollout=service.rollout.phase if service.rollout is not None else "",
        cpu=_cpu(used),
        memory=_memory(used),
        restarts=sum(instance.restarts for instance in service.instances) if service.instances else None,
    )


def _version_row(
    names: tuple[str, ...],
    service: ServiceStatus | None,
    row: Row | None,
    uses: Mapping[str, ProcessUse],
    window: float,
) -> TopRow:
    name, version = names
    if service is None:
        return _row(row, window, service=name, version=version)
    instances = [instance for instance in service.instances if instance.version == version]
    used = [uses[instance.id] for instance in instances if instance.id in uses]
    shared = _shared(service)
    return _row(
        row,
        window,
        service=name,
        version=version,
        state=_summarize([instance.state for instance in instances], _STATES),
        health=_summarize([instance.health for instance in instances], _HEALTHS),
        weights={version: shared[version]} if version in shared else {},
        rollout=service.rollout.phase if service.rollout is not None and service.rollout.version == version else "",
        cpu=_cpu(used),
        memory=_memory(used),
        restarts=sum(instance.restarts for instance in instances) if instances else None,
    )


def _instance_row(
    service: ServiceStatus, instance: InstanceStatus, row: Row | None, uses: Mapping[str, ProcessUse], window: float
) -> TopRow:
    use = uses.get(instance.id)
    return _row(
        row,
        window,
        service=service.name,
        version=instance.version,
        instance=instance.id,
        state=instance.state,
        health=instance.health,
        cpu=None if use is None else use.cpu,
        memory=None if use is None else use.memory,
        restarts=instance.restarts,
    )


def _figures_row(row: Row, window: float) -> TopRow:
    return _row(row, window, service=row.destination)


def _row(
    row: Row | None,
    window: float,
    *,
    service: str,
    version: str = "",
    instance: str = "",
    state: str = "",
    health: str = "",
    weights: dict[str, int] | None = None,
    rollout: str = "",
    cpu: float | None = None,
    memory: int | None = None,
    restarts: int | None = None,
) -> TopRow:
    seen = Row() if row is None else row
    return TopRow(
        source=seen.source,
        service=service,
        version=version or seen.version,
        instance=instance or seen.instance,
        route=seen.route,
        state=state,
        health=health,
        secured=seen.secured,
        requests=seen.requests,
        failures=seen.failures,
        rps=seen.rate,
        success=seen.success,
        p50_ms=seen.p50_ms,
        p95_ms=seen.p95_ms,
        p99_ms=seen.p99_ms,
        connections=seen.connections,
        active=seen.active,
        retries=seen.retries,
        retry_rate=_retry_rate(seen, window),
        circuit=seen.circuit,
        ejected=seen.ejected,
        weights=weights or {},
        rollout=rollout,
        cpu=cpu,
        memory=memory,
        restarts=restarts,
        age_s=seen.age_s,
        stale=list(seen.stale),
    )


def _total(metrics: Metrics) -> TopRow:
    """All edges together. Their quantiles do not add up, so there are none."""
    rates = [row.rate for row in metrics.edges if row.rate is not None]
    requests = sum(row.requests for row in metrics.edges)
    failures = sum(row.failures for row in metrics.edges)
    return TopRow(
        service="",
        requests=requests,
        failures=failures,
        rps=sum(rates) if rates else None,
        success=1 - failures / requests if requests else None,
        retries=sum(row.retries for row in metrics.edges),
        stale=sorted({name for row in metrics.edges for name in row.stale}),
    )


def _retry_rate(figures: Figures, window: float) -> float | None:
    if figures.rate is None or window <= 0:
        return None
    return figures.retries / window


def _versions(service: ServiceStatus) -> list[str]:
    return sorted({*service.weights, *(instance.version for instance in service.instances)})


def _shared(service: ServiceStatus) -> dict[str, int]:
    """The weights of a service when several versions share its traffic, else nothing."""
    plain = len(service.weights) < 2 and all(weight == 100 for weight in service.weights.values())
    return {} if plain else {version: service.weights.get(version, 0) for version in _versions(service)}


_STATES = (
    "failed", "backoff", "starting", "pending", "draining", "stopping", "registered", "ready", "completed", "stopped",
)  # fmt: skip
_HEALTHS = ("unhealthy", "unknown", "healthy")
"""Words from the one that matters most to the one that matters least."""


def _summarize(words: Iterable[str], order: tuple[str, ...]) -> str:
    """The word that matters most."""
    return min(words, key=order.index, default="")


def _cpu(uses: Iterable[ProcessUse]) -> float | None:
    known = [use.cpu for use in uses if use.cpu is not None]
    return sum(known) if known else None


def _memory(uses: Iterable[ProcessUse]) -> int | None:
    sizes = [use.memory for use in uses]
    return sum(sizes) if sizes else None
