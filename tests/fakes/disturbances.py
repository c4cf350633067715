"""Disturbances of a control plane without processes."""

from __future__ import annotations

from collections.abc import Callable

from meshctl.wire.disturbances import DisturbRequest, DisturbResult


class FakeDisturbances:
    """Fits api.backend.DisturbanceBackend: whatever is asked for is so."""

    def __init__(self, note: Callable[[str, object], None], now: float) -> None:
        self._note = note
        self._now = now

    async def disturb(self, request: DisturbRequest) -> DisturbResult:
        self._note("disturb", request)
        at_once = request.kind in ("kill", "exit")
        return DisturbResult(
            id="" if at_once else request.name or "f1",
            kind=request.kind,
            subject=request.target,
            message=f"{request.target}: {request.kind}",
            instances=[f"{request.target}-v1-1"],
            ends_at=None if at_once else self._now + request.duration,
            acked=0 if at_once else 2,
            note="its restart policy starts it again" if at_once else "",
            duration_ms=12.0,
        )
