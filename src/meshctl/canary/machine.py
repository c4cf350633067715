"""A rollout as a machine: a state and an event give the next state and commands.  Pure.

The commands are to be carried out once the state has been written down.  Whatever moment the control plane dies at,
what is written then says which weight was decided; ``Restarted`` has it pushed again where it may not be in effect.

Invariants, each tested: a weight is 0, a step, or what somebody asked for; it goes up one step at a time, and down to 0
in one; nothing follows the end of a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from meshctl.canary.judge import judge
from meshctl.canary.model import (
    FULL,
    Applied,
    Cancelled,
    Command,
    Decision,
    Disturbed,
    Event,
    Evidence,
    PauseAsked,
    PromoteAsked,
    Refused,
    Restarted,
    ResumeAsked,
    Revised,
    RollBackAsked,
    Rollout,
    Settings,
    SetWeight,
    Tick,
    Verdict,
)

SETTLING = 5.0
"""Seconds after a change of weight that are not looked at, and at most a tenth of the window: the version's new share
meets cold connections and caches, and requests that were sent by the weights before still end."""

RETRY_AFTER = 1.0
"""Seconds until a weight of 0 that could not be brought into effect is tried again."""

Stepped = tuple[Rollout, tuple[Command, ...]]


def begin(
    *,
    number: int,
    service: str,
    version: str,
    stable: str,
    revision: str,
    settings: Settings,
    author: str,
    reason: str = "",
    weight: int = 0,
    now: float,
) -> Stepped:
    """A new rollout of a version that has ``weight`` percent now: its first step is the first that is no less."""
    step = next(index for index, each in enumerate(settings.steps) if each >= weight)
    first = settings.steps[step]
    rollout = Rollout(
        number=number,
        service=service,
        version=version,
        stable=stable,
        revision=revision,
        settings=settings,
        author=author,
        reason=reason,
        started_at=now,
        step=step,
        weight=first,
        applied=weight,
        pushing=True,
        since=now,
        deadline_at=now + settings.deadline if settings.deadline else 0.0,
        why=f"{version} is brought up, then gets {first}%",
    )
    command = SetWeight(weight=first, wait=True, reason=f"rollout {number}: first step")
    return _record(rollout, "begin", now, author=author, reason=reason), (command,)


def step(rollout: Rollout, event: Event, now: float) -> Stepped:
    """The rollout after an event, its decision recorded, and what is to be done.

    What changes nothing is not recorded.
    """
    if rollout.ended:
        return rollout, ()
    moved, commands, verdict = _HANDLERS[type(event)](rollout, event, now)
    if moved == rollout and not commands:
        return rollout, ()
    if commands:
        moved = replace(moved, pushing=True)
    author, reason = getattr(event, "author", ""), getattr(event, "reason", "")
    if moved.ended:
        moved = replace(moved, next_at=None, ended_at=now)
    return _record(moved, kind_of(event), now, verdict=verdict, author=author, reason=reason), commands


def replay(first: Rollout, events: Iterable[tuple[Event, float]]) -> list[Decision]:
    """The decisions of a history, made anew from what came and when."""
    decisions = [first.decision] if first.decision is not None else []
    rollout = first
    for event, time in events:
        rollout, _ = step(rollout, event, time)
        assert rollout.decision is not None
        if rollout.decision.number > len(decisions):
            decisions.append(rollout.decision)
    return decisions


def kind_of(event: Event) -> str:
    """The name of an event in histories."""
    return NAMES[type(event)]


# ---------------------------------------------------------------------------------------------- what comes


_Moved = tuple[Rollout, tuple[Command, ...], Verdict | None]


def _on_applied(rollout: Rollout, event: Applied, now: float) -> _Moved:
    if event.weight != rollout.weight or not rollout.pushing:
        return rollout, (), None
    rollout = replace(rollout, applied=event.weight, pushing=False)
    if rollout.phase == "rolling_back":
        return replace(rollout, phase="rolled_back", next_at=None), (), None
    if rollout.full and rollout.phase != "paused":
        return replace(rollout, phase="promoted", why=f"{rollout.version} has all of the traffic"), (), None
    if rollout.phase in ("starting", "shifting"):
        return _look_afresh(rollout, now, settle=True), (), None
    return rollout, (), None


def _on_refused(rollout: Rollout, event: Refused, now: float) -> _Moved:
    if event.weight != rollout.weight or not rollout.pushing:
        return rollout, (), None
    rollout = replace(rollout, pushing=False)
    match rollout.phase:
        case "starting":
            return replace(rollout, phase="failed", weight=rollout.applied, why=event.message), (), None
        case "rolling_back":
            # There is no other way to go: until it is in effect, it is tried again.
            return replace(rollout, why=event.message, next_at=now + RETRY_AFTER), (), None
        case _:
            return _stay(rollout, event.message), (), None


def _on_tick(rollout: Rollout, event: Tick, now: float) -> _Moved:
    if rollout.phase == "rolling_back" and rollout.next_at is not None:
        return replace(rollout, next_at=None), (_take_back(rollout, rollout.why),), None
    if rollout.phase != "running":
        return rollout, (), None
    sample = event.sample
    rollout = replace(
        rollout,
        requests=rollout.requests + sample.canary.requests,
        stable_requests=rollout.stable_requests + sample.stable.requests,
        counted_until=sample.until,
        next_at=_next_tick(rollout, now),
    )
    evidence, verdict = judge(rollout, sample, now)
    return (*_follow(replace(rollout, evidence=evidence, why=verdict.why), verdict), verdict)


def _follow(rollout: Rollout, verdict: Verdict) -> Stepped:
    match verdict.action:
        case "advance":
            return _shift(rollout, rollout.step + 1, rollout.settings.steps[rollout.step + 1], verdict.why)
        case "promote":
            return replace(rollout, phase="promoted"), ()
        case "roll_back":
            return _roll_back(rollout, verdict.why)
        case "freeze":
            return replace(rollout, phase="frozen", next_at=None), ()
        case "pause":
            return replace(rollout, phase="paused", pause="inconclusive", next_at=None), ()
        case _:
            return rollout, ()


def _on_pause(rollout: Rollout, event: PauseAsked, now: float) -> _Moved:
    del now
    if rollout.phase in ("paused", "frozen", "rolling_back"):
        return rollout, (), None
    why = f"paused by {event.author}{_because(event.reason)}"
    return replace(rollout, phase="paused", pause="by_hand", full=False, why=why, next_at=None), (), None


def _on_resume(rollout: Rollout, event: ResumeAsked, now: float) -> _Moved:
    if rollout.phase not in ("paused", "frozen"):
        return rollout, (), None
    why = f"resumed by {event.author}{_because(event.reason)}"
    if rollout.phase == "frozen":
        # Whoever goes on after all has overruled what was found.
        rollout = replace(rollout, evidence=_forget(rollout.evidence))
    if rollout.settings.deadline:
        rollout = replace(rollout, deadline_at=now + rollout.settings.deadline)
    if rollout.applied == rollout.weight and not rollout.pushing:
        return replace(_look_afresh(rollout, now), why=why), (), None
    return (*_shift(replace(rollout, why=why), rollout.step, rollout.weight, why), None)


def _on_promote(rollout: Rollout, event: PromoteAsked, now: float) -> _Moved:
    del now
    if rollout.phase == "rolling_back":
        return rollout, (), None
    why = f"promoted by {event.author}{_because(event.reason)}"
    last = len(rollout.settings.steps) - 1
    rollout = replace(rollout, why=why)
    if rollout.phase == "frozen":
        rollout = replace(rollout, evidence=_forget(rollout.evidence))
    if rollout.applied == rollout.weight == FULL and not rollout.pushing:
        return replace(rollout, phase="promoted"), (), None
    if event.full:
        return (*_shift(replace(rollout, full=True), last, FULL, why), None)
    if rollout.phase in ("starting", "shifting"):
        return rollout, (), None
    step = min(rollout.step + 1, last)
    return (*_shift(rollout, step, rollout.settings.steps[step], why), None)


def _on_roll_back(rollout: Rollout, event: RollBackAsked, now: float) -> _Moved:
    del now
    if rollout.phase == "rolling_back":
        return rollout, (), None
    return (*_roll_back(rollout, f"rolled back by {event.author}{_because(event.reason)}"), None)


def _on_restarted(rollout: Rollout, event: Restarted, now: float) -> _Moved:
    del event
    if rollout.phase == "running":
        why = "the control plane was away: the weight stays, and this step is counted afresh"
        return replace(_look_afresh(rollout, now), why=why), (), None
    if rollout.phase == "rolling_back":
        return replace(rollout, next_at=None), (_take_back(rollout, rollout.why),), None
    if rollout.pushing:
        reason = f"rollout {rollout.number}: {rollout.weight}% was decided before the control plane was away"
        return rollout, (SetWeight(weight=rollout.weight, wait=True, reason=reason),), None
    return rollout, (), None


def _on_revised(rollout: Rollout, event: Revised, now: float) -> _Moved:
    del now
    if event.revision == rollout.revision or rollout.phase == "rolling_back":
        return rollout, (), None
    first = rollout.settings.steps[0]
    why = f"{rollout.version} is another one now (revision {event.revision}): its rollout begins again at {first}%"
    rollout = replace(rollout, revision=event.revision, evidence=_forget(rollout.evidence), full=False, why=why)
    if rollout.phase == "starting":
        return rollout, (), None
    paused = rollout.phase in ("paused", "frozen")
    moved, commands = _shift(rollout, 0, first, why)
    return (replace(moved, phase=rollout.phase, pause=rollout.pause) if paused else moved), commands, None


def _on_disturbed(rollout: Rollout, event: Disturbed, now: float) -> _Moved:
    del now
    if rollout.phase == "rolling_back":
        return rollout, (), None
    # What was decided stays so: whoever resumes brings it into effect again.
    moved = replace(rollout, phase="paused", pause="disturbed", why=event.message, applied=event.weight, full=False)
    return replace(moved, pushing=False, next_at=None), (), None


def _on_cancelled(rollout: Rollout, event: Cancelled, now: float) -> _Moved:
    del now
    return replace(rollout, phase="cancelled", why=event.message), (), None


_HANDLERS: dict[type, Any] = {
    Applied: _on_applied,
    Refused: _on_refused,
    Tick: _on_tick,
    PauseAsked: _on_pause,
    ResumeAsked: _on_resume,
    PromoteAsked: _on_promote,
    RollBackAsked: _on_roll_back,
    Restarted: _on_restarted,
    Revised: _on_revised,
    Disturbed: _on_disturbed,
    Cancelled: _on_cancelled,
}

NAMES: dict[type, str] = {
    Applied: "applied",
    Refused: "refused",
    Tick: "tick",
    PauseAsked: "pause",
    ResumeAsked: "resume",
    PromoteAsked: "promote",
    RollBackAsked: "rollback",
    Restarted: "restarted",
    Revised: "revised",
    Disturbed: "disturbed",
    Cancelled: "cancelled",
}
"""What events are called in histories."""


# ---------------------------------------------------------------------------------------------- moves


def _shift(rollout: Rollout, step: int, weight: int, why: str) -> Stepped:
    moved = replace(rollout, phase="shifting", pause="", step=step, weight=weight, why=why, next_at=None)
    return moved, (SetWeight(weight=weight, wait=True, reason=f"rollout {rollout.number}: {why}"),)


def _roll_back(rollout: Rollout, why: str) -> Stepped:
    moved = replace(rollout, phase="rolling_back", pause="", weight=0, full=False, why=why, next_at=None)
    return moved, (_take_back(moved, why),)


def _take_back(rollout: Rollout, why: str) -> SetWeight:
    return SetWeight(weight=0, wait=False, reason=f"rollout {rollout.number}: {why}")


def _stay(rollout: Rollout, why: str) -> Rollout:
    """Paused at the weight that is in effect, because something stands in the way of the one that was decided."""
    steps = rollout.settings.steps
    # What somebody else set is in effect too, and was not decided here.
    weight = rollout.applied if rollout.applied in steps else rollout.weight
    step = steps.index(weight) if weight in steps else rollout.step
    return replace(
        rollout, phase="paused", pause="disturbed", why=why, weight=weight, step=step, full=False, next_at=None
    )


def _look_afresh(rollout: Rollout, now: float, *, settle: bool = False) -> Rollout:
    """Running, with nothing counted yet: what ended before a whole second from now belongs to what was."""
    settling = min(SETTLING, rollout.settings.window / 10) if settle else 0.0
    counted = float(math.ceil(now + settling))
    return replace(
        rollout,
        phase="running",
        pause="",
        why=f"at {rollout.weight}%",
        since=counted,
        requests=0,
        stable_requests=0,
        counted_until=counted,
        next_at=now + rollout.settings.interval,
        evidence=replace(rollout.evidence, begun_at=None),
    )


def _forget(evidence: Evidence) -> Evidence:
    """What holds of the stable version; nothing against the other one."""
    return Evidence(
        slow_bucket=evidence.slow_bucket,
        reference_requests=evidence.reference_requests,
        reference_errors=evidence.reference_errors,
        stable_spread=evidence.stable_spread,
    )


def _next_tick(rollout: Rollout, now: float) -> float:
    """An interval after the last one was due; after a long absence, an interval from now."""
    due = (rollout.next_at if rollout.next_at is not None else now) + rollout.settings.interval
    return due if due > now else now + rollout.settings.interval


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _record(
    rollout: Rollout, event: str, now: float, *, verdict: Verdict | None = None, author: str = "", reason: str = ""
) -> Rollout:
    decision = Decision(
        number=rollout.decision.number + 1 if rollout.decision is not None else 1,
        time=now,
        event=event,
        phase=rollout.phase,
        weight=rollout.weight,
        why=rollout.why,
        verdict=verdict,
        author=author,
        reason=reason,
    )
    return replace(rollout, decision=decision)
