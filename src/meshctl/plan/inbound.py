"""What a sidecar does with requests to its own instance, before the instance gets them.  Pure."""

from __future__ import annotations

from meshctl.plan.facts import InstanceFact
from meshctl.plan.model import FilterPlan, Forward, Match, Reply, Route, RouteTable, VirtualHost
from meshctl.plan.policies.limits import BufferPlan, plan_adaptive_concurrency, plan_max_bytes
from meshctl.plan.policies.rate_limits import plan_rate_limits
from meshctl.spec.schema import Mesh, Service

INSTANCE_HEADER = "x-meshctl-instance"
VERSION_HEADER = "x-meshctl-version"
"""Set on every answer by the sidecar of the instance that gave it."""


def inbound_table(mesh: Mesh, service: Service, instance: InstanceFact) -> RouteTable:
    """The table of the listener of one instance: all that its service limits, then the instance itself."""
    host = VirtualHost(
        name=instance.id,
        domains=("*",),
        routes=(*_size_routes(service, instance), _route(instance)),
        filters=_filters(mesh, service),
    )
    return RouteTable(name=f"inbound/{instance.id}", virtual_hosts=(host,))


def _filters(mesh: Mesh, service: Service) -> tuple[FilterPlan, ...]:
    adaptive = plan_adaptive_concurrency(service)
    return (*plan_rate_limits(service, mesh.trust_domain), *(() if adaptive is None else (adaptive,)))


def _route(instance: InstanceFact, match: Match | None = None, filters: tuple[FilterPlan, ...] = ()) -> Route:
    # The caller's sidecar keeps the time and retries; here a request is only handed on.
    action = Forward(
        split=((f"local/{instance.id}", 100),),
        timeout=0.0,
        response_headers=((INSTANCE_HEADER, instance.id), (VERSION_HEADER, instance.version)),
    )
    return Route(name=instance.service, match=match or Match(), action=action, filters=filters)


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
