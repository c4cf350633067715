"""A span as it is kept, whoever made it: a sidecar, or a service by itself.  Pure.

Enters: ids, times and attributes as OTLP has them.  Leaves: a Span, or None for one that is none. Whatever others
choose has a bound, so that no span is larger than a few kilobytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from meshctl.envoy.tracing import SEEN, SEPARATOR, TAG, seen_fields
from meshctl.plan.policies.mirror import mirrored_by
from meshctl.telemetry.tally import is_grpc_failure

Kind = Literal["caller", "callee", "own"]
"""Who saw what: the sidecar of a caller its request, or a copy of it that it made; the sidecar of an instance what came
to it, each try of a request by itself; a service what it did."""

MAX_ATTRIBUTES = 32
MAX_EVENTS = 16
MAX_NAME = 128
MAX_VALUE = 512
MAX_URL = 1024
"""Of one span: how many attributes and events are kept, and how many characters of texts."""

_NO_MEANING = frozenset({"component", "zone", "downstream_cluster", "upstream_cluster.name", "node_id", SEEN})
_FIRST_FAILURE = 500
_SPAN_BYTES = 700
# What a span takes in memory besides its texts.

_TEXTS = 4096
# Texts that are known again.

_ID = re.compile(r"[0-9a-f]{16}")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened at a moment of a span, nanoseconds since the epoch."""

    time_ns: int
    name: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span. Ids are lower-case hexadecimal; ``parent_id`` is empty for the first of a trace.

    ``service`` made it, or its sidecar did; ``instance`` and ``listener`` are empty where they are not known. Times are
    nanoseconds since the epoch. ``size`` is about how many bytes of memory it takes.
    """

    trace_id: str
    span_id: str
    parent_id: str
    kind: Kind
    service: str
    instance: str
    listener: str
    name: str
    start_ns: int
    end_ns: int
    failed: bool
    message: str
    attributes: Mapping[str, str]
    events: Sequence[SpanEvent]
    size: int


def make_span(
    *,
    trace_id: str,
    span_id: str,
    parent_id: str,
    resource: Mapping[str, str],
    name: str,
    start_ns: int,
    end_ns: int,
    failed: bool,
    message: str,
    attributes: Mapping[str, str],
    events: Sequence[SpanEvent] = (),
) -> Span | None:
    """A span, given what OTLP says of it; None when its ids are none.

    ``attributes`` and ``resource`` are texts, bounded already (``bound``).
    """
    if not _TRACE_ID.fullmatch(trace_id) or not _ID.fullmatch(span_id) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    listener, *values = attributes.get(SEEN, "").split(SEPARATOR)
    if listener or is_copy(attributes):
        kind: Kind = "callee" if listener.startswith("inbound/") else "caller"
        seen = zip(seen_fields(listener), values, strict=False)
        instance = listener.removeprefix("inbound/") if kind == "callee" else ""
        attributes = {
            key: value
            for key, value in (*attributes.items(), *((TAG + field, value) for field, value in seen))
            if key not in _NO_MEANING and value not in ("", "-")
        }
        # Envoy takes every gRPC status but OK for a failure, those that are the caller's own mistake, too.
        code = attributes.get("grpc.status_code", "")
        failed = has_failed(attributes.get("http.status_code", "0")) or (
            is_grpc_failure(int(code)) if code.isdecimal() else failed
        )
    else:
        kind, instance = "own", resource.get("service.instance.id", "")
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id if _ID.fullmatch(parent_id) and int(parent_id, 16) else "",
        kind=kind,
        service=resource.get("service.name", "")[:MAX_NAME],
        instance=instance[:MAX_NAME],
        listener=listener,
        name=_same(name[:MAX_NAME]),
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        failed=failed,
        message=message[:MAX_VALUE],
        attributes={_same(key): _same(value) for key, value in attributes.items()},
        events=events,
        size=_SPAN_BYTES + sum(60 + len(key) + len(value) for key, value in attributes.items()) + 400 * len(events),
    )


def is_copy(attributes: Mapping[str, str]) -> bool:
    """Whether a span is of a copy that a sidecar made: Envoy makes those by itself, and tags them in its own way."""
    return attributes.get("component") == "proxy" and mirrored_by(attributes.get("upstream_cluster", ""))[0] != ""


def has_failed(status: str) -> bool:
    """Whether an HTTP status, as a sidecar writes it, tells of a failure: none at all (``0``), or one from 500."""
    return not status.isdecimal() or int(status) == 0 or int(status) >= _FIRST_FAILURE


def bound(key: str, value: str) -> tuple[str, str]:
    """An attribute in a length that is kept."""
    return key[:MAX_NAME], value[: MAX_URL if key == "http.url" else MAX_VALUE]


@lru_cache(maxsize=_TEXTS)
def _same(text: str) -> str:
    """The text, as one object for all that have it: spans say the same over and over, which would take most room."""
    return text
