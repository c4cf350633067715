"""Routes of callers to services: by host name, by upstream, through the gateway.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from meshctl.plan.facts import Facts
from meshctl.plan.model import FilterPlan, Forward, Match, Reply, Route, RouteTable, VirtualHost
from meshctl.plan.policies.circuit_breaker import plan_circuit_breaker
from meshctl.plan.policies.retry import IDEMPOTENCY_HEADER, IDEMPOTENT_METHODS, plan_retry
from meshctl.plan.policies.timeouts import plan_timeout
from meshctl.spec.schema import Gateway, Mesh, Service

PASSTHROUGH = "passthrough"
GATEWAY = "gateway"
_FULL = 100


def cluster_name(service: Service, version: str) -> str:
    """The cluster of one version of a service at its callers."""
    return f"external/{service.name}" if service.address is not None else f"{service.name}/{version}"


def split_of(service: Service, facts: Facts) -> tuple[tuple[str, int], ...]:
    """A service's traffic by cluster, weights summing to 100, without those of weight 0.

    A service of which the topology knows no version shares its traffic evenly among the versions registered.
    """
    if service.address is not None:
        return ((cluster_name(service, ""), _FULL),)
    weights: Mapping[str, int] = service.split
    if not service.versions:
        found = sorted({i.version for i in facts.instances if i.service == service.name}) or [service.stable]
        share, rest = divmod(_FULL, len(found))
        weights = {version: share + (1 if index < rest else 0) for index, version in enumerate(found)}
    return tuple((cluster_name(service, version), weight) for version, weight in sorted(weights.items()) if weight)


def forward_routes(service: Service, facts: Facts, match: Match) -> tuple[Route, ...]:
    """The routes that send what matches to a service, with its timeout and retries.

    Requests that may be repeated (by method, or because they carry an Idempotency-Key) are retried on more.
    """
    address = service.address
    base = Forward(
        split=split_of(service, facts),
        timeout=plan_timeout(service),
        host_rewrite="" if address is None else _host_header(address.host, address.port, tls=address.tls),
    )
    repeatable = plan_retry(service, repeatable=True)
    if repeatable is None:
        return (Route(name=service.name, match=match, action=base),)
    careful = plan_retry(service, repeatable=False)
    again = replace(base, retry=repeatable)
    return (
        Route(name=service.name, match=replace(match, methods=IDEMPOTENT_METHODS), action=again),
        Route(name=service.name, match=replace(match, header_present=IDEMPOTENCY_HEADER), action=again),
        Route(name=service.name, match=match, action=replace(base, retry=careful)),
    )


def caller_filters(service: Service) -> tuple[FilterPlan, ...]:
    """The filters that a caller's requests to a service pass."""
    breaker = plan_circuit_breaker(service)
    return () if breaker is None else (breaker,)


def upstream_table(upstream: Service, facts: Facts) -> RouteTable:
    """The table of a listener that leads to one upstream, whatever the host."""
    routes = forward_routes(upstream, facts, Match())
    host = VirtualHost(name=upstream.name, domains=("*",), routes=routes, filters=caller_filters(upstream))
    return RouteTable(name=f"upstream/{upstream.name}", virtual_hosts=(host,))


def outbound_table(mesh: Mesh, caller: str, upstreams: Sequence[Service], facts: Facts) -> RouteTable:
    """The table of a listener that routes by host name.

    A name of one label that is no upstream is a mistake and is answered with what there is; any other host, and
    ``localhost``, lies outside the mesh, and is reached or refused as the mesh's ``egress`` says.
    """
    hosts = [
        VirtualHost(
            name=upstream.name,
            domains=(upstream.name, f"{upstream.name}:*"),
            routes=(Route(name=upstream.name, match=Match(), action=_tcp_reply(caller, upstream.name)),)
            if upstream.protocol == "tcp"
            else forward_routes(upstream, facts, Match()),
            filters=caller_filters(upstream),
        )
        for upstream in upstreams
    ]
    unknown = Reply(status=502, body=_unknown_host_body(caller, [u.name for u in upstreams]))
    outside: tuple[Route, ...]
    if mesh.egress == "allow_any":
        passthrough = Route(name="outside", match=Match(), action=Forward(split=((PASSTHROUGH, _FULL),), timeout=0.0))
        hosts.append(VirtualHost(name="localhost", domains=("localhost", "localhost:*"), routes=(passthrough,)))
        outside = (Route(name="unknown", match=Match(single_label_host=True), action=unknown), passthrough)
    else:
        outside = (Route(name="unknown", match=Match(), action=unknown),)
    hosts.append(VirtualHost(name="*", domains=("*",), routes=outside))
    return RouteTable(name="outbound", virtual_hosts=tuple(hosts))


def gateway_table(gateway: Gateway, services: Mapping[str, Service], facts: Facts) -> RouteTable:
    """The table of the gateway: the longest path wins; what no route takes gets 404 and the routes there are."""
    routes: list[Route] = []
    for rule in sorted(gateway.routes, key=lambda r: (-len(r.path.rstrip("/")), r.path)):
        filters = caller_filters(services[rule.service])
        made = forward_routes(services[rule.service], facts, Match(path_prefix=rule.path))
        routes.extend(replace(route, filters=filters) for route in made)
    if not any(rule.path == "/" for rule in gateway.routes):
        known = ", ".join(sorted(rule.path for rule in gateway.routes)) or "none"
        body = f"meshctl: the gateway has no route for {{path}}. Its routes: {known}.\n"
        routes.append(Route(name="unknown", match=Match(), action=Reply(status=404, body=body)))
    host = VirtualHost(name=GATEWAY, domains=("*",), routes=tuple(routes))
    return RouteTable(name=GATEWAY, virtual_hosts=(host,))


def _host_header(host: str, port: int, *, tls: bool) -> str:
    # RFC 3986, section 3.2.2: IPv6 addresses stand in brackets.
    shown = f"[{host}]" if ":" in host else host
    return shown if port == (443 if tls else 80) else f"{shown}:{port}"


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
