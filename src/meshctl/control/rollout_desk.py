"""Rollouts in the shapes of the API, asked and answered.  I/O; fits api.backend.RolloutBackend.

What a rollout does is ``rollouts``; here it is put beside the figures of its two versions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, replace

import msgspec

from meshctl.canary.model import Decision, Finding, Rollout, Settings, Verdict
from meshctl.canary.settings import settings_of
from meshctl.control.engine import Engine
from meshctl.control.metrics import MetricsDesk
from meshctl.control.rollouts import Rollouts
from meshctl.errors import MeshctlError, StartError, UsageError
from meshctl.wire.metrics import Figures
from meshctl.wire.models import RolloutNote, ServiceStatus
from meshctl.wire.rollouts import (
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

_MOST_EVIDENCE = 1e12
# Evidence grows without end, and JSON has no infinity.
_SHOWN_WINDOW = 10.0
_SHORTEST_INTERVAL = 0.2
_SETTINGS = tuple(Settings.__dataclass_fields__)


class RolloutDesk:
    """The rollouts of a running mesh, as the API has them."""

    def __init__(self, engine: Engine, rollouts: Rollouts, metrics: MetricsDesk) -> None:
        self._engine = engine
        self._rollouts = rollouts
        self._metrics = metrics
        self._verdicts: dict[int, tuple[int, Verdict | None]] = {}
        # By rollout: the newest verdict as of a decision.

    async def start(self, request: StartRequest) -> RolloutStatus:
        """Begin a rollout; returns when its first step is in effect. Raises what ``Rollouts.start`` raises.

        Raises StartError when the version did not come up; when whoever asked goes away, the rollout goes on.
        """
        rollout = await self._rollouts.start(
            request.service,
            request.version,
            self._settings(request),
            author=request.author,
            reason=request.reason,
            replace=request.replace,
            force=request.force,
        )
        return await self._first_step(rollout)

    def list(self, service: str = "") -> RolloutList:
        """The newest rollout of each service, or of one."""
        return RolloutList(rollouts=[self._tell(rollout) for rollout in self._rollouts.status(service)])

    def history(self, service: str = "", number: int = 0) -> RolloutHistory:
        """Rollouts with their decisions."""
        found = self._rollouts.history(service, number)
        return RolloutHistory(
            rollouts=[
                RolloutRecord(rollout=shape_rollout(rollout), decisions=[shape_decision(item) for item in decisions])
                for rollout, decisions in found
            ]
        )

    async def stream(self, service: str, interval: float = 1.0) -> AsyncIterator[RolloutStatus]:
        """The newest rollout of a service after each change, and at least every ``interval`` seconds, until its end."""
        if not service:
            raise UsageError("name the service whose rollout is to be followed")
        if interval < _SHORTEST_INTERVAL:
            raise UsageError(f"{interval:g} s from one to the next are too few", hint=f"at least {_SHORTEST_INTERVAL}")
        changes = self._rollouts.stream(service)
        newest: Rollout | None = None
        following: asyncio.Task[Rollout] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(changes))
                await asyncio.wait((following,), timeout=interval if newest is not None else None)
                if following.done():
                    task, following = following, None
                    try:
                        newest = task.result()
                    except StopAsyncIteration:
                        return
                assert newest is not None
                yield self._tell(newest)
        finally:
            if following is not None:
                following.cancel()

    async def pause(self, request: ChangeRequest) -> RolloutStatus:
        """Hold the weight."""
        return self._tell(await self._rollouts.pause(request.service, author=request.author, reason=request.reason))

    async def resume(self, request: ChangeRequest) -> RolloutStatus:
        """Go on."""
        return self._tell(await self._rollouts.resume(request.service, author=request.author, reason=request.reason))

    async def promote(self, request: ChangeRequest) -> RolloutStatus:
        """Take the next step now, or all of the traffic."""
        return self._tell(
            await self._rollouts.promote(
                request.service, full=request.full, author=request.author, reason=request.reason
            )
        )

    async def roll_back(self, request: ChangeRequest) -> RolloutStatus:
        """Take all traffic from the version."""
        return self._tell(await self._rollouts.rollback(request.service, author=request.author, reason=request.reason))

    async def retry(self, request: ChangeRequest) -> RolloutStatus:
        """Begin the newest rollout of the service, or of a version, anew."""
        rollout = await self._rollouts.retry(
            request.service, version=request.version, author=request.author, reason=request.reason
        )
        return await self._first_step(rollout)

    def mark(self, services: Sequence[ServiceStatus]) -> Iterator[ServiceStatus]:
        """Services, each with its rollout that is under way."""
        notes = {
            rollout.service: RolloutNote(
                number=rollout.number,
                version=rollout.version,
                phase=rollout.phase,
                weight=rollout.weight,
                why=rollout.why,
            )
            for rollout in self._rollouts.status()
            if not rollout.ended
        }
        for service in services:
            yield msgspec.structs.replace(service, rollout=notes.get(service.name))

    # ------------------------------------------------------------------------------------------ helpers

    async def _first_step(self, rollout: Rollout) -> RolloutStatus:
        async for newest in self._rollouts.stream(rollout.service):
            rollout = newest
            if rollout.phase != "starting":
                break
        if rollout.phase == "failed":
            raise StartError(
                f"{rollout.version} of {rollout.service} is not rolled out: {rollout.why}",
                hint=f"when that is put right: meshctl canary retry {rollout.service}",
            )
        return self._tell(rollout)

    def _settings(self, request: StartRequest) -> Settings:
        """What is asked for, over what the topology says of the service."""
        mesh = self._engine.mesh
        service = mesh.services.get(request.service) if mesh is not None else None
        rules = service.rollout if service is not None else None
        asked = {name: value for name in _SETTINGS if (value := getattr(request, name)) is not None}
        if "steps" in asked:
            asked["steps"] = tuple(asked["steps"])
        return replace(Settings() if rules is None else settings_of(rules), **asked)

    def _tell(self, rollout: Rollout) -> RolloutStatus:
        verdict = self._find_verdict(rollout)
        status = msgspec.structs.replace(
            shape_rollout(rollout), verdict=_shape_verdict(verdict) if verdict is not None else None
        )
        if rollout.ended:
            return status
        window = max(_SHOWN_WINDOW, min(rollout.settings.window, self._engine.parts.clock.now() - rollout.started_at))
        return msgspec.structs.replace(status, versions=list(self._figures(rollout, round(window))))

    def _find_verdict(self, rollout: Rollout) -> Verdict | None:
        """The newest verdict; that of an earlier decision when the newest is none of the judge's."""
        newest = rollout.decision
        if newest is None or newest.verdict is not None:
            return newest.verdict if newest is not None else None
        number, verdict = self._verdicts.get(rollout.number, (0, None))
        if number != newest.number:
            decisions = [item for _, items in self._rollouts.history(number=rollout.number) for item in items]
            verdict = next((item.verdict for item in reversed(decisions) if item.verdict is not None), None)
            self._verdicts[rollout.number] = newest.number, verdict
        return verdict

    def _figures(self, rollout: Rollout, window: float) -> Iterator[VersionFigures]:
        try:
            rows = self._metrics.get(rollout.service, window=window).versions
        except MeshctlError:
            return
        found = {row.version: row for row in rows if row.destination == rollout.service}
        weights = {rollout.version: rollout.applied, rollout.stable: 100 - rollout.applied}
        for version, weight in weights.items():
            row = found.get(version, Figures())
            yield VersionFigures(
                version=version,
                weight=weight,
                window=window,
                requests=row.requests,
                rate=row.rate,
                success=row.success,
                p50_ms=row.p50_ms,
                p99_ms=row.p99_ms,
            )


