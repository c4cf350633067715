"""What a sidecar tells of each request when it is over: a line of its access log, and a report to taps.  Pure.

Loggers are part of a listener, which is made once; runtime values switch them (``runtime``). Off, a logger costs a
request one look at such a value. On, it is bounded by a bucket: what a sidecar tells costs it next to nothing at any
load, and never fills a disk. Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/accesslog/v3/accesslog.proto
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters import rbac
from meshctl.envoy.filters.fault import FAULT_HEADER
from meshctl.envoy.filters.rate_limit import NAME_HEADER
from meshctl.envoy.local_replies import LATE_HEADER, OVERLOADED_HEADER
from meshctl.envoy.refusals import was_refused
from meshctl.envoy.runtime import (
    FAILED_BUCKET,
    LOG_ALL,
    LOG_FAILED,
    LOG_SAMPLE,
    LOG_SLOW_MS,
    SAMPLE_BUCKET,
    TAP_BUCKET,
    TAP_HIGHEST,
    TAP_INBOUND,
    TAP_LOWEST,
    TAP_MS,
    TAP_OUTBOUND,
    TAP_UPSTREAM,
)
from meshctl.envoy.sources import ads_source
from meshctl.plan.policies.authorization import DENIED_HEADER
from meshctl.plan.policies.telemetry import LAST_STATUS

CONTROL_PLANE = "control-plane"
"""The cluster of the control plane, as ``bootstrap`` names it."""

PASSED = "meshctl.tap.passed"
"""The counter of requests that any tap might want, reported or not."""

ANSWER_HEADERS = {
    "circuit": "x-meshctl-circuit",
    "denied": DENIED_HEADER,
    "overloaded": OVERLOADED_HEADER,
    "limited": NAME_HEADER,
    "fallback": "x-meshctl-fallback",
    "late": LATE_HEADER,
    "fault": FAULT_HEADER,
}
"""Headers by which the mesh's own answers are known, by the field in which they are told."""

_FIELDS = {
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "grpc": "%GRPC_STATUS_NUMBER%",
    "host": "%REQ(:AUTHORITY):128%",
    "method": "%REQ(:METHOD):16%",
    "ms": "%DURATION%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):1024%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "protocol": "%PROTOCOL%",
    "received": "%BYTES_RECEIVED%",
    "request_id": "%REQ(X-REQUEST-ID):64%",
    "route": "%ROUTE_NAME%",
    "sent": "%BYTES_SENT%",
    "status": "%RESPONSE_CODE%",
    "time": "%START_TIME(%s.%6f)%",
    "trace": "%TRACE_ID%",
    "traceparent": "%REQ(TRACEPARENT):64%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream": "%UPSTREAM_HOST%",
    "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    **{field: f"%RESP({header}):128%" for field, header in ANSWER_HEADERS.items()},
}
# Texts that others choose have a bound, so that no request makes a line of any length it likes.

AUTHORIZATION = {
    "authorization": "enforced_engine_result",
    "rule": "enforced_effective_policy_id",
    "audit": "shadow_engine_result",
    "audit_rule": "shadow_effective_policy_id",
}
"""What authorization says, ``allowed`` or ``denied`` and by which rule, by the field in which it is told."""

_OF_CALLEE = {field: f"%DYNAMIC_METADATA({rbac.NAME}:{key}):64%" for field, key in AUTHORIZATION.items()}

_FIRST_FAILED_STATUS = 400

_Filter = pb.accesslog_pb2.AccessLogFilter


def build_request_logs(listener: str) -> list[Any]:
    """The loggers of a listener."""
    return [_count_passed(listener), _report(listener), _write_line(listener)]


def _count_passed(listener: str) -> Any:
    prefix, _, name = PASSED.rpartition(".")
    config = {"stats_scope": {"prefix": prefix}, "counters": [{"stat": {"name": name}, "value_fixed": 1}]}
    return pb.accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stats",
        filter=_all_of(*_wanted_by_taps(listener)),
        typed_config=pb.any_of_struct("envoy.extensions.access_loggers.stats.v3.Config", config),
    )


