"""Where a sidecar gets its resources from, and how addresses are written.  Pure."""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import Address, PipeAddress


def ads_source() -> Any:
    """The aggregated stream that every resource comes by."""
    return pb.config_source_pb2.ConfigSource(
        resource_api_version=pb.config_source_pb2.ApiVersion.V3,
        ads=pb.config_source_pb2.AggregatedConfigSource(),
    )


def socket_address(host: str, port: int) -> Any:
    """A TCP address."""
    return pb.address_pb2.Address(socket_address=pb.address_pb2.SocketAddress(address=host, port_value=port))


def address_of(address: Address) -> Any:
    """The address of a listener; a unix socket is for its owner alone."""
    if isinstance(address, PipeAddress):
        return pb.address_pb2.Address(pipe=pb.address_pb2.Pipe(path=address.path, mode=0o600))
    return socket_address(address.host, address.port)


_STREAM_WINDOW = 1 << 20
# Bytes of one stream that a sidecar takes in before it has handed on what it has. Envoy's own 16 MiB would let every
# slow reader fill as much; on one machine, where an answer to a window takes microseconds, a megabyte costs no speed.


def set_http2(options: Any) -> None:
    """How HTTP/2 is spoken: ``options`` are Http2ProtocolOptions. Upgrades travel as extended CONNECT (RFC 8441)."""
    options.allow_connect = True
    options.initial_stream_window_size.value = _STREAM_WINDOW
