"""The golden signals, for whoever asks: the canary judge, ``top``, the web and scripts alike.  I/O (a clock)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from meshctl.control.engine import Engine
from meshctl.control.exporter import make_exposition
from meshctl.control.metrics_reader import SidecarProcess
from meshctl.control.observe import Observed
from meshctl.control.signals import build_rows
from meshctl.errors import ConflictError, NotFoundError, UsageError
from meshctl.lifecycle.specs import sidecar_name
from meshctl.plan.routes import GATEWAY
from meshctl.ports import Exposition
from meshctl.telemetry.places import Directory, destination_of
from meshctl.telemetry.rollup import COARSE_KEPT
from meshctl.telemetry.tally import Tally, add_tallies
from meshctl.telemetry.windows import Window, read_window
from meshctl.wire.metrics import Circuit, History, Metrics, Point, ProcessUse, Row, Series, SidecarFigures

WINDOW = 10.0
"""Seconds, unless another window is asked for."""

_MOST_POINTS = 720
_SHORTEST_INTERVAL = 0.2


class MetricsDesk:
    """Answers questions about the rollup of a running mesh."""

    def __init__(
        self,
        engine: Engine,
        *,
        circuits: Callable[[], Mapping[tuple[str, str], Circuit]],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``circuits`` tells the state of circuit breakers by caller and service."""
        self._engine = engine
        self._circuits = circuits
        self._wait = wait

    def get(
        self,
        service: str = "",
        version: str = "",
        window: float = WINDOW,
        *,
        until: float | None = None,
        buckets: bool = False,
    ) -> Metrics:
        """The golden signals of a window: of everything, or of what goes to, and from, one service (and version).

        The window is ``window`` seconds (1 to 3600) long and ends at ``until`` (seconds since the epoch, default now).
        Windows of whole seconds that end a second ago or earlier no longer change, and side by side count every
        request once, unless a sidecar did not answer meanwhile: what it counted is then found in the second in which
        it did.

        Raises:
            ConflictError: there was no ``up`` yet.
            NotFoundError: there is no such service or version.
            UsageError: the window is out of bounds.
        """
        _check_window(window)
        seen = self._observe()
        directory = make_directory(seen)
        _check_names(directory, service, version)
        now = self._engine.parts.metrics.reader.now()
        end = now if until is None else until
        windows = self._windows(until=end, seconds=window, now=now)
        rows = build_rows(directory, windows, circuits=self._circuits(), buckets=buckets)

        def pick(found: list[Row]) -> list[Row]:
            return [row for row in found if _concerns(row, service, version)]

        return Metrics(
            time=end,
            window_s=window,
            services=pick(rows.services),
            versions=pick(rows.versions),
            edges=pick(rows.edges),
            routes=pick(rows.routes),
            flows=pick(rows.flows),
            instances=pick(rows.instances),
            sidecars=self._freshness(windows),
            processes=self._measure_processes(seen, service),
        )

    def windows(self, *, until: float, seconds: float) -> Mapping[str, Window]:
        """What each sidecar counted in a window that ends at ``until``, by its name."""
        return self._windows(until=until, seconds=seconds, now=self._engine.parts.metrics.reader.now())

    async def stream(
        self, service: str = "", version: str = "", window: float = WINDOW, interval: float = 1.0
    ) -> AsyncIterator[Metrics]:
        """The golden signals again and again, every ``interval`` seconds."""
        if interval < _SHORTEST_INTERVAL:
            raise UsageError(f"{interval:g} s from one to the next are too few", hint=f"at least {_SHORTEST_INTERVAL}")
        while True:
            yield self.get(service, version, window)
            await self._wait(interval)

    def history(self, service: str = "", *, window: float = 60.0, step: float = 1.0) -> History:
        """The figures of each edge and version in equal steps, as callers saw them.

        Raises UsageError for more than 720 steps, or a window out of bounds.
        """
        _check_window(window)
        if step < 1 or step != math.floor(step) or window / step > _MOST_POINTS:
            raise UsageError(
                f"steps of {step:g} s in {window:g} s cannot be had",
                hint=f"whole seconds, at most {_MOST_POINTS} steps",
            )
        seen = self._observe()
        directory = make_directory(seen)
        _check_names(directory, service, "")
        now = self._engine.parts.metrics.reader.now()
        end = math.floor(now)
        points: dict[tuple[str, str, str], dict[int, Tally]] = {}
        watched: dict[str, set[int]] = {}
        steps = [end - index * int(step) for index in reversed(range(int(window / step)))]
        for at in steps:
            for node, figures in self._windows(until=at, seconds=step, now=now).items():
                if figures.seconds > 0:
                    watched.setdefault(node, set()).add(at)
                for flow, tally in figures.flows.items():
                    if flow.view == "caller":
                        name, version = destination_of(flow.place, flow.detail, directory.versions)
                        found = points.setdefault((node, name, version), {})
                        found[at] = add_tallies((found[at], tally)) if at in found else tally
        series = [
            Series(
                source=key[0],
                destination=key[1],
                version=key[2],
                points=[_point(at, found.get(at), known=at in watched.get(key[0], ())) for at in steps],
            )
            for key, found in sorted(points.items())
            if not service or service in key[:2]
        ]
        return History(time=float(end), step_s=step, series=series)

    def _observe(self) -> Observed:
        seen = self._engine.observe()
        if seen is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return seen

    def _windows(self, *, until: float, seconds: float, now: float) -> dict[str, Window]:
        return {
            name: read_window(history, until=until, seconds=seconds, now=now)
            for name, history in self._engine.parts.metrics.reader.rollup.sidecars.items()
        }

    def _freshness(self, windows: Mapping[str, Window]) -> list[SidecarFigures]:
        errors = self._engine.parts.metrics.reader.errors
        return [
            SidecarFigures(
                sidecar=name,
                age_s=round(windows[name].age, 3) if name in windows else None,
                stale=windows[name].stale if name in windows else True,
                error=errors.get(name, ""),
                resets=windows[name].resets if name in windows else 0,
            )
            for name in sorted(self._engine.nodes)
        ]

    def _measure_processes(self, seen: Observed, service: str) -> list[ProcessUse]:
        pids = {
            name: view.state.pid
            for name, view in seen.views.items()
            if view.state.pid is not None and (not service or view.spec.service == service)
        }
        return [
            ProcessUse(name=name, service=seen.views[name].spec.service, pid=pids[name], cpu=use.cpu, memory=use.memory)
            for name, use in sorted(self._engine.parts.metrics.meter.measure(pids).items())
        ]


