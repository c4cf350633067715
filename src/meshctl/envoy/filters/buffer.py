"""Holds bodies until they are whole, and refuses those that turn out too long.  Pure.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/buffer_filter
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.limits import BufferPlan

NAME = "envoy.filters.http.buffer"


def build(listener: HttpListener) -> Any | None:
    """The filter of an instance's listener, disabled; it wants a limit even so."""
    if listener.role != "inbound":
        return None
    config = pb.buffer_pb2.Buffer(max_request_bytes=pb.uint32(1))
    return pb.http_connection_manager_pb2.HttpFilter(name=NAME, typed_config=pb.any_of(config), disabled=True)


def configure(plan: BufferPlan) -> Any:
    """The limit of a route."""
    limit = pb.buffer_pb2.Buffer(max_request_bytes=pb.uint32(plan.max_bytes))
    return pb.buffer_pb2.BufferPerRoute(buffer=limit)
