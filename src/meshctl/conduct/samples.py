"""The figures of the mesh while an experiment runs, second by second.  I/O.

Enters: the control plane's history, fetched every few seconds, so that little is lost when it dies.  Leaves: series as
the journal holds them. A control plane that is away leaves a gap.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from meshctl.errors import MeshctlError

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient
    from meshctl.wire.metrics import Point

EVERY = 3.0
"""Seconds from one look to the next; the history holds far more."""

_MOST = 700
"""Steps that can be asked for at once."""


class Sampler:
    """Gathers points from ``since`` (seconds since the epoch) on."""

    def __init__(self, client: MeshClient, since: float) -> None:
        self._client = client
        self._since = math.floor(since)
        self._seen = self._since
        self._points: dict[tuple[str, str, str], dict[int, Point]] = {}

    async def run(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Fetch what has come since the last look; a control plane that does not answer is passed over."""
        try:
            now = (await self._client.metrics.history(window=1)).time
            window = min(_MOST, max(3, int(now - self._seen) + 3))
            found = await self._client.metrics.history(window=window)
        except MeshctlError:
            return
        # The newest seconds may still change.
        self._seen = max(self._seen, int(found.time) - 2)
        for series in found.series:
            points = self._points.setdefault((series.source, series.destination, series.version), {})
            points.update({int(point.time): point for point in series.points if point.time >= self._since})

    def series(self) -> list[dict[str, Any]]:
        """What was gathered, of everything that had traffic."""
        return [
            {
                "source": source,
                "destination": destination,
                "version": version,
                "points": [
                    [at, point.requests, point.failures, point.p50_ms, point.p99_ms]
                    for at, point in sorted(points.items())
                ],
            }
            for (source, destination, version), points in sorted(self._points.items())
            if any(point.requests for point in points.values())
        ]
