"""Taps without sidecars: gives the items that it holds, and remembers what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from meshctl.wire.requests import SeenRequest, TapItem, TapSummary
from meshctl.wire.taps import TapQuery


def make_request(**changes: object) -> SeenRequest:
    values: dict[str, object] = {
        "time": 1_770_000_000.0,
        "sidecar": "checkout",
        "side": "caller",
        "source": "checkout",
        "destination": "payment",
        "version": "v1",
        "instance": "payment-v1-1",
        "method": "POST",
        "path": "/charge",
        "status": 503,
        "grpc_status": "",
        "duration_ms": 12.5,
        "flags": ["UH"],
        "reasons": ["no healthy upstream"],
        "detail": "no_healthy_upstream",
        "rule": "",
        "tries": 3,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "route": "payment",
        "protocol": "HTTP/1.1",
        "request_bytes": 10,
        "response_bytes": 19,
    }
    return SeenRequest(**{**values, **changes})  # type: ignore[arg-type]


def make_summary(**changes: object) -> TapSummary:
    values: dict[str, object] = {
        "shown": 1,
        "reported": 1,
        "passed": 1,
        "dropped": 0,
        "per_second": 100,
        "sidecars": 4,
        "silent": [],
    }
    return TapSummary(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class FakeTaps:
    items: list[TapItem] = field(default_factory=list)
    asked: list[tuple[TapQuery, int | None, float | None]] = field(default_factory=list)

    async def tap(self, query: TapQuery, *, count: int | None, seconds: float | None) -> AsyncIterator[TapItem]:
        self.asked.append((query, count, seconds))
        for item in self.items:
            yield item
