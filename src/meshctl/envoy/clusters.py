"""ClusterPlan -> Cluster.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.balancing import build_thresholds, set_balancing, set_outlier_detection
from meshctl.envoy.endpoints import build_assignment
from meshctl.envoy.filters.dynamic_forward_proxy import dns_cache
from meshctl.envoy.pb import CACHED
from meshctl.envoy.sources import ads_source, set_http2
from meshctl.envoy.tls import external_tls, upstream_tls
from meshctl.plan.model import (
    ClusterPlan,
    Endpoint,
    ExternalCluster,
    LocalCluster,
    MeshCluster,
    PassthroughCluster,
)
from meshctl.plan.policies.health_check import HealthCheckPlan
from meshctl.plan.policies.limits import NO_CAPS, CapsPlan
from meshctl.plan.policies.load_balancing import LoadBalancingPlan
from meshctl.plan.policies.retry import BUILT_IN_BUDGET
from meshctl.spec.policy_schema import RetryBudget

_LOCAL_IDLE_TIMEOUT = 4.0
# Many servers close an idle keep-alive connection after 5 s (Node.js does); a request sent at that very moment
# would be lost. Closing first, on our side, leaves no such moment, and connecting on loopback costs next to nothing.

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@lru_cache(maxsize=CACHED)
def build_cluster(plan: ClusterPlan) -> Any:
    """The cluster of one plan."""
    if isinstance(plan, MeshCluster):
        return _mesh_cluster(plan)
    if isinstance(plan, LocalCluster):
        return _local_cluster(plan)
    if isinstance(plan, ExternalCluster):
        return _external_cluster(plan)
    return _passthrough_cluster(plan)


def _mesh_cluster(plan: MeshCluster) -> Any:
    cluster = _eds_cluster(plan.name, plan.connect_timeout, plan.load_balancing, plan.caps, plan.retry_budget)
    set_outlier_detection(cluster, plan.outlier_detection)
    if plan.renewed:
        # Envoy makes a cluster that differs in anything anew, and drains the connections of the one before.
        cluster.metadata.filter_metadata["meshctl"].update({"renewed": True})
    if plan.identity:
        cluster.transport_socket.CopyFrom(upstream_tls(plan.identity, http=plan.protocol != "tcp"))
    if plan.protocol != "tcp":
        _set_protocol(cluster, http2=True)
    return cluster


def _local_cluster(plan: LocalCluster) -> Any:
    cluster = _eds_cluster(plan.name, plan.connect_timeout, plan.load_balancing, NO_CAPS)
    if plan.health_check is not None:
        cluster.health_checks.append(_health_check(plan.health_check, host="localhost"))
        # A check that fails is the instance's answer for all callers: its connections need not be cut as well.
        cluster.ignore_health_on_host_removal = True
    if plan.protocol != "tcp":
        _set_protocol(cluster, http2=plan.protocol == "grpc", idle_timeout=_LOCAL_IDLE_TIMEOUT)
    return cluster


def _external_cluster(plan: ExternalCluster) -> Any:
    cluster = _cluster(plan.name, plan.connect_timeout, plan.caps, plan.retry_budget)
    set_balancing(cluster, plan.load_balancing)
    set_outlier_detection(cluster, plan.outlier_detection)
    cluster.type = pb.cluster_pb2.Cluster.DiscoveryType.STRICT_DNS
    cluster.dns_lookup_family = pb.cluster_pb2.Cluster.DnsLookupFamily.V4_PREFERRED
    cluster.load_assignment.CopyFrom(build_assignment(plan.name, (Endpoint(host=plan.host, port=plan.port),)))
    if plan.tls:
        cluster.transport_socket.CopyFrom(
            external_tls(plan.host, roots_file=plan.roots_file, http2=plan.protocol == "grpc")
        )
    if plan.health_check is not None:
        cluster.health_checks.append(_health_check(plan.health_check, host=plan.host))
    if plan.protocol != "tcp":
        _set_protocol(cluster, http2=plan.protocol == "grpc")
    return cluster


def _passthrough_cluster(plan: PassthroughCluster) -> Any:
    config = pb.dynamic_cluster_pb2.ClusterConfig(dns_cache_config=dns_cache())
    cluster = _cluster(plan.name, plan.connect_timeout, NO_CAPS)
    cluster.lb_policy = pb.cluster_pb2.Cluster.LbPolicy.CLUSTER_PROVIDED
    cluster.cluster_type.CopyFrom(
        pb.cluster_pb2.Cluster.CustomClusterType(
            name="envoy.clusters.dynamic_forward_proxy", typed_config=pb.any_of(config)
        )
    )
    return cluster


def _eds_cluster(
    name: str,
    connect_timeout: float,
    balancing: LoadBalancingPlan,
    caps: CapsPlan,
    budget: RetryBudget = BUILT_IN_BUDGET,
) -> Any:
    cluster = _cluster(name, connect_timeout, caps, budget)
    set_balancing(cluster, balancing)
    cluster.type = pb.cluster_pb2.Cluster.DiscoveryType.EDS
    cluster.eds_cluster_config.eds_config.CopyFrom(ads_source())
    return cluster


def _cluster(name: str, connect_timeout: float, caps: CapsPlan, budget: RetryBudget = BUILT_IN_BUDGET) -> Any:
    return pb.cluster_pb2.Cluster(
        name=name,
        connect_timeout=pb.duration(connect_timeout),
        circuit_breakers=pb.circuit_breaker_pb2.CircuitBreakers(thresholds=[build_thresholds(caps, budget)]),
    )


def _set_protocol(cluster: Any, *, http2: bool, idle_timeout: float | None = None) -> None:
    explicit = pb.http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig()
    if http2:
        set_http2(explicit.http2_protocol_options)
    else:
        explicit.http_protocol_options.SetInParent()
    options = pb.http_protocol_options_pb2.HttpProtocolOptions(explicit_http_config=explicit)
    if idle_timeout is not None:
        options.common_http_protocol_options.idle_timeout.CopyFrom(pb.duration(idle_timeout))
    cluster.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(pb.any_of(options))


def _health_check(plan: HealthCheckPlan, *, host: str) -> Any:
    check = pb.health_check_pb2.HealthCheck(
        timeout=pb.duration(plan.timeout),
        interval=pb.duration(plan.interval),
        # Without traffic, too, and again soon after a failure: a developer's instance comes and goes by the second.
        no_traffic_interval=pb.duration(plan.interval),
        unhealthy_interval=pb.duration(min(1.0, plan.interval)),
        unhealthy_edge_interval=pb.duration(min(1.0, plan.interval)),
        healthy_threshold=pb.uint32(plan.healthy_threshold),
        unhealthy_threshold=pb.uint32(plan.unhealthy_threshold),
        reuse_connection=pb.bool_value(False),
    )
    if plan.kind == "tcp":
        check.tcp_health_check.SetInParent()
        return check
    check.http_health_check.CopyFrom(
        pb.health_check_pb2.HealthCheck.HttpHealthCheck(
            host=host,
            path=plan.path,
            expected_statuses=[pb.range_pb2.Int64Range(start=start, end=end) for start, end in plan.expected],
            # Envoy holds a host unhealthy at the first other status, whatever the threshold; those that it calls
            # retriable it counts. Source:
            # https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/core/v3/health_check.proto (unhealthy_threshold)
            retriable_statuses=[pb.range_pb2.Int64Range(start=start, end=end) for start, end in _others(plan.expected)],
        )
    )
    return check


def _others(expected: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The statuses from 100 to 599 that are in none of the ranges, as ranges; all are half-open."""
    start = 100
    for first, end in sorted(expected):
        if start < first:
            yield start, first
        start = max(start, end)
    if start < 600:
        yield start, 600
