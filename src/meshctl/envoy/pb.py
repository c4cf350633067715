"""The protobuf messages that translation builds, in one place.  Pure.

The generated modules carry no types, so everything here is Any; ``envoy --mode validate`` and the golden files check
what mypy cannot.
"""

from __future__ import annotations

from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import (
    address_pb2,
    base_pb2,
    config_source_pb2,
    extension_pb2,
    grpc_service_pb2,
    health_check_pb2,
    protocol_pb2,
    substitution_format_string_pb2,
)
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.metrics.v3 import stats_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.config.trace.v3 import http_tracer_pb2, opentelemetry_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.filters.process_ratelimit.v3 import process_ratelimit_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as dynamic_cluster_pb2
from envoy.extensions.common.dynamic_forward_proxy.v3 import dns_cache_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.adaptive_concurrency.v3 import adaptive_concurrency_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    header_mutation_pb2 as early_header_mutation_pb2,
)
from envoy.extensions.matching.common_inputs.ssl.v3 import ssl_inputs_pb2
from envoy.extensions.request_id.uuid.v3 import uuid_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.service.runtime.v3 import rtds_pb2
from envoy.type.matcher.v3 import http_inputs_pb2, metadata_pb2, regex_pb2, string_pb2, value_pb2
from envoy.type.tracing.v3 import custom_tag_pb2
from envoy.type.v3 import percent_pb2, range_pb2, token_bucket_pb2
from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2, wrappers_pb2
from xds.core.v3 import extension_pb2 as xds_extension_pb2
from xds.type.matcher.v3 import matcher_pb2
from xds.type.matcher.v3 import regex_pb2 as xds_regex_pb2
from xds.type.matcher.v3 import string_pb2 as xds_string_pb2
from xds.type.v3 import typed_struct_pb2

__all__ = [
    "CACHED",
    "accesslog_pb2",
    "adaptive_concurrency_pb2",
    "address_pb2",
    "als_pb2",
    "any_of",
    "any_pb2",
    "base_pb2",
    "bool_value",
    "bootstrap_pb2",
    "buffer_pb2",
    "cel_pb2",
    "circuit_breaker_pb2",
    "cluster_pb2",
    "common_pb2",
    "config_source_pb2",
    "custom_tag_pb2",
    "dns_cache_pb2",
    "downstream_connections_pb2",
    "duration",
    "dynamic_cluster_pb2",
    "dynamic_forward_proxy_pb2",
    "early_header_mutation_pb2",
    "endpoint_components_pb2",
    "endpoint_pb2",
    "extension_pb2",
    "fault_pb2",
    "fixed_heap_pb2",
    "grpc_service_pb2",
    "header_mutation_pb2",
    "health_check_pb2",
    "http_connection_manager_pb2",
    "http_inputs_pb2",
    "http_protocol_options_pb2",
    "http_rbac_pb2",
    "http_tracer_pb2",
    "json_format",
    "listener_components_pb2",
    "listener_pb2",
    "local_rate_limit_pb2",
    "lua_pb2",
    "matcher_pb2",
    "metadata_pb2",
    "mutation_rules_pb2",
    "opentelemetry_pb2",
    "outlier_detection_pb2",
    "overload_pb2",
    "percent_pb2",
    "previous_hosts_pb2",
    "process_ratelimit_pb2",
    "protocol_pb2",
    "range_pb2",
    "ratelimit_pb2",
    "rbac_pb2",
    "regex_pb2",
    "route_components_pb2",
    "route_pb2",
    "router_pb2",
    "rtds_pb2",
    "secret_pb2",
    "serialize",
    "ssl_inputs_pb2",
    "stats_pb2",
    "stream_pb2",
    "string_pb2",
    "struct_pb2",
    "substitution_format_string_pb2",
    "tcp_proxy_pb2",
    "tls_inspector_pb2",
    "tls_pb2",
    "token_bucket_pb2",
    "typed_struct_pb2",
    "uint32",
    "uuid_pb2",
    "value_pb2",
    "wrappers_pb2",
    "xds_extension_pb2",
    "xds_regex_pb2",
    "xds_string_pb2",
]

CACHED = 4096
"""How many built messages of a kind are kept: plans are frozen, and most of them are the same from change to change.
Whoever is given a message must not change it.
"""


def serialize(message: Any) -> bytes:
    """A message as bytes, the same for equal messages (map entries sorted)."""
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def any_of(message: Any) -> Any:
    """A message wrapped in google.protobuf.Any."""
    wrapped = any_pb2.Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def duration(seconds: float) -> Any:
    """Seconds as google.protobuf.Duration, to the microsecond."""
    micros = round(seconds * 1_000_000)
    return duration_pb2.Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def bool_value(value: bool) -> Any:  # noqa: FBT001 - wraps one value
    """A google.protobuf.BoolValue."""
    return wrappers_pb2.BoolValue(value=value)


def uint32(value: int) -> Any:
    """A google.protobuf.UInt32Value."""
    return wrappers_pb2.UInt32Value(value=value)


def any_of_struct(type_name: str, value: dict[str, Any]) -> Any:
    """A message given by its fields, for one of which the generated modules know less than Envoy does.

    Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/extension (TypedStruct).
    """
    message = typed_struct_pb2.TypedStruct(type_url=f"type.googleapis.com/{type_name}")
    message.value.update(value)
    return any_of(message)
