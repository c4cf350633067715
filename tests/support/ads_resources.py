"""Small Envoy resources as the xDS server is given them; everything listens on unix sockets, so no port is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.json_format import ParseDict

from meshctl.ads.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Resource, resource
from meshctl.envoy import pb

ADS = {"ads": {}, "resource_api_version": "V3"}
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def make_cluster(name: str, *, connect_timeout: str = "1s", client_secret: str = "", **more: Any) -> Resource:
    """A cluster whose endpoints come by EDS; with ``client_secret`` it speaks TLS with that certificate."""
    body: dict[str, Any] = {
        "name": name,
        "type": "EDS",
        "connect_timeout": connect_timeout,
        "eds_cluster_config": {"eds_config": ADS},
        **more,
    }
    if client_secret:
        secret = {"name": client_secret, "sds_config": ADS}
        body["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": _TLS,
                "common_tls_context": {"tls_certificate_sds_secret_configs": [secret]},
            },
        }
    return _make(CLUSTER, name, body, pb.cluster_pb2.Cluster())


def make_unparsable_cluster(name: str) -> Resource:
    """A cluster that Envoy refuses while it reads the response, together with all others in it."""
    return make_cluster(name, connect_timeout="-1s")


def make_unbuildable_cluster(name: str) -> Resource:
    """A cluster that Envoy refuses by name, while it takes the others of the response."""
    return _make(CLUSTER, name, {"name": name, "type": "EDS", "connect_timeout": "1s"}, pb.cluster_pb2.Cluster())


def make_endpoints(name: str, *sockets: str) -> Resource:
    """The endpoints of a cluster: unix sockets."""
    members = [{"endpoint": {"address": {"pipe": {"path": path}}}} for path in sockets]
    body = {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]}
    return _make(ENDPOINT, name, body, pb.endpoint_pb2.ClusterLoadAssignment())


def make_secret(name: str, *, chain: bytes, key: bytes) -> Resource:
    """A certificate with its key."""
    certificate = {
        "certificate_chain": {"inline_string": chain.decode()},
        "private_key": {"inline_string": key.decode()},
    }
    return _make(SECRET, name, {"name": name, "tls_certificate": certificate}, pb.secret_pb2.Secret())


def make_listener(name: str, socket: str, routes: str, *, prefix: str = "http") -> Resource:
    """An HTTP listener on a unix socket, its routes by RDS."""
    manager = {
        "@type": _HCM,
        "stat_prefix": prefix,
        "rds": {"config_source": ADS, "route_config_name": routes},
        "http_filters": [{"name": "router", "typed_config": {"@type": _ROUTER}}],
    }
    body = {
        "name": name,
        "address": {"pipe": {"path": socket}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    return _make(LISTENER, name, body, pb.listener_pb2.Listener())


def make_routes(name: str, weights: Mapping[str, int], *, discovered: Iterable[str] = ()) -> Resource:
    """Routes that split everything by weight; ``discovered`` are the clusters with endpoints (all by default)."""
    parts = [{"name": cluster, "weight": weight} for cluster, weight in weights.items()]
    body = {
        "name": name,
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [
                    {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": parts}, "timeout": "0s"}}
                ],
            }
        ],
    }
    needs = [(CLUSTER, cluster) for cluster in weights]
    needs += [(ENDPOINT, cluster) for cluster in (discovered or weights)]
    return _make(ROUTE, name, body, pb.route_pb2.RouteConfiguration(), needs)


def make_unbuildable_routes(name: str) -> Resource:
    """Routes that Envoy refuses: two virtual hosts for everything."""
    hosts = [{"name": host, "domains": ["*"]} for host in ("one", "two")]
    return _make(ROUTE, name, {"name": name, "virtual_hosts": hosts}, pb.route_pb2.RouteConfiguration())


def _make(
    type_url: str, name: str, body: dict[str, Any], message: Any, needs: Iterable[tuple[str, str]] = ()
) -> Resource:
    return resource(type_url, name, pb.serialize(ParseDict(body, message)), needs)
