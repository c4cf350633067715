"""Shifts of traffic that are always in effect at once."""

from __future__ import annotations

from collections.abc import Callable

from meshctl.wire.policies import PolicyChangeShape
from meshctl.wire.shifts import MirrorRequest, MirrorTraffic, ShiftRequest, Traffic, TrafficResult


class FakeShifts:
    """Fits api.backend.ShiftBackend: a service with v1, which is stable, and v2; ``note`` is told of every call."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note
        self.started: list[str] = []
        self.idle: list[str] = []
        self.notes: list[str] = []
        self.changes: list[PolicyChangeShape] = []
        self.before = Traffic(weights={"v1": 100, "v2": 0})

    async def shift(self, request: ShiftRequest) -> TrafficResult:
        self._note("shift", request)
        rest = 100 - sum(request.weights.values())
        return self._tell(request, Traffic(weights={"v1": rest, **request.weights}))

    async def mirror(self, request: MirrorRequest) -> TrafficResult:
        self._note("mirror", request)
        mirror = MirrorTraffic(version=request.version, percent=request.percent) if request.version else None
        return self._tell(request, Traffic(weights=self.before.weights, mirror=mirror))

    def _tell(self, request: ShiftRequest | MirrorRequest, after: Traffic) -> TrafficResult:
        return TrafficResult(
            service=request.service,
            stable="v1",
            before=self.before,
            after=after,
            started=self.started,
            waited_ms=1234.0 if self.started else 0.0,
            idle=self.idle,
            notes=self.notes,
            revision=8,
            changes=self.changes,
            acked=2,
            total=2,
            duration_ms=12.3,
        )
