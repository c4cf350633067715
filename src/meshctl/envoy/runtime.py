"""TelemetryPlan -> the runtime values that listeners look up, and the rates that hold for them.  Pure.

Listeners are made once; what changes while the mesh runs and no route can carry is a runtime value. Envoy reads it for
each request, which costs about as much as a look into a hash table. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/runtime
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters.fault import build_share
from meshctl.envoy.tracing import HEEDED_KEY, SAMPLED_KEY
from meshctl.plan.policies.telemetry import REPORTED_PER_SECOND, TelemetryPlan

RUNTIME_LAYER = "meshctl"

FAULT_LAYER = "meshctl-faults"
"""The layer of faults, by itself: its values have a time to live (see ``plan.policies.faults``)."""

TAP_INBOUND = "meshctl.tap.inbound"
TAP_OUTBOUND = "meshctl.tap.outbound"
TAP_UPSTREAM = "meshctl.tap.upstream."
TAP_LOWEST = "meshctl.tap.lowest_status"
TAP_HIGHEST = "meshctl.tap.highest_status"
TAP_MS = "meshctl.tap.minimum_ms"
LOG_ALL = "meshctl.access_log.all"
LOG_SAMPLE = "meshctl.access_log.sample"
LOG_FAILED = "meshctl.access_log.failed"
LOG_SLOW_MS = "meshctl.access_log.slow_ms"
"""The keys that ``request_logs`` looks up; shares are percentages, 0 where there is none. The name of an upstream
ends its key."""

TAP_BUCKET = "tap"
SAMPLE_BUCKET = "access-log/sample"
FAILED_BUCKET = "access-log/failed"

_FULL = 100
_PER_TEN_THOUSAND = 100
# Of a million.


@lru_cache(maxsize=pb.CACHED)
def build_runtime(plan: TelemetryPlan) -> Any:
    """The runtime layer of a sidecar."""
    values = {
        TAP_INBOUND: _FULL if plan.tap.inbound else 0,
        TAP_OUTBOUND: _FULL if plan.tap.outbound else 0,
        **{TAP_UPSTREAM + name: _FULL for name in plan.tap.upstreams},
        TAP_LOWEST: plan.tap.lowest_status,
        TAP_HIGHEST: plan.tap.highest_status,
        TAP_MS: plan.tap.minimum_ms,
        LOG_ALL: _FULL if plan.access_log == "all" else 0,
        LOG_SAMPLE: _FULL if plan.access_log == "sampled" else 0,
        LOG_FAILED: _FULL if plan.access_log in ("sampled", "errors") else 0,
        LOG_SLOW_MS: plan.slow_ms,
        # Envoy draws a number up to ten thousand, whatever it is a share of.
        SAMPLED_KEY: {"numerator": round(plan.sampled / _PER_TEN_THOUSAND), "denominator": "TEN_THOUSAND"},
        HEEDED_KEY: _FULL if plan.sampled else 0,
    }
    layer = pb.struct_pb2.Struct()
    layer.update(values)
    return pb.rtds_pb2.Runtime(name=RUNTIME_LAYER, layer=layer)


@lru_cache(maxsize=pb.CACHED)
def build_fault_shares(shares: tuple[tuple[str, int], ...]) -> Any:
    """The layer of the faults that a sidecar makes: (key, millionths of the requests)."""
    layer = pb.struct_pb2.Struct()
    layer.update({key: build_share(millionths) for key, millionths in shares})
    return pb.rtds_pb2.Runtime(name=FAULT_LAYER, layer=layer)


@lru_cache(maxsize=1)
def build_buckets() -> dict[str, Any]:
    """The rates by name, each for a whole sidecar: a request that finds its bucket empty is not told of."""
    bucket = pb.token_bucket_pb2.TokenBucket(
        max_tokens=REPORTED_PER_SECOND,
        tokens_per_fill=pb.uint32(REPORTED_PER_SECOND),
        fill_interval=pb.duration(1.0),
    )
    return dict.fromkeys((FAILED_BUCKET, SAMPLE_BUCKET, TAP_BUCKET), bucket)
