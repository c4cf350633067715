"""Traces without sidecars: those that it holds, whatever is asked, which it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshctl.errors import NotFoundError
from meshctl.wire.traces import SpanRow, Trace, TraceList, TraceQuery, TraceSummary

T0 = 1_770_000_000.0
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def make_row(**changes: object) -> SpanRow:
    values: dict[str, object] = {
        "id": "00f067aa0ba902b7",
        "parent": "",
        "depth": 0,
        "kind": "caller",
        "service": "gateway",
        "source": "gateway",
        "destination": "frontend",
        "version": "v1",
        "instance": "",
        "name": "GET /",
        "attempt": 0,
        "start_ms": 0.0,
        "duration_ms": 100.0,
        "status": 200,
        "failed": False,
        "late": False,
        "placed": "",
        "notes": [],
        "attributes": {},
        "events": [],
    }
    return SpanRow(**{**values, **changes})  # type: ignore[arg-type]


def make_trace(*rows: SpanRow, **changes: object) -> Trace:
    values: dict[str, object] = {
        "id": TRACE_ID,
        "time": T0,
        "duration_ms": 100.0,
        "failed": False,
        "complete": True,
        "missing": [],
        "services": ["frontend", "gateway"],
        "spans": list(rows) or [make_row()],
    }
    return Trace(**{**values, **changes})  # type: ignore[arg-type]


def make_summary(**changes: object) -> TraceSummary:
    values: dict[str, object] = {
        "id": TRACE_ID,
        "time": T0,
        "duration_ms": 45.0,
        "service": "frontend",
        "name": "POST /orders",
        "status": 201,
        "failed": False,
        "slow": False,
        "complete": True,
        "services": ["checkout", "frontend"],
        "spans": 12,
        "failed_spans": 0,
        "notes": [],
    }
    return TraceSummary(**{**values, **changes})  # type: ignore[arg-type]


def make_list(*traces: TraceSummary, **changes: object) -> TraceList:
    values: dict[str, object] = {
        "traces": list(traces),
        "found": len(traces),
        "kept": len(traces),
        "kept_spans": sum(item.spans for item in traces),
        "kept_bytes": 12_000,
        "evicted": 0,
        "dropped": 0,
        "dropped_bodies": 0,
        "forward_dropped": 0,
        "mode": "adaptive",
        "sampling": [],
        "endpoint": "http://127.0.0.1:20099",
    }
    return TraceList(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class FakeTracing:
    listed: TraceList = field(default_factory=make_list)
    traces: dict[str, Trace] = field(default_factory=dict)
    asked: list[TraceQuery | str] = field(default_factory=list)

    def list(self, query: TraceQuery) -> TraceList:
        self.asked.append(query)
        return self.listed

    def get(self, trace_id: str) -> Trace:
        self.asked.append(trace_id)
        for name, found in self.traces.items():
            if name.startswith(trace_id):
                return found
        raise NotFoundError(f"there is no trace {trace_id}", hint="meshctl traces shows which there are")


@dataclass
class FakeReceiver:
    """Takes spans of nobody; ``taken_ports`` cannot be opened."""

    dropped: int = 0
    port: int = 0
    taken_ports: set[int] = field(default_factory=set)
    take: object = None
    forward: object = None

    def connect(self, take: object, forward: object) -> None:
        self.take, self.forward = take, forward

    async def open_port(self, port: int) -> None:
        if port in self.taken_ports:
            raise OSError(98, "Address already in use")
        self.port = port

    async def close_port(self) -> None:
        self.port = 0
