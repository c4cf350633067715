"""The circuit breaker: a Lua filter that keeps its state in memory shared by all listeners of a sidecar.  Pure.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter. Lua's own variables
belong to one listener, and a caller reaches a service by two, hence the shared memory (docs/adr/0009).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.circuit_layout import FORCED
from meshctl.envoy.filters.circuit_breaker_lua import CONTEXT_KEY, build_source
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan

NAME = "meshctl.circuit_breaker"


def build(listener: HttpListener) -> Any | None:
    """The filter of a listener that callers use; switched off until a route asks for it."""
    return None if listener.role == "inbound" else _build(listener.circuit_file)


@lru_cache(maxsize=pb.CACHED)
def _build(circuit_file: str) -> Any:
    source = pb.base_pb2.DataSource(inline_string=build_source(circuit_file))
    return pb.http_connection_manager_pb2.HttpFilter(
        name=NAME, disabled=True, typed_config=pb.any_of(pb.lua_pb2.Lua(default_source_code=source))
    )


def configure(plan: CircuitBreakerPlan) -> Any:
    """What switches it on for the routes to one target."""
    configured = pb.lua_pb2.LuaPerRoute()
    configured.filter_context[CONTEXT_KEY] = write_parameters(plan)
    return configured


def write_parameters(plan: CircuitBreakerPlan) -> str:
    """The parameters as one short text, which the filter reads once and knows again: seconds, ``slow_call`` in ms."""
    numbers = (
        plan.failure_threshold,
        plan.success_threshold,
        plan.timeout,
        plan.failure_rate,
        plan.minimum_requests,
        plan.slow_call * 1000,
        plan.probe_timeout,
        int(plan.grpc),
        FORCED.index(plan.forced),
    )
    return "|".join([plan.target, *(f"{number:.15g}" for number in numbers)])
