"""How a sidecar sheds load rather than dying: its overload manager.  Pure.

Envoy looks at its heap a few times a second. As it fills up, the sidecar gives memory back to the system, has idle
clients connect anew, resets the streams that hold most, answers requests with 503, and at last takes no
connections. Each of these ends when the heap is below its threshold again. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager/overload_manager
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb

MAX_HEAP = 256 * 2**20
"""Bytes that a sidecar's heap may have; one that serves a busy service has a tenth of it."""

MAX_CONNECTIONS = 3500
"""Connections that a sidecar accepts: an Envoy that is out of file descriptors crashes, and a request may take two of
the 8,192 that the keeper gives it.
"""

_HEAP = "envoy.resource_monitors.fixed_heap"
_STEPS = (
    ("envoy.overload_actions.shrink_heap", 0.8, 0.8),
    ("envoy.overload_actions.disable_http_keepalive", 0.85, 0.85),
    ("envoy.overload_actions.reset_high_memory_stream", 0.85, 0.95),
    ("envoy.overload_actions.stop_accepting_requests", 0.9, 0.9),
    ("envoy.overload_actions.reject_incoming_connections", 0.95, 0.95),
)
"""What is done from which share of the heap on; where a second share is larger, by degrees up to that."""

_TRACKED = 20
# Streams that hold 2^20 bytes or more are told apart by size; smaller ones are not worth a reset.


def build_overload_manager(*, max_heap: int, max_connections: int) -> Any:
    """The overload manager of one sidecar; bytes and a number of connections."""
    heap = pb.fixed_heap_pb2.FixedHeapConfig(max_heap_size_bytes=max_heap)
    connections = pb.downstream_connections_pb2.DownstreamConnectionsConfig(
        max_active_downstream_connections=max_connections
    )
    return pb.overload_pb2.OverloadManager(
        refresh_interval=pb.duration(0.25),
        buffer_factory_config=pb.overload_pb2.BufferFactoryConfig(minimum_account_to_track_power_of_two=_TRACKED),
        resource_monitors=[
            pb.overload_pb2.ResourceMonitor(name=_HEAP, typed_config=pb.any_of(heap)),
            pb.overload_pb2.ResourceMonitor(
                name="envoy.resource_monitors.global_downstream_max_connections", typed_config=pb.any_of(connections)
            ),
        ],
        actions=[
            pb.overload_pb2.OverloadAction(name=name, triggers=[_trigger(start, end)]) for name, start, end in _STEPS
        ],
    )


def _trigger(start: float, end: float) -> Any:
    if start == end:
        return pb.overload_pb2.Trigger(name=_HEAP, threshold=pb.overload_pb2.ThresholdTrigger(value=start))
    scaled = pb.overload_pb2.ScaledTrigger(scaling_threshold=start, saturation_threshold=end)
    return pb.overload_pb2.Trigger(name=_HEAP, scaled=scaled)