def shape_rollout(rollout: Rollout) -> RolloutStatus:
    """A rollout as JSON shows it, without figures of its versions."""
    settings = rollout.settings
    decision = rollout.decision
    return RolloutStatus(
        number=rollout.number,
        service=rollout.service,
        version=rollout.version,
        stable=rollout.stable,
        revision=rollout.revision,
        settings=RolloutSettings(**(asdict(settings) | {"steps": list(settings.steps)})),
        author=rollout.author,
        reason=rollout.reason,
        started_at=rollout.started_at,
        phase=rollout.phase,
        pause=rollout.pause,
        why=rollout.why,
        step=rollout.step,
        weight=rollout.weight,
        applied=rollout.applied,
        next_weight=rollout.next_weight,
        since=rollout.since,
        next_at=rollout.next_at,
        deadline_at=rollout.deadline_at,
        ended_at=rollout.ended_at,
        requests=rollout.requests,
        stable_requests=rollout.stable_requests,
        latest=shape_decision(decision) if decision is not None else None,
        verdict=_shape_verdict(decision.verdict) if decision is not None and decision.verdict is not None else None,
    )


def shape_decision(decision: Decision) -> RolloutDecision:
    """A decision as JSON shows it."""
    return RolloutDecision(
        number=decision.number,
        time=decision.time,
        event=decision.event,
        phase=decision.phase,
        weight=decision.weight,
        why=decision.why,
        verdict=_shape_verdict(decision.verdict) if decision.verdict is not None else None,
        author=decision.author,
        reason=decision.reason,
    )


def _shape_verdict(verdict: Verdict) -> RolloutVerdict:
    return RolloutVerdict(
        action=verdict.action,
        why=verdict.why,
        errors=_shape_finding(verdict.errors),
        latency=_shape_finding(verdict.latency),
        requests=verdict.requests,
        wanted=verdict.wanted,
        stable_requests=verdict.stable_requests,
        lasted=verdict.lasted,
        needed=verdict.needed,
        pairing=verdict.pairing,
    )


def _shape_finding(finding: Finding) -> RolloutFinding:
    return RolloutFinding(
        evidence=min(finding.evidence, _MOST_EVIDENCE),
        threshold=finding.threshold,
        canary=finding.canary,
        stable=finding.stable,
        bound=finding.bound,
        exceeded=finding.exceeded,
        dispersion=finding.dispersion,
        failed=finding.failed,
    )
