"""The router: sends the request on. Always last.  Pure."""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener


def build(listener: HttpListener) -> Any:
    """The router of a listener."""
    del listener
    # What it would count by status and time of each request is counted better where the request is over (signals).
    config = pb.router_pb2.Router(dynamic_stats=pb.bool_value(False))
    return pb.http_connection_manager_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=pb.any_of(config))
