"""Keeps the endpoint for Prometheus where the topology says.  I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from meshctl.control.events import EventLog
from meshctl.control.metrics_reader import MetricsReader
from meshctl.ports import Exposition, MetricsServer, ProcessMeter
from meshctl.spec.schema import Mesh
from meshctl.telemetry.exposition import CLASSIC, OPENMETRICS, write_exposition
from meshctl.telemetry.places import Directory
from meshctl.telemetry.rollup import Rollup

_PERIOD = 1.0


class Exporter:
    """Opens and closes the endpoint as the topology comes and goes.

    A port that is taken is told once, and tried again until it is free: the mesh does not depend on it.
    """

    def __init__(
        self,
        *,
        server: MetricsServer,
        mesh: Callable[[], Mesh | None],
        expose: Callable[[str], Exposition],
        events: EventLog,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._server = server
        self._mesh = mesh
        self._expose = expose
        self._events = events
        self._wait = wait
        self._open = 0
        self._told = 0

    async def run(self) -> None:
        """Keep it so until cancelled; then listen no more."""
        try:
            while True:
                await self.reconcile()
                await self._wait(_PERIOD)
        finally:
            await self._server.close()

    async def reconcile(self) -> None:
        """Listen where the topology says now, if it says so."""
        mesh = self._mesh()
        endpoint = mesh.telemetry.prometheus if mesh is not None else None
        wanted = endpoint.port if endpoint is not None else 0
        if wanted == self._open:
            return
        if not wanted:
            await self._server.close()
            self._open = 0
            return
        try:
            await self._server.open(wanted, self._expose)
        except OSError as error:
            self._open = 0
            if self._told != wanted:
                self._told = wanted
                message = f"prometheus cannot be served on port {wanted}: {error.strerror or error}"
                self._events.add("metrics.port_taken", "prometheus", message, "error")
            return
        self._open, self._told = wanted, 0
        self._events.add("metrics.served", "prometheus", f"prometheus: http://127.0.0.1:{wanted}/metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsParts:
    """What the engine drives for the sake of metrics."""

    reader: MetricsReader
    meter: ProcessMeter
    exporter: Exporter


def make_exposition(rollup: Rollup, directory: Directory | None, accept: str, now: float) -> Exposition:
    """The metrics in the format that the reader prefers; before any ``up`` there are none."""
    openmetrics = "application/openmetrics-text" in accept
    content_type = OPENMETRICS if openmetrics else CLASSIC
    if directory is None:
        return Exposition(text="# EOF\n" if openmetrics else "\n", content_type=content_type)
    return Exposition(
        text=write_exposition(rollup, directory, now=now, openmetrics=openmetrics), content_type=content_type
    )
