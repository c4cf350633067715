"""RouteTable -> RouteConfiguration.  Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters import switch_on
from meshctl.envoy.pb import CACHED
from meshctl.plan.model import Forward, Match, Reply, Route, RouteTable, VirtualHost
from meshctl.plan.policies.retry import NOT_REACHED_HEADER, RetryPlan

_SINGLE_LABEL = r"[^.:\[\]]+(:[0-9]+)?"
# A host of one label, with or without a port: the form of a service's name.


@lru_cache(maxsize=CACHED)
def build_route_table(table: RouteTable) -> Any:
    """The route configuration of one table."""
    return pb.route_pb2.RouteConfiguration(
        name=table.name,
        virtual_hosts=[_virtual_host(host) for host in table.virtual_hosts],
        # Clusters come and go by CDS; the order of pushes keeps routes behind them.
        validate_clusters=pb.bool_value(False),
    )


@lru_cache(maxsize=CACHED)
def _virtual_host(host: VirtualHost) -> Any:
    # The same for every caller of a service, so that a change of its routes is built once.
    built = pb.route_components_pb2.VirtualHost(
        name=host.name,
        domains=list(host.domains),
        routes=[_route(route) for route in host.routes],
        include_attempt_count_in_response=False,
    )
    switch_on(built, host.filters)
    return built


def _route(route: Route) -> Any:
    built = pb.route_components_pb2.Route(name=route.name, match=_match(route.match))
    if isinstance(route.action, Reply):
        built.direct_response.CopyFrom(_reply(route.action))
    else:
        built.route.CopyFrom(_forward(route.action))
        for name, value in route.action.response_headers:
            built.response_headers_to_add.append(
                pb.base_pb2.HeaderValueOption(
                    header=pb.base_pb2.HeaderValue(key=name, value=value),
                    append_action=pb.base_pb2.HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
                )
            )
    switch_on(built, route.filters)
    return built


def _match(match: Match) -> Any:
    built = pb.route_components_pb2.RouteMatch()
    prefix = match.path_prefix.rstrip("/")
    if prefix:
        built.path_separated_prefix = prefix
    else:
        built.prefix = "/"
    if match.methods:
        pattern = "|".join(re.escape(method) for method in match.methods)
        built.headers.append(_header(":method", pb.string_pb2.StringMatcher(safe_regex=_regex(pattern))))
    if match.header_present:
        built.headers.append(pb.route_components_pb2.HeaderMatcher(name=match.header_present, present_match=True))
    if match.body_over:
        beyond = pb.range_pb2.Int64Range(start=match.body_over + 1, end=2**63 - 1)
        built.headers.append(pb.route_components_pb2.HeaderMatcher(name="content-length", range_match=beyond))
    if match.body_undeclared:
        built.headers.extend(_absent(name) for name in ("content-length", "upgrade"))
    if match.single_label_host:
        built.headers.append(_header(":authority", pb.string_pb2.StringMatcher(safe_regex=_regex(_SINGLE_LABEL))))
    return built


def _absent(name: str) -> Any:
    return pb.route_components_pb2.HeaderMatcher(name=name, present_match=True, invert_match=True)


def _header(name: str, matcher: Any) -> Any:
    return pb.route_components_pb2.HeaderMatcher(name=name, string_match=matcher)


def _regex(pattern: str) -> Any:
    return pb.regex_pb2.RegexMatcher(regex=pattern)


def _forward(action: Forward) -> Any:
    built = pb.route_components_pb2.RouteAction(timeout=pb.duration(action.timeout))
    if len(action.split) == 1:
        built.cluster = action.split[0][0]
    else:
        for cluster, weight in action.split:
            built.weighted_clusters.clusters.append(
                pb.route_components_pb2.WeightedCluster.ClusterWeight(name=cluster, weight=pb.uint32(weight))
            )
    if action.timeout == 0:
        # With no timeout of the mesh's own a gRPC client's grpc-timeout holds, whatever its length.
        built.max_stream_duration.grpc_timeout_header_max.CopyFrom(pb.duration(0))
    if action.host_rewrite:
        built.host_rewrite_literal = action.host_rewrite
    if action.retry is not None:
        built.retry_policy.CopyFrom(_retry(action.retry))
    return built


def _retry(plan: RetryPlan) -> Any:
    # Never delivered: no connection, refused by the peer's HTTP/2, reset before anything was sent, or the callee's
    # sidecar says that it could not hand the request on.
    conditions = ["connect-failure", "refused-stream", "reset-before-request", "retriable-headers"]
    if plan.repeatable:
        conditions += ["reset", "retriable-status-codes"]
    built = pb.route_components_pb2.RetryPolicy(
        retry_on=",".join(sorted(conditions)),
        num_retries=pb.uint32(plan.retries),
        retriable_status_codes=list(plan.status_codes),
        retriable_headers=[pb.route_components_pb2.HeaderMatcher(name=NOT_REACHED_HEADER, present_match=True)],
        retry_back_off=pb.route_components_pb2.RetryPolicy.RetryBackOff(
            base_interval=pb.duration(plan.base_interval), max_interval=pb.duration(plan.max_interval)
        ),
        host_selection_retry_max_attempts=3,
    )
    if plan.per_try_timeout:
        built.per_try_timeout.CopyFrom(pb.duration(plan.per_try_timeout))
    predicate = pb.route_components_pb2.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=pb.any_of(pb.previous_hosts_pb2.PreviousHostsPredicate()),
    )
    built.retry_host_predicate.append(predicate)
    return built


def _reply(action: Reply) -> Any:
    # Envoy's format strings: a literal % is doubled (https://www.envoyproxy.io/docs/envoy/latest/configuration/
    # observability/access_log/usage#format-strings).
    text = action.body.replace("%", "%%").replace("{host}", "%REQ(:AUTHORITY)%").replace("{path}", "%REQ(:PATH)%")
    body = pb.substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=pb.base_pb2.DataSource(inline_string=text), content_type="text/plain; charset=utf-8"
    )
    return pb.route_components_pb2.DirectResponseAction(status=action.status, body_format=body)
