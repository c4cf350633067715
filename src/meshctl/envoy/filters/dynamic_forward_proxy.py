"""Resolves hosts outside the mesh as requests name them.  Pure.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/dynamic_forward_proxy_filter
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener


def dns_cache() -> Any:
    """The cache that filter and cluster share: it is one because both name it alike."""
    return pb.dns_cache_pb2.DnsCacheConfig(
        name="outside",
        dns_lookup_family=pb.cluster_pb2.Cluster.DnsLookupFamily.V4_PREFERRED,
    )


def build(listener: HttpListener) -> Any | None:
    """The filter of a listener from which hosts outside the mesh may be reached."""
    if not listener.passthrough:
        return None
    config = pb.dynamic_forward_proxy_pb2.FilterConfig(dns_cache_config=dns_cache())
    return pb.http_connection_manager_pb2.HttpFilter(
        name="envoy.filters.http.dynamic_forward_proxy", typed_config=pb.any_of(config)
    )
