"""Rollouts that stand as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from meshctl.errors import NotFoundError
from meshctl.wire.rollouts import (
    ENDED,
    ChangeRequest,
    RolloutDecision,
    RolloutFinding,
    RolloutHistory,
    RolloutList,
    RolloutRecord,
    RolloutSettings,
    RolloutStatus,
    RolloutVerdict,
    StartRequest,
    VersionFigures,
)

T0 = 1_700_000_000.0


def make_settings(**changes: Any) -> RolloutSettings:
    """The default settings."""
    base = RolloutSettings(
        steps=[5, 10, 25, 50, 100],
        interval=10.0,
        window=300.0,
        max_error_ratio=1.1,
        max_p99_ratio=1.2,
        alpha=0.01,
        min_requests=100,
        on_failure="rollback",
        deadline=3600.0,
        count_faults=False,
    )
    return msgspec.structs.replace(base, **changes)


def make_finding(**changes: Any) -> RolloutFinding:
    """A test that finds no difference."""
    base = RolloutFinding(
        evidence=1.0, threshold=200.0, canary=0.01, stable=0.01, bound=0.011, exceeded=False, failed=False
    )
    return msgspec.structs.replace(base, **changes)


def make_verdict(**changes: Any) -> RolloutVerdict:
    """One that holds for want of requests."""
    base = RolloutVerdict(
        action="hold",
        why="37 of 100 requests at this step",
        errors=make_finding(),
        latency=make_finding(canary=21.0, stable=20.0, bound=24.0),
        requests=37,
        wanted=100,
        stable_requests=340,
        lasted=40.0,
        needed=300.0,
        pairing="paired",
    )
    return msgspec.structs.replace(base, **changes)


def make_decision(number: int = 1, **changes: Any) -> RolloutDecision:
    """A tick that held."""
    verdict = make_verdict()
    base = RolloutDecision(
        number=number, time=T0 + 40, event="tick", phase="running", weight=10, why=verdict.why, verdict=verdict
    )
    return msgspec.structs.replace(base, **changes)


def make_rollout(**changes: Any) -> RolloutStatus:
    """Checkout goes from v1 to v2, and is at its second step."""
    decision = make_decision(7)
    base = RolloutStatus(
        number=3,
        service="checkout",
        version="v2",
        stable="v1",
        revision="4f1c9a",
        settings=make_settings(),
        author="ann@canary start",
        reason="new prices",
        started_at=T0,
        phase="running",
        pause="",
        why=decision.why,
        step=1,
        weight=10,
        applied=10,
        next_weight=25,
        since=T0,
        next_at=T0 + 50,
        deadline_at=T0 + 3600,
        ended_at=None,
        requests=37,
        stable_requests=340,
        latest=decision,
        verdict=decision.verdict,
        versions=[
            VersionFigures(
                version="v2", weight=10, window=40, requests=37, rate=0.9, success=0.99, p50_ms=8.0, p99_ms=21.0
            ),
            VersionFigures(
                version="v1", weight=90, window=40, requests=340, rate=8.5, success=0.99, p50_ms=7.5, p99_ms=20.0
            ),
        ],
    )
    return msgspec.structs.replace(base, **changes)


class FakeRollouts:
    """Fits api.backend.RolloutBackend; ``note`` is told of every call. ``coming`` is what a stream sends."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note
        self.rollouts: dict[str, RolloutStatus] = {"checkout": make_rollout()}
        self.decisions: list[RolloutDecision] = [make_decision(1), make_decision(2)]
        self.coming: list[RolloutStatus] = []
        self.replaced: RolloutStatus | None = None
        """One that another took the place of."""

    async def start(self, request: StartRequest) -> RolloutStatus:
        self._note("rollouts.start", request)
        settings = {
            name: value for name in RolloutSettings.__struct_fields__ if (value := getattr(request, name)) is not None
        }
        made = make_rollout(
            number=4,
            service=request.service,
            version=request.version,
            settings=make_settings(**settings),
            author=request.author,
            reason=request.reason,
            phase="running",
            why="at 5%",
            weight=5,
            applied=5,
            step=0,
            latest=None,
            verdict=None,
        )
        self.rollouts[request.service] = made
        return made

    def list(self, service: str = "") -> RolloutList:
        self._note("rollouts.list", service)
        return RolloutList(rollouts=[r for name, r in sorted(self.rollouts.items()) if service in ("", name)])

    def history(self, service: str = "", number: int = 0) -> RolloutHistory:
        self._note("rollouts.history", (service, number))
        known = [*([self.replaced] if self.replaced is not None else []), *self.rollouts.values()]
        found = [r for r in known if service in ("", r.service) and number in (0, r.number)]
        return RolloutHistory(rollouts=[RolloutRecord(rollout=r, decisions=self.decisions) for r in found])

    async def stream(self, service: str, interval: float = 1.0) -> AsyncIterator[RolloutStatus]:
        self._note("rollouts.stream", (service, interval))
        yield self._find(service)
        for status in self.coming:
            self.rollouts[service] = status
            yield status
        if self._find(service).phase not in ENDED:
            await asyncio.Event().wait()

    async def pause(self, request: ChangeRequest) -> RolloutStatus:
        return self._change("pause", request, phase="paused", pause="by_hand", why="paused by hand")

    async def resume(self, request: ChangeRequest) -> RolloutStatus:
        return self._change("resume", request, phase="running", pause="", why="goes on")

    async def promote(self, request: ChangeRequest) -> RolloutStatus:
        if request.full:
            return self._change("promote", request, phase="promoted", weight=100, applied=100, ended_at=T0 + 60)
        return self._change("promote", request, weight=25, applied=25, step=2)

    async def roll_back(self, request: ChangeRequest) -> RolloutStatus:
        return self._change("rollback", request, phase="rolled_back", weight=0, applied=0, ended_at=T0 + 60)

    async def retry(self, request: ChangeRequest) -> RolloutStatus:
        return self._change("retry", request, number=4, phase="running", weight=5, applied=5, step=0)

    def _change(self, verb: str, request: ChangeRequest, **changes: Any) -> RolloutStatus:
        self._note(f"rollouts.{verb}", request)
        self.rollouts[request.service] = msgspec.structs.replace(self._find(request.service), **changes)
        return self.rollouts[request.service]

    def _find(self, service: str) -> RolloutStatus:
        if service not in self.rollouts:
            raise NotFoundError(f"{service} has had no rollout", hint=f"begin one: meshctl canary start {service} v2")
        return self.rollouts[service]
