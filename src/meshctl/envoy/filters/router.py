"""The router: sends the request on. Always last.  Pure."""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener


def build(listener: HttpListener) -> Any:
    """The router of a listener."""
    del listener
    config = pb.router_pb2.Router()
    return pb.http_connection_manager_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=pb.any_of(config))
