"""The part of OTLP's messages that a collector of spans reads, as protobuf classes of their own.

The packages that carry the generated classes are of different ages and register the same names, so that two of them
cannot be loaded at once. What is on the wire is the same for all since OTLP 1.0: field numbers, which these tables
hold. Fields that nobody reads here are skipped as unknown. Source:
https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto (trace, resource, common)
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "meshctl.otlp"
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "bool": _FIELD.TYPE_BOOL,
    "int64": _FIELD.TYPE_INT64,
    "double": _FIELD.TYPE_DOUBLE,
    "fixed64": _FIELD.TYPE_FIXED64,
    "int32": _FIELD.TYPE_INT32,
}

_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "AnyValue": (
        ("string_value", 1, "string"),
        ("bool_value", 2, "bool"),
        ("int_value", 3, "int64"),
        ("double_value", 4, "double"),
        ("array_value", 5, "ArrayValue"),
        ("kvlist_value", 6, "KeyValueList"),
        ("bytes_value", 7, "bytes"),
    ),
    "ArrayValue": (("values", 1, "AnyValue*"),),
    "KeyValueList": (("values", 1, "KeyValue*"),),
    "KeyValue": (("key", 1, "string"), ("value", 2, "AnyValue")),
    "Resource": (("attributes", 1, "KeyValue*"),),
    "Event": (("time_unix_nano", 1, "fixed64"), ("name", 2, "string"), ("attributes", 3, "KeyValue*")),
    # The code is an enum, which is a number on the wire.
    "Status": (("message", 2, "string"), ("code", 3, "int32")),
    "Span": (
        ("trace_id", 1, "bytes"),
        ("span_id", 2, "bytes"),
        ("parent_span_id", 4, "bytes"),
        ("name", 5, "string"),
        ("start_time_unix_nano", 7, "fixed64"),
        ("end_time_unix_nano", 8, "fixed64"),
        ("attributes", 9, "KeyValue*"),
        ("events", 11, "Event*"),
        ("status", 15, "Status"),
    ),
    "ScopeSpans": (("spans", 2, "Span*"),),
    "ResourceSpans": (("resource", 1, "Resource"), ("scope_spans", 2, "ScopeSpans*")),
    "ExportTraceServiceRequest": (("resource_spans", 1, "ResourceSpans*"),),
    # google.rpc.Status, with which a body is refused.
    "Refusal": (("code", 1, "int32"), ("message", 2, "string")),
    "ExportTracePartialSuccess": (("rejected_spans", 1, "int64"), ("error_message", 2, "string")),
    "ExportTraceServiceResponse": (("partial_success", 1, "ExportTracePartialSuccess"),),
}
"""Name, number and type of each field; a ``*`` stands for repeated."""

_ONE_OF = "AnyValue"
# All its fields are one choice.


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="meshctl/otlp.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == _ONE_OF:
            message.oneof_decl.add(name="value")
        for field_name, number, kind in fields:
            label = _FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL
            added = message.field.add(name=field_name, number=number, label=label)
            plain = kind.removesuffix("*")
            if plain in _SCALARS:
                added.type = _SCALARS[plain]
            else:
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{plain}"
            if name == _ONE_OF:
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _build()

Request: Any = _CLASSES["ExportTraceServiceRequest"]
Response: Any = _CLASSES["ExportTraceServiceResponse"]
Refusal: Any = _CLASSES["Refusal"]
"""What is sent to a collector, and what it answers."""
