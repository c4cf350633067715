"""Spans for tests, by small numbers."""

from __future__ import annotations

from meshctl.telemetry.spans import Kind, Span


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int) -> str:
    return f"{number:016x}" if number else ""


def make_span(
    trace: int,
    number: int,
    *,
    parent: int = 0,
    kind: Kind = "caller",
    service: str = "frontend",
    instance: str = "",
    listener: str = "outbound",
    name: str = "GET",
    start: int = 0,
    end: int = 1_000_000,
    failed: bool = False,
    text: int = 0,
    attributes: dict[str, str] | None = None,
    message: str = "",
) -> Span:
    return Span(
        trace_id=trace_id(trace),
        span_id=span_id(number),
        parent_id=span_id(parent),
        kind=kind,
        service=service,
        instance=instance,
        listener=listener,
        name=name,
        start_ns=start,
        end_ns=max(start, end),
        failed=failed,
        message=message,
        attributes=attributes or {},
        events=(),
        size=1000 + text,
    )
