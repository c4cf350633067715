"""The circuit breakers of a control plane without processes: one in each state, and one held open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshctl.wire.circuits import CircuitList, CircuitShape, ForceRequest
from meshctl.wire.models import AppliedResult


def make_circuit(caller: str, service: str, **changes: Any) -> CircuitShape:
    values: dict[str, Any] = {
        "caller": caller,
        "service": service,
        "state": "closed",
        "forced": "auto",
        "failures": 0,
        "failure_threshold": 5,
        "successes": 0,
        "success_threshold": 2,
        "window_calls": 0,
        "window_failed": 0,
        "retry_in": None,
        "failed": 0,
        "rejected": 0,
        "changed_at": None,
        "reason": "",
    }
    return CircuitShape(**{**values, **changes})


class FakeCircuits:
    """Fits api.backend.CircuitBackend."""

    def __init__(self, note: Callable[[str, object], None], since: float) -> None:
        self._note = note
        self.circuits = [
            make_circuit(
                "checkout",
                "payment",
                state="open",
                retry_in=12.4,
                failed=7,
                rejected=30,
                changed_at=since,
                reason="5 failures in a row",
            ),
            make_circuit("frontend", "catalog", failures=2, failed=2),
            make_circuit(
                "frontend",
                "checkout",
                state="half_open",
                successes=1,
                failed=5,
                rejected=4,
                changed_at=since,
                reason="calls may try again after 30s",
            ),
            make_circuit("gateway", "frontend", state="open", forced="open"),
        ]

    def list(self, service: str) -> CircuitList:
        self._note("circuits.list", service)
        return CircuitList(circuits=[item for item in self.circuits if service in ("", item.service)])

    async def force(self, request: ForceRequest) -> AppliedResult:
        self._note("circuits.force", request)
        return AppliedResult(
            message=f"the circuit to {request.service} is held {request.forced}", acked=2, total=2, duration_ms=12.0
        )
