"""Views of the supervisor, the registry and the xDS server, as facts to plan from and as status to show.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from meshctl.ads.status import SyncStatus
from meshctl.identity.spiffe import spiffe_id
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.specs import sidecar_name
from meshctl.plan.addresses import app_key, inbound_key, outbound_key, upstream_key
from meshctl.plan.facts import InstanceFact, InstanceHealth
from meshctl.plan.routes import GATEWAY
from meshctl.ports import Registration
from meshctl.spec.schema import Mesh, Service
from meshctl.wire.models import (
    GatewayStatus,
    Health,
    InstanceState,
    InstanceStatus,
    ServiceStatus,
    SidecarStatus,
)

ServiceKind = Literal["service", "job", "external", "registered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that is known at one moment.

    ``views`` are by process name, ``checks`` are Envoy's answers about registered instances by id.
    """

    mesh: Mesh
    views: Mapping[str, InstanceView]
    registrations: tuple[Registration, ...]
    checks: Mapping[str, bool]
    ports: Mapping[str, int]
    sync: Callable[[str], SyncStatus]
    log: Callable[[str], str]
    admin_socket: Callable[[str], str]


def instance_facts(
    views: Iterable[InstanceView],
    registrations: Iterable[Registration],
    *,
    checks: Mapping[str, bool],
    ports: Mapping[str, int],
) -> tuple[InstanceFact, ...]:
    """The instances that proxies have to know of, by id."""
    facts = [
        InstanceFact(
            id=view.spec.id,
            service=view.spec.service,
            version=view.spec.version,
            host=view.spec.host,
            port=view.spec.port,
            inbound_port=ports[inbound_key(view.spec.id)],
            listening=view.state.phase in ("ready", "draining", "stopping") and view.state.ready,
            health=_plan_health(view),
        )
        for view in views
        if view.spec.kind == "service" and view.spec.port is not None and inbound_key(view.spec.id) in ports
    ]
    facts += [
        InstanceFact(
            id=item.id,
            service=item.service,
            version=item.version,
            host=item.host,
            port=item.port,
            inbound_port=ports[inbound_key(item.id)],
            listening=True,
            health=_registered_health(checks.get(item.id)),
        )
        for item in registrations
    ]
    return tuple(sorted(facts, key=lambda fact: fact.id))


def service_statuses(seen: Observed) -> list[ServiceStatus]:
    """Every service of the mesh, by name."""
    return [_service_status(seen, service) for _, service in sorted(seen.mesh.services.items())]


def gateway_status(seen: Observed) -> GatewayStatus | None:
    """The gateway; None when the mesh has none."""
    gateway = seen.mesh.gateway
    if gateway is None:
        return None
    host = "localhost" if gateway.host in ("0.0.0.0", "::", "") else gateway.host  # noqa: S104 - compared, not bound
    shown = f"[{host}]" if ":" in host else host
    return GatewayStatus(
        url=f"http://{shown}:{gateway.port}",
        host=gateway.host,
        port=gateway.port,
        sidecar=_sidecar_status(seen, GATEWAY, {}),
    )


def _plan_health(view: InstanceView) -> InstanceHealth:
    if view.state.phase in ("draining", "stopping"):
        return "draining"
    if view.state.phase != "ready":
        return "starting"
    match view.health:
        case "healthy":
            return "healthy"
        case "unhealthy":
            return "unhealthy"
        case _:
            return "starting"


def _registered_health(check: bool | None) -> InstanceHealth:  # noqa: FBT001 - Envoy's answer
    if check is None:
        return "starting"
    return "healthy" if check else "unhealthy"


def _service_status(seen: Observed, service: Service) -> ServiceStatus:
    instances = [
        _instance_status(seen, view)
        for _, view in sorted(seen.views.items())
        if view.spec.service == service.name and view.spec.kind != "sidecar"
    ]
    instances += [_registered_status(seen, item) for item in seen.registrations if item.service == service.name]
    external = service.address is not None
    inbound = {item.id: item.inbound_port for item in instances if item.inbound_port is not None}
    return ServiceStatus(
        name=service.name,
        protocol=service.protocol,
        kind=_kind(service),
        state="ready" if external else _sum_states([item.state for item in instances]),
        health="unknown" if external else _sum_health([item.health for item in instances]),
        identity="" if external else spiffe_id(seen.mesh.trust_domain, service.name),
        weights={} if external or service.is_job else dict(service.split),
        instances=instances,
        sidecar=None if external else _sidecar_status(seen, service.name, inbound),
        upstreams={
            name: seen.ports[upstream_key(service.name, name)]
            for name in service.upstreams
            if upstream_key(service.name, name) in seen.ports
        },
    )


def _kind(service: Service) -> ServiceKind:
    if service.address is not None:
        return "external"
    if service.is_job:
        return "job"
    return "service" if service.versions else "registered"


def _instance_status(seen: Observed, view: InstanceView) -> InstanceStatus:
    spec, state = view.spec, view.state
    port = seen.ports.get(app_key(spec.id))
    return InstanceStatus(
        id=spec.id,
        version=spec.version,
        pid=state.pid,
        address=f"{spec.host}:{port}" if port is not None else "",
        port=port,
        inbound_port=seen.ports.get(inbound_key(spec.id)),
        state=state.phase,
        health=view.health,
        reason=state.reason,
        restarts=state.restarts,
        exit_code=state.exit_code,
        started_at=state.started_at if state.pid is not None else None,
        log=seen.log(spec.id),
    )


def _registered_status(seen: Observed, item: Registration) -> InstanceStatus:
    check = seen.checks.get(item.id)
    health: Health = "unknown" if check is None else "healthy" if check else "unhealthy"
    return InstanceStatus(
        id=item.id,
        version=item.version,
        pid=None,
        address=f"{item.host}:{item.port}",
        port=item.port,
        inbound_port=seen.ports.get(inbound_key(item.id)),
        state="registered",
        health=health,
        reason="",
        restarts=0,
        exit_code=None,
        started_at=None,
        log="",
    )


def _sidecar_status(seen: Observed, node: str, inbound: Mapping[str, int]) -> SidecarStatus | None:
    view = seen.views.get(sidecar_name(node))
    if view is None:
        return None
    sync = seen.sync(node)
    return SidecarStatus(
        pid=view.state.pid,
        state=view.state.phase,
        outbound_port=seen.ports.get(outbound_key(node)),
        inbound_ports=dict(inbound),
        config=sync.state,
        config_error=sync.error,
        admin_socket=seen.admin_socket(node),
        restarts=view.state.restarts,
    )


_WORST_FIRST: tuple[InstanceState, ...] = (
    "failed",
    "backoff",
    "pending",
    "starting",
    "draining",
    "stopping",
    "ready",
    "registered",
    "completed",
    "stopped",
)


def _sum_states(states: list[InstanceState]) -> InstanceState:
    return min(states, key=_WORST_FIRST.index) if states else "stopped"


def _sum_health(healths: list[Health]) -> Health:
    for health in ("unhealthy", "unknown", "healthy"):
        if health in healths:
            return health
    return "unknown"
