"""The file that a sidecar starts from: where its control plane and its admin interface are.  Pure.

Everything else comes over ADS, so the file never changes while the mesh runs.
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.kept_stats import HISTOGRAM_INTERVAL, build_stats_config
from meshctl.envoy.overload import MAX_CONNECTIONS, MAX_HEAP, build_overload_manager
from meshctl.envoy.runtime import FAULT_LAYER, RUNTIME_LAYER
from meshctl.envoy.sources import address_of, ads_source
from meshctl.envoy.tracing import COLLECTOR_CLUSTER, STATIC_RUNTIME
from meshctl.plan.model import PipeAddress

XDS_CLUSTER = "control-plane"

_RUNTIME = {
    # Envoy's own bound of 100 refuses expressions that people write; spec.regexes bounds them.
    "re2.max_program_size.error_level": 4_294_967_295,
    **STATIC_RUNTIME,
}

_RELEASED_BYTES = 2**20
_RELEASE_INTERVAL = 1.0
# What a burst took goes back to the system, a MiB a second; without this Envoy keeps it.


def build_bootstrap(
    *,
    node: str,
    mesh: str,
    admin_socket: str,
    ads_socket: str,
    collector_socket: str,
    max_heap: int = MAX_HEAP,
    max_connections: int = MAX_CONNECTIONS,
) -> str:
    """The bootstrap of one sidecar as JSON; beyond ``max_heap`` bytes or ``max_connections`` it sheds load."""
    config = pb.bootstrap_pb2.Bootstrap(
        node=pb.base_pb2.Node(id=node, cluster=mesh),
        admin=pb.bootstrap_pb2.Admin(address=address_of(PipeAddress(admin_socket))),
        static_resources=pb.bootstrap_pb2.Bootstrap.StaticResources(
            clusters=[_control_plane(ads_socket), _unix_cluster(COLLECTOR_CLUSTER, collector_socket)]
        ),
        dynamic_resources=_dynamic_resources(),
        stats_config=build_stats_config(),
        stats_flush_interval=pb.duration(HISTOGRAM_INTERVAL),
        memory_allocator_manager=pb.bootstrap_pb2.MemoryAllocatorManager(
            bytes_to_release=_RELEASED_BYTES, memory_release_interval=pb.duration(_RELEASE_INTERVAL)
        ),
        overload_manager=build_overload_manager(max_heap=max_heap, max_connections=max_connections),
        layered_runtime=pb.bootstrap_pb2.LayeredRuntime(
            layers=[
                pb.bootstrap_pb2.RuntimeLayer(name="static", static_layer=_RUNTIME),
                *(
                    pb.bootstrap_pb2.RuntimeLayer(
                        name=name,
                        rtds_layer=pb.bootstrap_pb2.RuntimeLayer.RtdsLayer(name=name, rtds_config=ads_source()),
                    )
                    for name in (RUNTIME_LAYER, FAULT_LAYER)
                ),
                # Last, so that what somebody sets by hand holds.
                pb.bootstrap_pb2.RuntimeLayer(name="admin", admin_layer={}),
            ]
        ),
    )
    text: str = pb.json_format.MessageToJson(config, preserving_proto_field_name=True, sort_keys=True)
    return text


def _dynamic_resources() -> Any:
    source = pb.config_source_pb2.ApiConfigSource
    return pb.bootstrap_pb2.Bootstrap.DynamicResources(
        ads_config=source(
            api_type=source.ApiType.DELTA_GRPC,
            transport_api_version=pb.config_source_pb2.ApiVersion.V3,
            set_node_on_first_message_only=True,
            grpc_services=[
                pb.grpc_service_pb2.GrpcService(
                    envoy_grpc=pb.grpc_service_pb2.GrpcService.EnvoyGrpc(
                        cluster_name=XDS_CLUSTER,
                        # How long a sidecar waits before it looks for a control plane that went away.
                        retry_policy=pb.base_pb2.RetryPolicy(
                            retry_back_off={"base_interval": {"nanos": 50_000_000}, "max_interval": {"seconds": 1}}
                        ),
                    )
                )
            ],
        ),
        cds_config=ads_source(),
        lds_config=ads_source(),
    )


def _control_plane(ads_socket: str) -> Any:
    options = pb.http_protocol_options_pb2.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.SetInParent()
    cluster = _unix_cluster(XDS_CLUSTER, ads_socket)
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster.typed_extension_protocol_options[name].CopyFrom(pb.any_of(options))
    return cluster


def _unix_cluster(name: str, socket: str) -> Any:
    member = pb.endpoint_components_pb2.LbEndpoint(
        endpoint=pb.endpoint_components_pb2.Endpoint(
            address=pb.address_pb2.Address(pipe=pb.address_pb2.Pipe(path=socket))
        )
    )
    return pb.cluster_pb2.Cluster(
        name=name,
        connect_timeout=pb.duration(1.0),
        load_assignment=pb.endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[pb.endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[member])],
        ),
    )
