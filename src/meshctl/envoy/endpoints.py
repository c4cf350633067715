"""EndpointsPlan -> ClusterLoadAssignment.  Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.pb import CACHED
from meshctl.envoy.sources import socket_address
from meshctl.plan.model import Endpoint


@lru_cache(maxsize=CACHED)
def build_assignment(cluster: str, endpoints: tuple[Endpoint, ...]) -> Any:
    """The endpoints of one cluster, in one locality, with their health."""
    status = pb.health_check_pb2.HealthStatus
    members = [
        pb.endpoint_components_pb2.LbEndpoint(
            endpoint=pb.endpoint_components_pb2.Endpoint(address=socket_address(item.host, item.port)),
            health_status=status.UNHEALTHY if item.health == "unhealthy" else status.UNKNOWN,
            load_balancing_weight=None if item.weight == 1 else pb.uint32(item.weight),
        )
        for item in endpoints
    ]
    localities = [pb.endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=members)] if members else []
    return pb.endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster, endpoints=localities)
