"""Reads what the judge of a rollout is shown: what happened to both versions since it last looked.  I/O (a clock).

Windows are of whole seconds and end a second ago, side by side, so that each request is counted once.  Requests that
a route with versions of its own takes do not go by the split, so they are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from meshctl.canary.counts import count_version
from meshctl.canary.model import Rollout, Sample
from meshctl.control.engine import Engine
from meshctl.control.metrics import MetricsDesk, running_sidecars
from meshctl.spec.shifts import find_own_routes

_LONGEST = 3600


class Samples:
    """Reads samples for rollouts."""

    def __init__(self, engine: Engine, metrics: MetricsDesk, find_fault: Callable[[str], str]) -> None:
        """``find_fault`` says in words which fault is on for a service; empty for none."""
        self._engine = engine
        self._metrics = metrics
        self._find_fault = find_fault

    def read(self, rollout: Rollout, now: float) -> Sample | None:
        """What happened since the rollout last looked; None while no whole second has passed."""
        mesh = self._engine.mesh
        until = math.floor(now) - 1
        begun = math.ceil(rollout.since)
        seconds = until - math.ceil(rollout.counted_until)
        if seconds < 1 or mesh is None or rollout.service not in mesh.services:
            return None
        service, version, stable = rollout.service, rollout.version, rollout.stable
        apart = find_own_routes(mesh.services[service])
        window = min(int(rollout.settings.window), until - begun)
        ticked, versions = self._metrics.compare(service, until=until, seconds=min(seconds, _LONGEST))
        windowed, _ = self._metrics.compare(service, until=until, seconds=max(1, window))
        running = running_sidecars(self._engine)
        stale = {name for row in versions for name in row.stale if name in running}
        return Sample(
            until=float(until),
            seconds=float(seconds),
            window_seconds=float(window),
            canary=count_version(ticked, service, version, apart=apart),
            stable=count_version(ticked, service, stable, apart=apart),
            window_canary=count_version(windowed, service, version, apart=apart),
            window_stable=count_version(windowed, service, stable, apart=apart),
            active=next((row.active for row in versions if row.version == version), None),
            stale=tuple(sorted(stale)),
            fault=self._find_fault(service),
        )