def _report(listener: str) -> Any:
    common = pb.als_pb2.CommonGrpcAccessLogConfig(
        log_name=listener,
        transport_api_version=pb.config_source_pb2.ApiVersion.V3,
        grpc_service=pb.grpc_service_pb2.GrpcService(
            envoy_grpc=pb.grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=CONTROL_PLANE)
        ),
        # Each at once; and when nobody takes them, one waits and the others are dropped.
        buffer_size_bytes=pb.uint32(1),
        buffer_flush_interval=pb.duration(1.0),
    )
    config = pb.als_pb2.HttpGrpcAccessLogConfig(
        common_config=common,
        additional_request_headers_to_log=["traceparent"],
        additional_response_headers_to_log=[*ANSWER_HEADERS.values(), "grpc-status"],
        additional_response_trailers_to_log=["grpc-status"],
    )
    return pb.accesslog_pb2.AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=_all_of(*_wanted_by_taps(listener), _within(TAP_BUCKET)),
        typed_config=pb.any_of(config),
    )


def _write_line(listener: str) -> Any:
    side = "callee" if listener.startswith("inbound/") else "caller"
    fields = {"access": side, "listener": listener, **_FIELDS, **(_OF_CALLEE if side == "callee" else {})}
    form = pb.substitution_format_string_pb2.SubstitutionFormatString()
    form.json_format.update(fields)
    failed = _any_of(
        _status("GE", _FIRST_FAILED_STATUS, "meshctl.access_log.failed_status"),
        _all_of(_is_grpc(), _Filter(grpc_status_filter=_not_ok())),
        _Filter(response_flag_filter=pb.accesslog_pb2.ResponseFlagFilter()),
        _Filter(duration_filter=pb.accesslog_pb2.DurationFilter(comparison=_comparison("GE", 1000, LOG_SLOW_MS))),
    )
    # In this order: what failed does not take the place of a sample.
    chosen = _any_of(
        _all_of(_share(LOG_FAILED), failed, _within(FAILED_BUCKET)),
        _all_of(_share(LOG_SAMPLE), _within(SAMPLE_BUCKET)),
        _share(LOG_ALL),
        # Whatever else is logged: who was refused is always written down.
        *((was_refused(),) if side == "callee" else ()),
    )
    return pb.accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stdout",
        filter=chosen,
        typed_config=pb.any_of(pb.stream_pb2.StdoutAccessLog(log_format=form)),
    )


def _wanted_by_taps(listener: str) -> list[Any]:
    kind, _, name = listener.partition("/")
    switch = {"inbound": TAP_INBOUND, "upstream": TAP_UPSTREAM + name}.get(kind, TAP_OUTBOUND)
    # The switch first: while nobody taps, nothing else is looked at.
    return [
        _share(switch),
        _status("GE", 0, TAP_LOWEST),
        _status("LE", LAST_STATUS, TAP_HIGHEST),
        _Filter(duration_filter=pb.accesslog_pb2.DurationFilter(comparison=_comparison("GE", 0, TAP_MS))),
    ]


def _share(key: str) -> Any:
    return _Filter(
        runtime_filter=pb.accesslog_pb2.RuntimeFilter(
            runtime_key=key,
            percent_sampled=pb.percent_pb2.FractionalPercent(numerator=0),
            use_independent_randomness=True,
        )
    )


def _status(operator: str, value: int, key: str) -> Any:
    return _Filter(status_code_filter=pb.accesslog_pb2.StatusCodeFilter(comparison=_comparison(operator, value, key)))


def _is_grpc() -> Any:
    # Of a request of another kind Envoy makes up a gRPC status.
    matcher = pb.route_components_pb2.HeaderMatcher(
        name="content-type", string_match=pb.string_pb2.StringMatcher(prefix="application/grpc")
    )
    return _Filter(header_filter=pb.accesslog_pb2.HeaderFilter(header=matcher))


def _not_ok() -> Any:
    return pb.accesslog_pb2.GrpcStatusFilter(statuses=["OK"], exclude=True)


def _comparison(operator: str, value: int, key: str) -> Any:
    return pb.accesslog_pb2.ComparisonFilter(
        op=pb.accesslog_pb2.ComparisonFilter.Op.Value(operator),
        value=pb.base_pb2.RuntimeUInt32(default_value=value, runtime_key=key),
    )


def _within(bucket: str) -> Any:
    limits = pb.process_ratelimit_pb2
    config = limits.ProcessRateLimitFilter(
        dynamic_config=limits.DynamicTokenBucket(resource_name=bucket, config_source=ads_source())
    )
    return _Filter(
        extension_filter=pb.accesslog_pb2.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.process_ratelimit", typed_config=pb.any_of(config)
        )
    )


def _all_of(*filters: Any) -> Any:
    return _Filter(and_filter=pb.accesslog_pb2.AndFilter(filters=filters))


def _any_of(*filters: Any) -> Any:
    return _Filter(or_filter=pb.accesslog_pb2.OrFilter(filters=filters))
