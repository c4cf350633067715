"""Rollouts and samples for tests, as short to write as they can be."""

from __future__ import annotations

from typing import Any

from meshctl.canary.machine import begin, step
from meshctl.canary.model import Applied, Counts, Event, Rollout, Sample, Settings, Tick
from meshctl.telemetry.buckets import bucket_of

QUICK = Settings(interval=1.0, window=10.0, min_requests=20, deadline=0)


def make_rollout(settings: Settings = QUICK, *, now: float = 1000.0, weight: int = 0, **more: Any) -> Rollout:
    """A rollout that has just begun."""
    given = {"number": 1, "service": "shop", "version": "v2", "stable": "v1", "revision": "a", "author": "ann@canary"}
    rollout, _ = begin(**{**given, **more}, settings=settings, weight=weight, now=now)
    return rollout


def running(settings: Settings = QUICK, *, now: float = 1000.0, **more: Any) -> Rollout:
    """A rollout whose first weight is in effect."""
    rollout = make_rollout(settings, now=now, **more)
    return send(rollout, Applied(weight=rollout.weight), now)


def send(rollout: Rollout, event: Event, now: float) -> Rollout:
    """The rollout after an event, whatever is to be done then."""
    return step(rollout, event, now)[0]


def make_counts(requests: int, errors: int = 0, ms: float = 50.0, slow: int = 0, slow_ms: float = 500.0) -> Counts:
    """Requests that took ``ms``, but for those that were slow."""
    durations = {bucket: n for bucket, n in ((bucket_of(ms), requests - slow), (bucket_of(slow_ms), slow)) if n}
    return Counts(requests=requests, errors=errors, durations=durations)


def make_sample(until: float, canary: Counts, stable: Counts, *, seconds: float = 1.0, **more: Any) -> Sample:
    """A tick whose window holds the same as the tick itself."""
    given = {"window_seconds": seconds, "window_canary": canary, "window_stable": stable}
    return Sample(until=until, seconds=seconds, canary=canary, stable=stable, **{**given, **more})


def make_tick(until: float, canary: Counts | None = None, stable: Counts | None = None, **more: Any) -> Tick:
    """A tick; by default of two good versions."""
    return Tick(sample=make_sample(until, canary or make_counts(50, ms=50), stable or make_counts(450, ms=50), **more))
