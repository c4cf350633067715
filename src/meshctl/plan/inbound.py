"""What a sidecar does with requests to its own instance, before the instance gets them.  Pure."""

from __future__ import annotations

from meshctl.plan.addresses import LOOPBACK
from meshctl.plan.facts import Facts, InstanceFact
from meshctl.plan.model import (
    FilterPlan,
    Forward,
    HttpListener,
    ListenerPlan,
    Match,
    Reply,
    Route,
    RouteTable,
    SocketAddress,
    TcpListener,
    VirtualHost,
)
from meshctl.plan.policies.authorization import AuthorizationPlan, plan_authorization
from meshctl.plan.policies.faults import plan_callee_faults
from meshctl.plan.policies.limits import BufferPlan, plan_adaptive_concurrency, plan_max_bytes
from meshctl.plan.policies.mtls import Transport, plan_inbound_tls, plan_transport
from meshctl.plan.policies.rate_limits import plan_rate_limits
from meshctl.plan.policies.timeouts import TOLD_HEADER, HeedDeadline
from meshctl.spec.routing_schema import HeaderChanges
from meshctl.spec.schema import Mesh, Service

INSTANCE_HEADER = "x-meshctl-instance"
VERSION_HEADER = "x-meshctl-version"
"""Set on every answer by the sidecar of the instance that gave it."""


def inbound_listener(mesh: Mesh, service: Service, instance: InstanceFact, facts: Facts) -> ListenerPlan:
    """The listener of one instance, and what it takes."""
    name = f"inbound/{instance.id}"
    address = SocketAddress(LOOPBACK, instance.inbound_port)
    tls = plan_inbound_tls(mesh, service, transport_of(service, facts), _authorization_of(mesh, service, facts))
    if service.protocol == "tcp":
        # The caller's sidecar knows how long a connection may be silent.
        local = ((f"local/{instance.id}", 100),)
        return TcpListener(name=name, address=address, role="inbound", split=local, tls=tls, idle_timeout=0.0)
    return HttpListener(name=name, address=address, role="inbound", route_table=name, tls=tls)


def transport_of(service: Service, facts: Facts) -> Transport:
    """How a service is reached at this moment."""
    return facts.transports.get(service.name) or plan_transport(service)


def inbound_table(mesh: Mesh, service: Service, instance: InstanceFact, facts: Facts) -> RouteTable:
    """The table of the listener of one instance: whom it lets in, all that it limits, then the instance itself."""
    host = VirtualHost(
        name=instance.id,
        domains=("*",),
        routes=(*_size_routes(service, instance), _route(instance)),
        filters=_filters(mesh, service, instance, facts),
    )
    return RouteTable(name=f"inbound/{instance.id}", virtual_hosts=(host,))


def _authorization_of(mesh: Mesh, service: Service, facts: Facts) -> AuthorizationPlan | None:
    changing = transport_of(service, facts).takes_plain
    return plan_authorization(mesh, service, facts.open_services, changing=changing)


def _filters(mesh: Mesh, service: Service, instance: InstanceFact, facts: Facts) -> tuple[FilterPlan, ...]:
    authorization = _authorization_of(mesh, service, facts)
    adaptive = plan_adaptive_concurrency(service)
    return (
        *(() if authorization is None else (authorization,)),
        *plan_rate_limits(service, mesh.trust_domain),
        *(() if adaptive is None else (adaptive,)),
        *plan_callee_faults(mesh, service, instance.version, instance.id, facts.faults),
    )


def _route(instance: InstanceFact, match: Match | None = None, filters: tuple[FilterPlan, ...] = ()) -> Route:
    # The caller's sidecar keeps the time and retries; here a request is handed on, and cut off when nobody waits.
    action = Forward(
        split=((f"local/{instance.id}", 100),),
        timeout=0.0,
        idle_timeout=0.0,
        response_headers=((INSTANCE_HEADER, instance.id), (VERSION_HEADER, instance.version)),
        request_changes=HeaderChanges(remove=(TOLD_HEADER,)),
    )
    return Route(name=instance.service, match=match or Match(), action=action, filters=(HeedDeadline(), *filters))


def _size_routes(service: Service, instance: InstanceFact) -> tuple[Route, ...]:
    """The routes of requests whose bodies are too long, or may turn out to be.

    A declared length is judged at once, and the body streams. What declares none is held until it is whole, for once
    a part of it was handed on, nothing could be refused any more.
    """
    most = plan_max_bytes(service)
    if most is None:
        return ()
    body = f"meshctl: {service.name} takes request bodies of at most {most} bytes (limits.max_request_bytes).\n"
    return (
        Route(name="too-large", match=Match(body_over=most), action=Reply(status=413, body=body)),
        _route(instance, Match(body_undeclared=True), (BufferPlan(max_bytes=most),)),
    )
