"""What a sidecar would be sent over ADS as one static configuration, for ``envoy --mode validate``.  Pure.

Validation reaches no control plane, so every resource is put where it is used: routes into connection managers,
endpoints into clusters, secrets into the static section.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.bootstrap import build_bootstrap
from meshctl.envoy.translate import Translated

_HCM = pb.http_connection_manager_pb2.HttpConnectionManager
_NOWHERE = "/tmp/none"  # noqa: S108 - a socket that nobody makes: nothing listens while a file is validated


def build_static(node: str, resources: Sequence[Translated]) -> str:
    """A bootstrap that holds the resources themselves, as JSON."""
    text = build_bootstrap(
        node=node,
        mesh=node,
        admin_socket=f"{_NOWHERE}.admin",
        ads_socket=f"{_NOWHERE}.ads",
        collector_socket=f"{_NOWHERE}.spans",
    )
    config = pb.json_format.Parse(text, pb.bootstrap_pb2.Bootstrap())
    routes = {item.name: item.message for item in resources if item.kind == "routes"}
    endpoints = {item.name: item.message for item in resources if item.kind == "endpoints"}
    for item in resources:
        message = copy.deepcopy(item.message)
        if item.kind == "secret":
            config.static_resources.secrets.append(message)
        elif item.kind == "cluster":
            if item.name in endpoints:
                message.type = pb.cluster_pb2.Cluster.DiscoveryType.STATIC
                message.ClearField("eds_cluster_config")
                message.load_assignment.CopyFrom(endpoints[item.name])
            _use_static_secrets(message.transport_socket, pb.tls_pb2.UpstreamTlsContext)
            config.static_resources.clusters.append(message)
        elif item.kind == "listener":
            for chain in message.filter_chains:
                _use_static_secrets(chain.transport_socket, pb.tls_pb2.DownstreamTlsContext)
                for network_filter in chain.filters:
                    _inline_routes(network_filter, routes)
            config.static_resources.listeners.append(message)
    made: str = pb.json_format.MessageToJson(config)
    return made


def _use_static_secrets(socket: Any, kind: Any) -> None:
    if not socket.HasField("typed_config"):
        return
    context = kind()
    socket.typed_config.Unpack(context)
    common = context.common_tls_context
    for secret in common.tls_certificate_sds_secret_configs:
        secret.ClearField("sds_config")
    if common.HasField("combined_validation_context"):
        common.combined_validation_context.validation_context_sds_secret_config.ClearField("sds_config")
    socket.typed_config.Pack(context)


def _inline_routes(network_filter: Any, routes: dict[str, Any]) -> None:
    if not network_filter.typed_config.Is(_HCM.DESCRIPTOR):
        return
    manager = _HCM()
    network_filter.typed_config.Unpack(manager)
    manager.route_config.CopyFrom(routes[manager.rds.route_config_name])
    network_filter.typed_config.Pack(manager)
