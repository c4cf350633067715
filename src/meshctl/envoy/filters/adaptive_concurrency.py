"""Refuses requests beyond what an instance can take at once, as its latency shows.  Pure.

The filter takes no settings of routes, so those here hold for every instance that switches it on. Every minute, and
at the start, it lets few requests through to measure the latency without load; meanwhile more than ``_LEAST`` at once
are refused. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.limits import AdaptiveConcurrencyPlan

NAME = "envoy.filters.http.adaptive_concurrency"

_LEAST = 10
_GRADIENT = pb.adaptive_concurrency_pb2.GradientControllerConfig


def build(listener: HttpListener) -> Any | None:
    """The filter of an instance's listener, disabled."""
    if listener.role != "inbound":
        return None
    controller = _GRADIENT(
        sample_aggregate_percentile=pb.percent_pb2.Percent(value=90.0),
        concurrency_limit_params=_GRADIENT.ConcurrencyLimitCalculationParams(
            concurrency_update_interval=pb.duration(0.1)
        ),
        min_rtt_calc_params=_GRADIENT.MinimumRTTCalculationParams(
            interval=pb.duration(60.0),
            request_count=pb.uint32(50),
            min_concurrency=pb.uint32(_LEAST),
            jitter=pb.percent_pb2.Percent(value=10.0),
        ),
    )
    config = pb.adaptive_concurrency_pb2.AdaptiveConcurrency(gradient_controller_config=controller)
    return pb.http_connection_manager_pb2.HttpFilter(name=NAME, typed_config=pb.any_of(config), disabled=True)


def configure(plan: AdaptiveConcurrencyPlan) -> Any:
    """Switches it on as it stands in the chain."""
    del plan
    return pb.route_components_pb2.FilterConfig(config=pb.any_pb2.Any())
