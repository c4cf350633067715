"""How a sidecar makes spans of requests, and to whom it sends them.  Pure.

A request that brings no trace context gets one here, and whether it is recorded is decided by a share that the control
plane changes while the mesh runs (``SAMPLED_KEY``). One that brings a context keeps it, and the decision in it. Each
request is a span of each listener that it comes in by. Tries have none of their own: each is a span of the instance
that it reached. Source: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/observability/tracing
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters import rbac
from meshctl.envoy.filters.rate_limit import NAME_HEADER
from meshctl.envoy.local_replies import LATE_HEADER, OVERLOADED_HEADER
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.authorization import DENIED_HEADER

COLLECTOR_CLUSTER = "collector"
"""The static cluster of the control plane's collector of spans."""

SAMPLED_KEY = "tracing.random_sampling"
"""The runtime value, Envoy's own, that holds the share of requests of which spans are made."""

HEEDED_KEY = "tracing.client_enabled"
"""The same for whether the decision of a request that brings a trace context is heeded (``header_mutation``)."""

TRACES_PATH = "/v1/traces"

MAX_WAITING = 192
"""Spans that wait in a sidecar to be sent; what comes on top of them within ``FLUSH_MS`` is dropped. Thus callers that
ask for every request to be traced cost no more than so many spans a second, and little memory: Envoy holds a span that
waits, and all of them once more as they are sent."""

FLUSH_MS = 250

STATIC_RUNTIME = {
    "tracing.opentelemetry.flush_interval_ms": FLUSH_MS,
    # Never by number: then nothing would be dropped, however much there is.
    "tracing.opentelemetry.min_flush_spans": 1_000_000_000,
}
"""What a sidecar's bootstrap sets once."""

TAG = "meshctl."
"""How the names of these begin."""

_OF_ALL = {
    "details": "%RESPONSE_CODE_DETAILS%",
    "denied": f"%RESP({DENIED_HEADER}):64%",
    "limited": f"%RESP({NAME_HEADER}):64%",
    "overloaded": f"%RESP({OVERLOADED_HEADER}):64%",
    "late": f"%RESP({LATE_HEADER}):64%",
}
_OF_CALLER = {
    "route": "%ROUTE_NAME%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "circuit": "%RESP(x-meshctl-circuit):64%",
    "fallback": "%RESP(x-meshctl-fallback):64%",
}
_OF_CALLEE = {
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "would_deny": f"%DYNAMIC_METADATA({rbac.NAME}:shadow_effective_policy_id):64%",
}
# Beside the listener, and what Envoy says of each span by itself. All in one tag: for each tag Envoy looks through
# those before it, and it does so for requests that are not recorded, too.

SEEN = f"{TAG}seen"
SEPARATOR = "\t"
"""The tag, and what stands between what it holds."""

_SEND_TIMEOUT = 2.0
_MAX_PATH = 1024

_HCM = pb.http_connection_manager_pb2.HttpConnectionManager


def seen_fields(listener: str) -> tuple[str, ...]:
    """What the tag of a listener's spans holds after the listener's name, in order."""
    return tuple(_tags(listener))


def _tags(listener: str) -> dict[str, str]:
    return {**_OF_ALL, **(_OF_CALLEE if listener.startswith("inbound/") else _OF_CALLER)}


def build_tracing(plan: HttpListener, node: str) -> Any:
    """The tracing of a listener of a sidecar."""
    exporter = pb.opentelemetry_pb2.OpenTelemetryConfig(
        service_name=node,
        http_service={
            "http_uri": {
                "uri": f"http://{COLLECTOR_CLUSTER}{TRACES_PATH}",
                "cluster": COLLECTOR_CLUSTER,
                "timeout": pb.duration(_SEND_TIMEOUT),
            }
        },
        max_cache_size=pb.uint32(MAX_WAITING),
    )
    provider = pb.http_tracer_pb2.Tracing.Http(name="envoy.tracers.opentelemetry", typed_config=pb.any_of(exporter))
    full = pb.percent_pb2.Percent(value=100.0)
    seen = pb.custom_tag_pb2.CustomTag(tag=SEEN, value=SEPARATOR.join((plan.name, *_tags(plan.name).values())))
    return _HCM.Tracing(
        client_sampling=full,
        random_sampling=full,
        overall_sampling=full,
        max_path_tag_length=pb.uint32(_MAX_PATH),
        custom_tags=[seen],
        provider=provider,
        # A span of each try would cost as much as one of the request, recorded or not.
        spawn_upstream_span=pb.bool_value(False),
        operation="%REQ(:METHOD)%",
    )


def build_request_ids() -> Any:
    """Request ids that say nothing of tracing: what a caller writes in one is passed on as it is.

    Of an id depends which requests a share takes. Without that Envoy records all of them, whatever the share is (seen
    with 1.40); with it, none whose caller gave it an id of their own that is no UUID, and no trace context.
    """
    config = pb.uuid_pb2.UuidRequestIdConfig(
        pack_trace_reason=pb.bool_value(False), use_request_id_for_trace_sampling=pb.bool_value(True)
    )
    return pb.http_connection_manager_pb2.RequestIDExtension(typed_config=pb.any_of(config))
