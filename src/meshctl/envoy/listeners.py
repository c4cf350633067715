"""ListenerPlan -> Listener.  Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters import build_filters
from meshctl.envoy.filters.header_mutation import build_early
from meshctl.envoy.local_replies import build_local_replies
from meshctl.envoy.pb import CACHED
from meshctl.envoy.refusals import refused_connection_log
from meshctl.envoy.request_logs import build_request_logs
from meshctl.envoy.signals import signal_log
from meshctl.envoy.sources import address_of, ads_source, set_http2
from meshctl.envoy.tls import downstream_tls
from meshctl.envoy.tracing import build_request_ids, build_tracing
from meshctl.plan.model import HttpListener, ListenerPlan, TcpListener
from meshctl.plan.policies.mtls import InboundTls

_SILENCE = 0.5
# Seconds until a client that has not said anything is taken for one of plain text, where the server speaks first.

_HCM = pb.http_connection_manager_pb2.HttpConnectionManager


@lru_cache(maxsize=CACHED)
def build_listener(plan: ListenerPlan, node: str) -> Any:
    """The listener of one plan, of the sidecar that is called ``node``."""
    network_filter = _tcp_proxy(plan) if isinstance(plan, TcpListener) else _connection_manager(plan, node)
    listener = pb.listener_pb2.Listener(
        name=plan.name,
        address=address_of(plan.address),
        stat_prefix=plan.name,
        # One worker, so nothing is to be balanced; without SO_REUSEPORT a taken port is an error, not a silent share.
        enable_reuse_port=pb.bool_value(False),
    )
    if plan.tls is None:
        # Connections of a chain that is no longer there are closed when the time for draining is over. Source:
        # https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/lds#filter-chain-only-update
        name = plan.cut if isinstance(plan, TcpListener) else ""
        listener.filter_chains.add(name=name, filters=[network_filter])
    else:
        _add_chains(listener, plan.tls, network_filter)
    if isinstance(plan, TcpListener) and plan.role == "inbound":
        listener.access_log.append(refused_connection_log(plan.name))
    directions = pb.base_pb2.TrafficDirection
    listener.traffic_direction = directions.INBOUND if plan.role == "inbound" else directions.OUTBOUND
    return listener


def _add_chains(listener: Any, tls: InboundTls, network_filter: Any) -> None:
    # What a connection speaks is looked at in any case, so that to take plain text or no more of it changes nothing
    # but the list of chains: Envoy then leaves the connections of the other chain alone. A client that says nothing
    # for a while is taken for one of plain text.
    inspector = pb.any_of(pb.tls_inspector_pb2.TlsInspector())
    listener.listener_filters.add(name="envoy.filters.listener.tls_inspector", typed_config=inspector)
    listener.listener_filters_timeout.CopyFrom(pb.duration(_SILENCE))
    listener.continue_on_listener_filters_timeout = True
    listener.filter_chains.add(
        name="mtls",
        filter_chain_match={"transport_protocol": "tls"},
        filters=[network_filter],
        transport_socket=downstream_tls(tls),
    )
    if tls.plain:
        match = {"transport_protocol": "raw_buffer"}
        listener.filter_chains.add(name="plain", filter_chain_match=match, filters=[network_filter])


def _tcp_proxy(plan: TcpListener) -> Any:
    config = pb.tcp_proxy_pb2.TcpProxy(stat_prefix=plan.name)
    if plan.idle_timeout is not None:
        config.idle_timeout.CopyFrom(pb.duration(plan.idle_timeout))
    if len(plan.split) == 1:
        config.cluster = plan.split[0][0]
    else:
        for cluster, weight in plan.split:
            config.weighted_clusters.clusters.append(
                pb.tcp_proxy_pb2.TcpProxy.WeightedCluster.ClusterWeight(name=cluster, weight=weight)
            )
    return pb.listener_components_pb2.Filter(name="envoy.filters.network.tcp_proxy", typed_config=pb.any_of(config))


def _connection_manager(plan: HttpListener, node: str) -> Any:
    manager = _HCM(
        stat_prefix=plan.name,
        codec_type=_HCM.CodecType.AUTO,
        rds=pb.http_connection_manager_pb2.Rds(route_config_name=plan.route_table, config_source=ads_source()),
        http_filters=build_filters(plan),
        upgrade_configs=[_HCM.UpgradeConfig(upgrade_type="websocket")],
        server_header_transformation=_HCM.ServerHeaderTransformation.PASS_THROUGH,
        normalize_path=pb.bool_value(True),
        stream_idle_timeout=pb.duration(300.0),
        local_reply_config=build_local_replies(plan),
        early_header_mutation_extensions=[build_early(plan)],
        tracing=build_tracing(plan, node),
        request_id_extension=build_request_ids(),
    )
    manager.access_log.append(signal_log(plan))
    set_http2(manager.http2_protocol_options)
    manager.access_log.extend(build_request_logs(plan.name))
    if plan.role == "gateway":
        manager.use_remote_address.value = True
        manager.merge_slashes = True
    if plan.role == "inbound":
        # The caller's identity, as its certificate proves it, for the application to read; what the caller wrote
        # there itself is removed.
        manager.forward_client_cert_details = _HCM.ForwardClientCertDetails.SANITIZE_SET
        manager.set_current_client_cert_details.uri = True
    return pb.listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=pb.any_of(manager)
    )
