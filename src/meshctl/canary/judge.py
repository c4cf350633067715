"""Judges a version by its traffic: what a tick adds to the evidence, and what follows from it.  Pure.

A version is taken back only if the evidence has reached its threshold *and* the figures of the window are beyond the
bound: the first keeps noise from deciding, the second differences that are real and too small to matter.  Both are
asked for errors and for the slowest hundredth.  It goes on when its step has lasted and enough requests were answered.

Invariant: what decides is in the rollout and the sample, so that a history can be judged again.
"""

from __future__ import annotations

from dataclasses import replace

from meshctl.canary.model import FULL, Action, Counts, Evidence, Finding, Process, Rollout, Sample, Settings, Verdict
from meshctl.canary.statistics import (
    TAIL,
    allowed_bucket,
    allowed_ms,
    compare,
    count_above,
    dispersion,
    find_slow_bucket,
    hold_to,
    spread_over,
    start_over,
    upper_share,
    weigh,
)
from meshctl.spec.values import format_duration
from meshctl.telemetry.buckets import quantile

LEAST_REFERENCE = 0.01
"""The share of errors that a version alone with all the traffic is allowed in any case."""


_VERY_MUCH = 1e6
_CLUSTERED = 3.0
# From this dispersion on it is told.


def judge(rollout: Rollout, sample: Sample, now: float) -> tuple[Evidence, Verdict]:
    """The evidence with a tick taken in, and the verdict; the rollout is running and counts the tick already."""
    evidence = take_in(rollout, sample)
    unpaired = rollout.weight == FULL
    errors = _find_errors(rollout.settings, evidence, sample, unpaired=unpaired)
    latency = _find_latency(rollout.settings, evidence, sample, unpaired=unpaired)
    verdict = Verdict(
        action="hold",
        why="",
        errors=errors,
        latency=latency,
        requests=rollout.requests,
        wanted=rollout.settings.min_requests,
        stable_requests=rollout.stable_requests,
        lasted=round(max(0.0, now - rollout.since), 3),
        needed=rollout.settings.window,
        pairing="unpaired" if unpaired else "paired",
    )
    action, why = _decide(rollout, verdict, sample, now)
    return evidence, replace(verdict, action=action, why=why)


def counts_as_evidence(settings: Settings, sample: Sample) -> bool:
    """Whether a tick may be held against the version: nothing was injected in it, or that is to count."""
    injected = sample.canary.injected + sample.stable.injected
    return settings.count_faults or not (sample.fault or injected)


def take_in(rollout: Rollout, sample: Sample) -> Evidence:
    """The evidence with a tick taken in."""
    settings, evidence = rollout.settings, rollout.evidence
    if not counts_as_evidence(settings, sample):
        return evidence
    begun = evidence.begun_at
    if begun is None or sample.until - begun > settings.window:
        # Decided by the clock alone, before what the tick holds is looked at.
        evidence = replace(
            evidence,
            errors=start_over(evidence.errors),
            latency=start_over(evidence.latency),
            begun_at=sample.until - sample.seconds,
        )
    canary, stable = sample.canary, sample.stable
    before = measure_dispersion(evidence)
    evidence = replace(
        evidence,
        spread=spread_over(evidence.spread, canary.errors, canary.requests),
        stable_spread=spread_over(evidence.stable_spread, stable.errors, stable.requests),
    )
    dispersions = before, measure_dispersion(evidence)
    if rollout.weight == FULL:
        share = allowed_alone(settings, evidence)
        held = hold_to(evidence.errors, canary.errors, canary.requests, share=share, dispersions=dispersions)
        return replace(evidence, errors=held)
    errors = compare(
        evidence.errors,
        (canary.errors, canary.requests),
        (stable.errors, stable.requests),
        ratio=settings.max_error_ratio,
        dispersions=dispersions,
    )
    # Slow is what the requests before this tick say, or the test would choose its question by the answer.
    seen = find_slow_bucket(sample.window_stable.durations)
    return replace(
        evidence,
        errors=errors,
        latency=_compare_tails(evidence, canary, stable, settings.max_p99_ratio),
        slow_bucket=evidence.slow_bucket if seen is None else seen,
        reference_requests=evidence.reference_requests + stable.requests,
        reference_errors=evidence.reference_errors + stable.errors,
    )


def measure_dispersion(evidence: Evidence) -> float:
    """How many errors count as one, by what was seen of both versions."""
    return dispersion((evidence.spread, evidence.stable_spread))


def allowed_alone(settings: Settings, evidence: Evidence) -> float:
    """The share of errors that a version with all the traffic may have: there is nothing beside it to compare with.

    It is what the stable version may well have had during the rollout, times the ratio, and at least LEAST_REFERENCE.
    """
    if not evidence.reference_requests:
        return LEAST_REFERENCE
    share = upper_share(evidence.reference_errors, evidence.reference_requests)
    return min(0.99, max(LEAST_REFERENCE, settings.max_error_ratio * share))


