"""RouteTable -> RouteConfiguration.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters import switch_on
from meshctl.envoy.filters.header_mutation import ASK_HEADER
from meshctl.envoy.pb import CACHED
from meshctl.envoy.route_actions import build_redirect, build_reply, change_headers
from meshctl.envoy.route_matches import build_match
from meshctl.envoy.route_variants import forward_variants
from meshctl.plan.model import Forward, Reply, Route, RouteTable, VirtualHost


@lru_cache(maxsize=CACHED)
def build_route_table(table: RouteTable) -> Any:
    """The route configuration of one table."""
    return pb.route_pb2.RouteConfiguration(
        name=table.name,
        virtual_hosts=[_virtual_host(host) for host in table.virtual_hosts],
        # Clusters come and go by CDS; the order of pushes keeps routes behind them.
        validate_clusters=pb.bool_value(False),
        request_headers_to_remove=[ASK_HEADER],
    )


@lru_cache(maxsize=CACHED)
def _virtual_host(host: VirtualHost) -> Any:
    # The same for every caller of a service, so that a change of its routes is built once.
    built = pb.route_components_pb2.VirtualHost(
        name=host.name,
        domains=list(host.domains),
        routes=[built for route in host.routes for built in _routes(route)],
        include_attempt_count_in_response=False,
    )
    switch_on(built, host.filters)
    return built


def _routes(route: Route) -> Iterator[Any]:
    action = route.action
    if isinstance(action, Forward):
        for variant in forward_variants(route.match, action):
            built = pb.route_components_pb2.Route(name=route.name, match=variant.match)
            built.route.CopyFrom(variant.action)
            change_headers(built, action)
            built.response_headers_to_add.extend(variant.response_headers)
            switch_on(built, (*route.filters, *variant.filters))
            yield built
        return
    built = pb.route_components_pb2.Route(name=route.name, match=build_match(route.match))
    if isinstance(action, Reply):
        built.direct_response.CopyFrom(build_reply(action))
    else:
        built.redirect.CopyFrom(build_redirect(action))
    switch_on(built, route.filters)
    yield built
