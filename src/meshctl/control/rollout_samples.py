"""Reads what the judge of a rollout is shown: what happened to both versions since it last looked.  I/O (a clock).

Windows are of whole seconds and end a second ago, side by side, so that each request is counted once.  Requests that
a route with versions of its own takes do not go by the split, so they are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from meshctl.canary.counts import count_version
from meshctl.canary.model import Rollout, Sample
from meshctl.control.engine import Engine
from meshctl.control.metrics import MetricsDesk, running_sidecars
from meshctl.plan.routes import GATEWAY
from meshctl.spec.shifts import find_own_routes
from meshctl.telemetry.places import destination_of
from meshctl.telemetry.tally import Tally, add_tallies
from meshctl.telemetry.windows import Window

_LONGEST = 3600


class Samples:
    """Reads samples for rollouts."""

    def __init__(self, engine: Engine, metrics: MetricsDesk, find_fault: Callable[[str, float], str]) -> None:
        """``find_fault`` says in words which fault was on for a service since a time; empty for none."""
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
        ticked = self._metrics.windows(until=until, seconds=min(seconds, _LONGEST))
        counted = tally_versions(ticked, service)
        windowed = tally_versions(self._metrics.windows(until=until, seconds=max(1, window)), service)
        running = running_sidecars(self._engine)
        callers = {each.name for each in mesh.services.values() if service in each.upstreams} | {GATEWAY}
        return Sample(
            until=float(until),
            seconds=float(seconds),
            window_seconds=float(window),
            canary=count_version(counted, version, apart=apart),
            stable=count_version(counted, stable, apart=apart),
            window_canary=count_version(windowed, version, apart=apart),
            window_stable=count_version(windowed, stable, apart=apart),
            active=count_active(ticked, service, version),
            stale=tuple(sorted(name for name in callers if name in running and _is_stale(ticked.get(name)))),
            fault=self._find_fault(service, rollout.counted_until),
        )


def tally_versions(windows: Mapping[str, Window], service: str) -> dict[tuple[str, str], Tally]:
    """What callers saw of a service, by version and route."""
    found: dict[tuple[str, str], list[Tally]] = {}
    for window in windows.values():
        for flow, tally in window.flows.items():
            if flow.view == "caller":
                name, version = destination_of(flow.place, flow.detail, (service,))
                if name == service:
                    found.setdefault((version, flow.detail), []).append(tally)
    return {key: add_tallies(tallies) for key, tallies in found.items()}


def count_active(windows: Mapping[str, Window], service: str, version: str) -> int:
    """The requests to a version that are under way now."""
    cluster = f"{service}/{version}"
    return sum(window.cluster_gauges[cluster].active for window in windows.values() if cluster in window.cluster_gauges)


def _is_stale(window: Window | None) -> bool:
    return window is None or window.stale