def _compare_tails(evidence: Evidence, canary: Counts, stable: Counts, ratio: float) -> Process:
    slow = evidence.slow_bucket
    if slow is None:
        return evidence.latency
    slow_canary = count_above(canary.durations, allowed_bucket(slow, ratio))
    return compare(evidence.latency, slow_canary, count_above(stable.durations, slow), ratio=1.0)


def _find_errors(settings: Settings, evidence: Evidence, sample: Sample, *, unpaired: bool) -> Finding:
    canary = sample.window_canary.error_share
    stable = None if unpaired else sample.window_stable.error_share
    bound = allowed_alone(settings, evidence) if unpaired else None
    if stable is not None:
        bound = min(1.0, settings.max_error_ratio * stable)
    found = _finding(settings, evidence.errors, canary, stable, bound)
    return replace(found, dispersion=round(measure_dispersion(evidence), 3))


def _find_latency(settings: Settings, evidence: Evidence, sample: Sample, *, unpaired: bool) -> Finding:
    canary = quantile(sample.window_canary.durations, TAIL)
    stable = None if unpaired else quantile(sample.window_stable.durations, TAIL)
    bound = None if stable is None else allowed_ms(stable, settings.max_p99_ratio)
    return _finding(settings, evidence.latency, canary, stable, bound)


def _finding(
    settings: Settings, process: Process, canary: float | None, stable: float | None, bound: float | None
) -> Finding:
    return Finding(
        evidence=weigh(process),
        threshold=settings.threshold,
        canary=canary,
        stable=stable,
        bound=bound,
        exceeded=canary is not None and bound is not None and canary > bound,
    )


# ---------------------------------------------------------------------------------------------- what follows


def _decide(rollout: Rollout, verdict: Verdict, sample: Sample, now: float) -> tuple[Action, str]:
    settings, version = rollout.settings, rollout.version
    failures = [
        words(rollout, finding)
        for words, finding in ((_tell_errors, verdict.errors), (_tell_latency, verdict.latency))
        if finding.failed
    ]
    counted = counts_as_evidence(settings, sample)
    if failures and counted:
        return ("roll_back" if settings.on_failure == "rollback" else "freeze"), "; ".join(failures)
    waiting = _find_waiting(rollout, verdict, sample, counted=counted)
    if rollout.deadline_at and now >= rollout.deadline_at:
        return "pause", f"inconclusive at its deadline of {format_duration(settings.deadline)}: {waiting or 'no end'}"
    if waiting:
        return "hold", waiting
    upcoming = rollout.next_weight
    if upcoming is None:
        return "promote", f"{version} has had all of the traffic for {_time(verdict.lasted)}"
    return "advance", f"no worse at {rollout.weight}%: on to {upcoming}%"


def _find_waiting(rollout: Rollout, verdict: Verdict, sample: Sample, *, counted: bool) -> str:
    """Why a version that has not failed does not go on; empty when it does."""
    version, stable, wanted = rollout.version, rollout.stable, verdict.wanted
    if not counted:
        return f"{sample.fault or 'a fault'} is on: what it does is not held against {version}"
    if sample.stale:
        return f"the sidecar of {', '.join(sample.stale)} does not answer, so its requests are not known"
    if verdict.requests < wanted:
        turned_away = sample.window_canary.rejected
        more = f", {sample.active} under way" if sample.active and not verdict.requests else ""
        more += f", {turned_away} turned away by an open circuit" if turned_away else ""
        return f"too few requests to {version} yet: n={verdict.requests}/{wanted}{more}"
    if verdict.pairing == "paired" and verdict.stable_requests < wanted:
        return f"too few requests to {stable} to compare with yet: n={verdict.stable_requests}/{wanted}"
    if verdict.lasted < verdict.needed:
        return f"at {rollout.weight}% for {_time(verdict.lasted)} of {_time(verdict.needed)}"
    doubts = [
        words(rollout, finding)
        for words, finding in ((_tell_errors, verdict.errors), (_tell_latency, verdict.latency))
        if finding.exceeded and finding.evidence >= rollout.settings.doubt
    ]
    return f"not sure yet: {'; '.join(doubts)}" if doubts else ""


def _tell_errors(rollout: Rollout, finding: Finding) -> str:
    beside = "allowed alone" if finding.stable is None else f"{_percent(finding.stable)} at {rollout.stable}"
    against = _percent(finding.bound) if finding.stable is None else ""
    return (
        f"{_percent(finding.canary)} errors at {rollout.version}, {against + ' ' if against else ''}{beside} "
        f"({_tell_evidence(finding)})"
    )


def _tell_latency(rollout: Rollout, finding: Finding) -> str:
    return (
        f"p99 {_milliseconds(finding.canary)} at {rollout.version}, {_milliseconds(finding.stable)} at "
        f"{rollout.stable} ({_tell_evidence(finding)})"
    )


def _tell_evidence(finding: Finding) -> str:
    told = f"{finding.evidence:.0f}" if finding.evidence < _VERY_MUCH else "over 1M"
    together = f", {finding.dispersion:.0f} at a time count as one" if finding.dispersion >= _CLUSTERED else ""
    return f"evidence {told} of {finding.threshold:g}{together}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.3g}%"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"


def _time(seconds: float) -> str:
    return format_duration(float(int(seconds)))
