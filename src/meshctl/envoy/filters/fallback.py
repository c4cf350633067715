"""Fallbacks: a Lua filter outside the circuit breaker that replaces failures by what was good before.  Pure.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter. What it keeps is in the
memory of one listener of one sidecar, and goes with it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters.fallback_lua import build_source
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.fallback import FallbackPlan, StaticFallbackPlan

NAME = "meshctl.fallback"


def build(listener: HttpListener) -> Any | None:
    """The filter of a listener that callers use; switched off until a route asks for it."""
    return None if listener.role == "inbound" else _build()


@cache
def _build() -> Any:
    source = pb.base_pb2.DataSource(inline_string=build_source())
    return pb.http_connection_manager_pb2.HttpFilter(
        name=NAME, disabled=True, typed_config=pb.any_of(pb.lua_pb2.Lua(default_source_code=source))
    )


def configure(plan: FallbackPlan) -> Any:
    """What switches it on for the routes to one target."""
    configured = pb.lua_pb2.LuaPerRoute()
    values: dict[str, str | float | bool] = {"target": plan.target}
    if isinstance(plan, StaticFallbackPlan):
        values |= {"strategy": "static", "status": plan.status, "body": plan.body, "content_type": plan.content_type}
    else:
        values |= {
            "strategy": "cached_response",
            "max_age": plan.max_age,
            "max_entries": plan.max_entries,
            "max_bytes": plan.max_bytes,
            "max_body_bytes": plan.max_body_bytes,
            "share_credentials": plan.share_credentials,
        }
    configured.filter_context.update(values)
    return configured
