"""How a sidecar tells that somebody was refused: in the answer, and in its log.  Pure.

Both are parts of inbound listeners, which are made once; what is refused is decided by the rules that routes hold.
Envoy sets the metadata of a refusal only after the answer is made, so the answer names the rule by its details,
``rbac_access_denied_matched_policy[...]``, and the log by metadata. A refused request is a line of the access log like
any other, and is written whatever else is logged (``request_logs``); a refused connection has a line of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.filters import rbac
from meshctl.plan.policies.authorization import DENIED_HEADER


def refused_reply(listener: str) -> Any:
    """The answer to a request that was refused: who asked for what, where, and which rule said no."""
    instance = listener.partition("/")[2]
    body = (
        f"meshctl: {instance} refused %REQ(:METHOD)% %REQ(:PATH)% of %DOWNSTREAM_PEER_URI_SAN%: "
        "%RESPONSE_CODE_DETAILS%\n"
    )
    return pb.http_connection_manager_pb2.ResponseMapper(
        filter=_expression('response.code_details.startsWith("rbac_access_denied")'),
        headers_to_add=[
            pb.base_pb2.HeaderValueOption(
                header=pb.base_pb2.HeaderValue(key=DENIED_HEADER, value="%RESPONSE_CODE_DETAILS%")
            )
        ],
        body_format_override=pb.substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=pb.base_pb2.DataSource(inline_string=body), content_type="text/plain; charset=utf-8"
        ),
    )


def refused_connection_log(listener: str) -> Any:
    """A line of JSON for every connection to a service of plain TCP whose client is not on the list of its peers."""
    shown = {
        "meshctl": "authorization",
        "instance": listener.partition("/")[2],
        "refused": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
        "from": "%DOWNSTREAM_PEER_URI_SAN%",
    }
    return _log(shown, _expression('connection.transport_failure_reason != ""'))


def was_refused() -> Any:
    """Whether a request was refused, or would have been if the rules did not only audit; for its line in the log."""
    either = pb.accesslog_pb2.OrFilter(filters=[_denied("enforced_engine_result"), _denied("shadow_engine_result")])
    return pb.accesslog_pb2.AccessLogFilter(or_filter=either)


def _log(shown: Mapping[str, str], which: Any) -> Any:
    form = pb.substitution_format_string_pb2.SubstitutionFormatString(
        json_format=pb.struct_pb2.Struct(
            fields={key: pb.struct_pb2.Value(string_value=value) for key, value in shown.items()}
        )
    )
    return pb.accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stdout",
        filter=which,
        typed_config=pb.any_of(pb.stream_pb2.StdoutAccessLog(log_format=form)),
    )


def _expression(text: str) -> Any:
    extension = pb.accesslog_pb2.ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=pb.any_of(pb.cel_pb2.ExpressionFilter(expression=text)),
    )
    return pb.accesslog_pb2.AccessLogFilter(extension_filter=extension)


def _denied(key: str) -> Any:
    matcher = pb.metadata_pb2.MetadataMatcher(
        filter=rbac.NAME,
        path=[pb.metadata_pb2.MetadataMatcher.PathSegment(key=key)],
        value=pb.value_pb2.ValueMatcher(string_match=pb.string_pb2.StringMatcher(exact="denied")),
    )
    return pb.accesslog_pb2.AccessLogFilter(
        metadata_filter=pb.accesslog_pb2.MetadataFilter(matcher=matcher, match_if_key_not_found=pb.bool_value(False))
    )
