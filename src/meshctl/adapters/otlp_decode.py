"""Bodies of OTLP/HTTP -> spans, from protobuf or JSON.  No I/O.

A body that is none raises ValueError with what is wrong; a span in it that is none is counted and left out. Source:
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from meshctl.adapters.otlp_messages import Refusal, Request, Response
from meshctl.telemetry.spans import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_NAME,
    MAX_URL,
    MAX_VALUE,
    Span,
    SpanEvent,
    bound,
    make_span,
)

_ERROR = 2
# Of OTLP's status codes: unset, ok, error.

_INVALID = 3
# Of gRPC's status codes: the client sent something that is wrong.

_MAX_DEPTH = 2
# Of lists and mappings in attributes: what lies deeper is left out.


def decode_protobuf(body: bytes) -> Iterator[Span | None]:
    """The spans of a body of ``application/x-protobuf``, None for what is none, read as they are taken.

    Raises ValueError, before anything is taken, for a body that cannot be read.
    """
    request = Request()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise ValueError(f"the body is no ExportTraceServiceRequest in protobuf: {error}") from None
    return _read_spans(request)


def _read_spans(request: Any) -> Iterator[Span | None]:
    for group in request.resource_spans:
        resource = _read_attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for item in scope.spans:
                yield _read_span(item, resource)


def _read_span(item: Any, resource: Mapping[str, str]) -> Span | None:
    status = item.status
    return make_span(
        trace_id=item.trace_id.hex(),
        span_id=item.span_id.hex(),
        parent_id=item.parent_span_id.hex(),
        resource=resource,
        name=item.name,
        start_ns=item.start_time_unix_nano,
        end_ns=item.end_time_unix_nano,
        failed=status.code == _ERROR,
        message=status.message,
        attributes=_read_attributes(item.attributes),
        events=[
            SpanEvent(
                time_ns=event.time_unix_nano,
                name=event.name[:MAX_NAME],
                attributes=_read_attributes(event.attributes, most=MAX_EVENTS),
            )
            for event in item.events[:MAX_EVENTS]
        ],
    )


def _read_attributes(items: Any, *, most: int = MAX_ATTRIBUTES) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items[:most]:
        # Most values are texts: those of sidecars all are.
        value = item.value
        text = value.string_value
        if not text:
            text = _write(value, 0)
        key = item.key
        if len(text) > MAX_VALUE or len(key) > MAX_NAME:
            key, text = bound(key, text)
        found[key] = text
    return found


def _write(value: Any, depth: int) -> str:
    kind = value.WhichOneof("value") or "string_value"
    found = getattr(value, kind)
    if kind == "bool_value":
        return "true" if found else "false"
    if kind == "bytes_value":
        return str(found[:MAX_VALUE].hex())
    if kind not in ("array_value", "kvlist_value"):
        return str(found)
    if depth >= _MAX_DEPTH:
        return "…"
    items = found.values[:MAX_EVENTS]
    if kind == "array_value":
        return _join(_write(item, depth + 1) for item in items)
    return _join(f"{item.key}={_write(item.value, depth + 1)}" for item in items)


def _join(texts: Iterable[str]) -> str:
    return ", ".join(texts)[:MAX_URL]


# ---------------------------------------------------------------------------------------------------------- JSON


class _Value(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: Any = None
    kvlist_value: Any = None
    bytes_value: str | None = None


class _Attribute(msgspec.Struct):
    key: str = ""
    value: _Value = msgspec.field(default_factory=_Value)


class _Event(msgspec.Struct, rename="camel"):
    time_unix_nano: int | str = 0
    name: str = ""
    attributes: list[_Attribute] = []


class _Status(msgspec.Struct):
    code: int | str = 0
    message: str = ""


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_Attribute] = []
    events: list[_Event] = []
    status: _Status = msgspec.field(default_factory=_Status)


class _Scope(msgspec.Struct):
    spans: list[_Span] = []


class _Resource(msgspec.Struct):
    attributes: list[_Attribute] = []


class _Group(msgspec.Struct, rename="camel"):
    resource: _Resource = msgspec.field(default_factory=_Resource)
    scope_spans: list[_Scope] = []


class _Body(msgspec.Struct, rename="camel"):
    resource_spans: list[_Group] = []


_JSON = msgspec.json.Decoder(_Body)


def decode_json(body: bytes) -> Iterator[Span | None]:
    """The spans of a body of ``application/json``, like ``decode_protobuf``.

    As OTLP has it, ids are hexadecimal, whole numbers may be texts, and unknown keys are passed over.
    """
    try:
        request = _JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the body is no ExportTraceServiceRequest in JSON: {error}") from None
    return _spans_of_json(request)


def _spans_of_json(request: _Body) -> Iterator[Span | None]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for item in scope.spans:
                yield _span_of_json(item, resource)


def _span_of_json(item: _Span, resource: Mapping[str, str]) -> Span | None:
    start, end = _whole(item.start_time_unix_nano), _whole(item.end_time_unix_nano)
    if start is None or end is None:
        return None
    return make_span(
        trace_id=item.trace_id.lower(),
        span_id=item.span_id.lower(),
        parent_id=item.parent_span_id.lower(),
        resource=resource,
        name=item.name,
        start_ns=start,
        end_ns=end,
        failed=item.status.code in (_ERROR, str(_ERROR), "STATUS_CODE_ERROR"),
        message=item.status.message,
        attributes=_attributes(item.attributes),
        events=[
            SpanEvent(
                time_ns=_whole(event.time_unix_nano) or start,
                name=event.name[:MAX_NAME],
                attributes=_attributes(event.attributes[:MAX_EVENTS]),
            )
            for event in item.events[:MAX_EVENTS]
        ],
    )


def _attributes(items: list[_Attribute]) -> dict[str, str]:
    return dict(bound(item.key, _text(item.value)) for item in items[:MAX_ATTRIBUTES])


def _text(value: _Value) -> str:
    if value.string_value is not None:
        return value.string_value
    if value.bool_value is not None:
        return "true" if value.bool_value else "false"
    for found in (value.int_value, value.double_value, value.bytes_value):
        if found is not None:
            return str(found)
    nested = value.array_value if value.array_value is not None else value.kvlist_value
    return "" if nested is None else msgspec.json.encode(nested).decode()[:MAX_URL]


_LARGEST = (1 << 64) - 1


def _whole(value: int | str) -> int | None:
    """A time in nanoseconds, None for what is none."""
    try:
        number = int(value)
    except ValueError:
        return None
    return number if 0 <= number <= _LARGEST else None


def encode_answer(rejected: int, why: str, *, as_json: bool) -> bytes:
    """What a collector answers: nothing, or how many spans it did not take and why."""
    if as_json:
        body = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": why}} if rejected else {}
        return msgspec.json.encode(body)
    answer = Response()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = why
    data: bytes = answer.SerializeToString()
    return data


def encode_refusal(message: str, *, as_json: bool) -> bytes:
    """The body of an answer that refuses: a google.rpc.Status, as OTLP has it."""
    if as_json:
        return msgspec.json.encode({"code": _INVALID, "message": message})
    data: bytes = Refusal(code=_INVALID, message=message).SerializeToString()
    return data
