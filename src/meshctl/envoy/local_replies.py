"""What a sidecar adds to the answers that it gives itself, so that they can be told from those of services.  Pure.

Envoy puts such an answer to the first mapper whose filter matches. By flags: UF, the connection to the instance
failed; UH, it is not healthy; UO, a cap was reached; UT, the answer was late. Where Envoy sets no flag, or sets it too
late, an answer is known by its details, which takes an expression in CEL. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/local_reply
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters.fault import FAULT_HEADER
from meshctl.envoy.filters.rate_limit import NAME_HEADER
from meshctl.envoy.refusals import refused_reply
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.retry import NOT_REACHED_HEADER

OVERLOADED_HEADER = "x-meshctl-overloaded"
"""Says what there was too much of: ``limits``, ``adaptive-concurrency`` or ``sidecar``."""

LATE_HEADER = "x-meshctl-late"
"""Set on the answer of an instance's sidecar that kept the time, when the instance was later than the deadline: the
caller's sidecar, which has the same deadline, is a moment later at times."""

_MAPPER = pb.http_connection_manager_pb2.ResponseMapper

_SIDECAR = "meshctl: the sidecar is short of memory and takes no requests for now.\n"
_CAPS = (
    "meshctl: more is under way from here to %UPSTREAM_CLUSTER_RAW% than its limits allow (max_connections, "
    "max_pending_requests, max_requests). This is no failure of the service, and not its circuit breaker.\n"
)
_ADAPTIVE = "meshctl: the instance has as many requests as it can take (limits.adaptive_concurrency).\n"
_RATE = f"meshctl: the rate limit %RESP({NAME_HEADER})% is used up; try again in %RESP(retry-after)% s.\n"
_FAULT = f"meshctl: the fault %RESP({FAULT_HEADER})% made this answer, not the service (see: meshctl inject list).\n"
_TOO_LARGE = "meshctl: the request body is longer than the service takes (limits.max_request_bytes).\n"


def build_local_replies(plan: HttpListener) -> Any:
    """What the answers of a listener's own are given."""
    mappers = [
        _overloaded(_details("overload"), "sidecar", _SIDECAR),
        _MAPPER(filter=_flags("FI"), body_format_override=_text(_FAULT)),
    ]
    if plan.role == "inbound":
        # The request was never handed over, which the caller's sidecar cannot tell from the status alone.
        not_reached = (NOT_REACHED_HEADER, "1")
        mappers.append(_MAPPER(filter=_flags("UF", "UH"), headers_to_add=[_header(*not_reached)]))
        adaptive = _overloaded(_details("reached_concurrency_limit"), "adaptive-concurrency", _ADAPTIVE)
        adaptive.headers_to_add.append(_header(*not_reached))
        mappers += [
            _MAPPER(filter=_flags("UT"), headers_to_add=[_header(LATE_HEADER, "1")]),
            refused_reply(plan.name),
            adaptive,
            _MAPPER(filter=_details("local_rate_limited"), body_format_override=_text(_RATE)),
            _MAPPER(filter=_details("request_payload_too_large"), body_format_override=_text(_TOO_LARGE)),
        ]
    else:
        mappers.append(_overloaded(_flags("UO"), "limits", _CAPS))
    return pb.http_connection_manager_pb2.LocalReplyConfig(mappers=mappers)


def _overloaded(which: Any, value: str, body: str) -> Any:
    return _MAPPER(filter=which, headers_to_add=[_header(OVERLOADED_HEADER, value)], body_format_override=_text(body))


def _flags(*flags: str) -> Any:
    return pb.accesslog_pb2.AccessLogFilter(response_flag_filter=pb.accesslog_pb2.ResponseFlagFilter(flags=flags))


def _details(details: str) -> Any:
    expression = pb.cel_pb2.ExpressionFilter(expression=f'response.code_details == "{details}"')
    extension = pb.accesslog_pb2.ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel", typed_config=pb.any_of(expression)
    )
    return pb.accesslog_pb2.AccessLogFilter(extension_filter=extension)


def _text(body: str) -> Any:
    return pb.substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=pb.base_pb2.DataSource(inline_string=body), content_type="text/plain; charset=utf-8"
    )


def _header(name: str, value: str) -> Any:
    return pb.base_pb2.HeaderValueOption(header=pb.base_pb2.HeaderValue(key=name, value=value))
