"""The faults of a control plane without processes: one that is on from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshctl.errors import ConflictError, NotFoundError
from meshctl.wire.faults import (
    ClearRequest,
    ClearResult,
    FaultedCalls,
    FaultForecast,
    FaultList,
    FaultOutcome,
    InjectRequest,
    InjectResult,
)
from meshctl.wire.models import FaultShape


def make_fault(fault_id: str, **changes: Any) -> FaultShape:
    values: dict[str, Any] = {
        "id": fault_id,
        "kind": "http",
        "subject": "payment",
        "services": ["payment"],
        "summary": "delay 300ms, 20% of requests",
        "state": "on",
        "started_at": 1_700_000_000.0,
        "ends_at": 1_700_000_300.0,
        "remaining": 290.0,
        "author": "ann@inject fault",
        "reason": "is the timeout long enough?",
        "origin": "command",
    }
    return FaultShape(**{**values, **changes})


def make_forecast(**changes: Any) -> FaultForecast:
    values: dict[str, Any] = {
        "outcomes": [FaultOutcome(what="nothing", share=0.8), FaultOutcome(what="abort 503", share=0.2)],
        "calls": [
            FaultedCalls(which="GET, PUT, DELETE, Idempotency-Key", attempts=3, fails=0.008),
            FaultedCalls(which="POST, PATCH", attempts=1, fails=0.2),
        ],
        "notes": ["health checks are not hit: /health (--health-checks hits them too)"],
        "danger": "",
    }
    return FaultForecast(**{**values, **changes})


class FakeFaults:
    """Fits api.backend.FaultBackend; ``gateway`` stands for what wants a confirmation."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note
        self.faults: list[FaultShape] = []
        self.rollout = ""

    def list(self) -> FaultList:
        return FaultList(faults=self.faults)

    async def inject(self, request: InjectRequest) -> InjectResult:
        self._note("inject", request)
        danger = "every request from outside will fail" if request.service == "gateway" else ""
        if self.rollout and not request.force:
            raise ConflictError(self.rollout, hint="inject it with --force")
        if danger and not (request.confirmed or request.dry_run):
            raise ConflictError(f"{danger}: that wants a confirmation", hint="add --yes")
        fault = make_fault(request.name or "f1", subject=request.service, services=[request.service])
        if not request.dry_run:
            self.faults = [*self.faults, fault]
        return InjectResult(
            fault=None if request.dry_run else fault,
            subject=request.service,
            summary=fault.summary,
            forecast=make_forecast(danger=danger),
            acked=0 if request.dry_run else 2,
            duration_ms=0.0 if request.dry_run else 12.0,
        )

    async def clear(self, request: ClearRequest) -> ClearResult:
        self._note("clear", request)
        missing = [item for item in request.ids if item not in {fault.id for fault in self.faults}]
        if missing:
            known = ", ".join(fault.id for fault in self.faults) or "none"
            raise NotFoundError(f"no fault {missing[0]} is on", hint=f"faults that are on: {known}")
        gone = [fault for fault in self.faults if not request.ids or fault.id in request.ids]
        self.faults = [fault for fault in self.faults if fault not in gone]
        return ClearResult(faults=gone, acked=2 if gone else 0, duration_ms=9.0)
