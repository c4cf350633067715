"""Routes of callers to services: by host name, by upstream, through the gateway.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from meshctl.plan.facts import Facts
from meshctl.plan.model import FilterPlan, Forward, Match, Reply, Route, RouteTable, VirtualHost
from meshctl.plan.policies.circuit_breaker import plan_circuit_breaker
from meshctl.plan.policies.fallback import plan_fallback
from meshctl.plan.policies.faults import plan_caller_faults, plan_gateway_faults
from meshctl.plan.rules import service_routes
from meshctl.plan.splits import FULL
from meshctl.spec.schema import Gateway, GatewayRoute, Mesh, Service
from meshctl.spec.validate_routes import is_under

PASSTHROUGH = "passthrough"
GATEWAY = "gateway"


def caller_filters(service: Service) -> tuple[FilterPlan, ...]:
    """The filters that a caller's requests to a service pass, besides faults."""
    plans = (plan_fallback(service), plan_circuit_breaker(service))
    return tuple(plan for plan in plans if plan is not None)


def _host(
    domains: tuple[str, ...], upstream: Service, routes: tuple[Route, ...], caller: str, facts: Facts
) -> VirtualHost:
    """The virtual host of one service, with the filters of its callers: once for all routes, where all lead to it."""
    filters = (*plan_caller_faults(upstream, caller, facts.faults), *caller_filters(upstream))
    if all(isinstance(route.action, Forward) for route in routes):
        return VirtualHost(name=upstream.name, domains=domains, routes=routes, filters=filters)
    return VirtualHost(name=upstream.name, domains=domains, routes=_with_filters(routes, filters))


def _with_filters(routes: Iterable[Route], filters: tuple[FilterPlan, ...]) -> tuple[Route, ...]:
    """The filters on every route that leads to a service; a redirect is answered whatever state the service is in."""
    return tuple(
        replace(route, filters=(*route.filters, *filters)) if isinstance(route.action, Forward) else route
        for route in routes
    )


def upstream_table(upstream: Service, caller: str, facts: Facts) -> RouteTable:
    """The table of a listener that leads to one upstream, whatever the host."""
    routes = service_routes(upstream, caller, facts)
    host = _host(("*",), upstream, routes, caller, facts)
    return RouteTable(name=f"upstream/{upstream.name}", virtual_hosts=(host,))


def outbound_table(mesh: Mesh, caller: str, upstreams: Sequence[Service], facts: Facts) -> RouteTable:
    """The table of a listener that routes by host name.

    A name of one label that is no upstream is a mistake and is answered with what there is; any other host, and
    ``localhost``, lies outside the mesh, and is reached or refused as the mesh's ``egress`` says.
    """
    hosts = [
        _host(
            (upstream.name, f"{upstream.name}:*"),
            upstream,
            (Route(name=upstream.name, match=Match(), action=_tcp_reply(caller, upstream.name)),)
            if upstream.protocol == "tcp"
            else service_routes(upstream, caller, facts),
            caller,
            facts,
        )
        for upstream in upstreams
    ]
    unknown = Reply(status=502, body=_unknown_host_body(caller, [u.name for u in upstreams]))
    outside: tuple[Route, ...]
    if mesh.egress == "allow_any":
        passthrough = Route(name="outside", match=Match(), action=Forward(split=((PASSTHROUGH, FULL),), timeout=0.0))
        hosts.append(VirtualHost(name="localhost", domains=("localhost", "localhost:*"), routes=(passthrough,)))
        outside = (Route(name="unknown", match=Match(single_label_host=True), action=unknown), passthrough)
    else:
        outside = (Route(name="unknown", match=Match(), action=unknown),)
    hosts.append(VirtualHost(name="*", domains=("*",), routes=outside))
    return RouteTable(name="outbound", virtual_hosts=tuple(hosts))


def gateway_table(gateway: Gateway, services: Mapping[str, Service], facts: Facts) -> RouteTable:
    """The table of the gateway: the longest path wins; what no route takes gets 404 and the routes there are."""
    routes: list[Route] = []
    for rule in _longest_first(gateway):
        filters = (*plan_gateway_faults(services[rule.service], facts.faults), *caller_filters(services[rule.service]))
        made = service_routes(services[rule.service], GATEWAY, facts, under=rule.path)
        routes.extend(_with_filters(made, filters))
    if not any(rule.path == "/" for rule in gateway.routes):
        known = ", ".join(sorted(rule.path for rule in gateway.routes)) or "none"
        body = f"meshctl: the gateway has no route for {{path}}. Its routes: {known}.\n"
        routes.append(Route(name="unknown", match=Match(), action=Reply(status=404, body=body)))
    host = VirtualHost(name=GATEWAY, domains=("*",), routes=tuple(routes))
    return RouteTable(name=GATEWAY, virtual_hosts=(host,))


def find_gateway_route(gateway: Gateway, path: str) -> GatewayRoute | None:
    """The route of the gateway that a path, without its query, takes."""
    return next((rule for rule in _longest_first(gateway) if is_under(path, rule.path.rstrip("/") or "/")), None)


def _longest_first(gateway: Gateway) -> list[GatewayRoute]:
    return sorted(gateway.routes, key=lambda rule: (-len(rule.path.rstrip("/")), rule.path))


def _tcp_reply(caller: str, upstream: str) -> Reply:
    variable = upstream.upper().replace("-", "_")
    body = (
        f"meshctl: {upstream} speaks plain TCP, so {caller} cannot reach it by host name. "
        f"Connect to ${variable}_HOST and ${variable}_PORT instead.\n"
    )
    return Reply(status=502, body=body)


def _unknown_host_body(caller: str, upstreams: Iterable[str]) -> str:
    known = ", ".join(sorted(upstreams)) or "none"
    where = "" if caller == GATEWAY else f" Declare it under services.{caller}.upstreams, or check the name."
    return f'meshctl: {caller} has no upstream "{{host}}". Its upstreams: {known}.{where}\n'
