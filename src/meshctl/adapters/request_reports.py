"""Sidecars' reports of requests, Envoy's gRPC access log service -> the fields of an access log.  I/O.

Enters: ``StreamAccessLogs`` on the socket that sidecars get their configuration by.  Leaves: for each request the
sidecar's node and the fields that wire.requests reads. Nothing is kept: what comes is handed on at once.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.accesslog.v3 import als_pb2

from meshctl.envoy.filters import rbac
from meshctl.envoy.request_logs import ANSWER_HEADERS, AUTHORIZATION
from meshctl.wire.response_flags import LONG_NAMES

_SERVICE = "envoy.service.accesslog.v3.AccessLogService"

_PROTOCOLS = ("", "HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3")

_log = logging.getLogger(__name__)

TakeReport = Callable[[str, Mapping[str, Any]], None]
"""Called in the event loop with the node and the fields of one request."""


class ReportReceiver:
    """Takes what sidecars report, and gives it to ``take``, which does nothing at first."""

    def __init__(self) -> None:
        self.take: TakeReport = lambda _node, _fields: None

    def handlers(self) -> Any:
        """What a gRPC server is given to serve it."""
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                "StreamAccessLogs": grpc.stream_unary_rpc_method_handler(
                    self._serve,
                    request_deserializer=als_pb2.StreamAccessLogsMessage.FromString,
                    response_serializer=als_pb2.StreamAccessLogsResponse.SerializeToString,
                )
            },
        )

    async def _serve(self, messages: AsyncIterator[Any], _context: Any) -> Any:
        node = listener = ""
        async for message in messages:
            if message.HasField("identifier"):
                node, listener = message.identifier.node.id, message.identifier.log_name
            for entry in message.http_logs.log_entry:
                try:
                    self.take(node, read_entry(entry, listener))
                except Exception:  # noqa: BLE001 - the boundary of one report: what it cannot say is not worth a stream
                    _log.exception("a report of sidecar %s was not understood", node)
        return als_pb2.StreamAccessLogsResponse()


def read_entry(entry: Any, listener: str) -> dict[str, Any]:
    """The fields of one HTTPAccessLogEntry, by the names of ``envoy.request_logs``."""
    common, request, response = entry.common_properties, entry.request, entry.response
    answer = response.response_headers
    last = "time_to_last_downstream_tx_byte"
    took = getattr(common, last) if common.HasField(last) else common.duration
    fields: dict[str, Any] = {
        "listener": listener,
        "cluster": common.upstream_cluster,
        "details": response.response_code_details,
        "flags": ",".join(LONG_NAMES.get(field.name, field.name) for field, _ in common.response_flags.ListFields()),
        "grpc": answer.get("grpc-status") or response.response_trailers.get("grpc-status"),
        "host": request.authority,
        "method": base_pb2.RequestMethod.Name(request.request_method).removeprefix("METHOD_UNSPECIFIED"),
        "path": request.original_path or request.path,
        "peer": _peer(common),
        "protocol": _PROTOCOLS[entry.protocol_version] if entry.protocol_version < len(_PROTOCOLS) else "",
        "received": request.request_body_bytes,
        "request_id": request.request_id,
        "route": common.route_name,
        "sent": response.response_body_bytes,
        "status": response.response_code.value,
        "time": common.start_time.seconds + common.start_time.nanos / 1e9,
        "traceparent": request.request_headers.get("traceparent"),
        "tries": common.upstream_request_attempt_count,
        "upstream": _address(common.upstream_remote_address),
        "us": took.seconds * 1e6 + took.nanos / 1e3,
    }
    for field, header in ANSWER_HEADERS.items():
        if value := answer.get(header):
            fields[field] = value
    if rbac.NAME in common.metadata.filter_metadata:
        said = common.metadata.filter_metadata[rbac.NAME].fields
        fields |= {field: said[key].string_value for field, key in AUTHORIZATION.items() if key in said}
    return fields


def _peer(common: Any) -> str:
    for name in common.tls_properties.peer_certificate_properties.subject_alt_name:
        if name.uri:
            return str(name.uri)
    return ""


def _address(address: Any) -> str:
    socket = address.socket_address
    return f"{socket.address}:{socket.port_value}" if socket.address else ""