def expose(engine: Engine, accept: str) -> Exposition:
    """The metrics of a mesh as text, in the format that a reader prefers."""
    seen, reader = engine.observe(), engine.parts.metrics.reader
    directory = make_directory(seen) if seen is not None else None
    return make_exposition(reader.rollup, directory, accept, reader.now())


def running_sidecars(engine: Engine) -> Mapping[str, SidecarProcess]:
    """The sidecars that run now, by node name."""
    views = engine.parts.supervisor.views()
    found = {}
    for node in sorted(engine.nodes):
        view = views.get(sidecar_name(node))
        if view is not None and view.state.pid is not None and view.state.started_at is not None:
            socket = engine.parts.paths.admin_socket(node)
            found[node] = SidecarProcess(socket=socket, pid=view.state.pid, started_at=view.state.started_at)
    return found


def make_directory(seen: Observed) -> Directory:
    """What there is to have figures of."""
    services = {name: service for name, service in seen.mesh.services.items() if not service.is_job}
    instances = {
        view.spec.id: (view.spec.service, view.spec.version)
        for view in seen.views.values()
        if view.spec.kind == "service"
    }
    instances |= {item.id: (item.service, item.version) for item in seen.registrations}
    versions: dict[str, set[str]] = {name: {*s.versions, *s.split} for name, s in services.items() if s.address is None}
    for service, version in instances.values():
        if service in versions:
            versions[service].add(version)
    edges = {(s.name, upstream) for s in seen.mesh.services.values() for upstream in s.upstreams}
    if seen.mesh.gateway is not None:
        edges |= {(GATEWAY, route.service) for route in seen.mesh.gateway.routes}
    return Directory(
        trust_domain=seen.mesh.trust_domain,
        versions={name: tuple(sorted(versions.get(name, ()))) for name in services},
        edges=frozenset(edges),
        instances={name: found for name, found in instances.items() if found[0] in services},
        secured={name: _is_secured(s.address is not None, s.policies.security.mtls) for name, s in services.items()},
    )


def _is_secured(external: bool, mtls: str) -> bool:  # noqa: FBT001 - one of two
    return not external and mtls != "off"


def _concerns(row: Row, service: str, version: str) -> bool:
    if service and service not in (row.destination, row.source):
        return False
    return not version or not row.version or row.version == version


def _point(at: int, tally: Tally | None, *, known: bool) -> Point:
    tally = tally or Tally()
    rate = tally.rate if tally.rate is not None else 0.0 if known else None
    return Point(
        time=float(at),
        requests=tally.requests,
        failures=tally.failures,
        rate=rate,
        success=tally.success,
        p50_ms=tally.quantile(0.5),
        p99_ms=tally.quantile(0.99),
    )


def _check_window(window: float) -> None:
    if not 1 <= window <= COARSE_KEPT:
        raise UsageError(f"a window of {window:g} s is not kept", hint=f"from 1 s to {COARSE_KEPT} s")


def _check_names(directory: Directory, service: str, version: str) -> None:
    if service and service not in directory.versions and service not in {source for source, _ in directory.edges}:
        known = ", ".join(sorted(directory.versions)) or "none"
        raise NotFoundError(f"no service {service} in this mesh", hint=f"services: {known}")
    if version:
        versions = directory.versions.get(service, ())
        if version not in versions:
            known = ", ".join(versions) or "none"
            raise NotFoundError(f"{service or 'no service'} has no version {version}", hint=f"its versions: {known}")
