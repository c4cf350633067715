"""How long a shift of traffic takes to be in effect, beside the number of sidecars that have to acknowledge it."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.mesh import app, folder_for_mesh, meshctl, write_topology
from meshctl.client.client import MeshClient
from meshctl.wire.paths import locate
from meshctl.wire.shifts import ShiftRequest

_BOUNDS = {2: 30.0, 10: 50.0, 20: 80.0, 40: 150.0}
"""Milliseconds that the median should not exceed, by the number of sidecars."""


def measure_shift(shifts: int, sizes: tuple[int, ...]) -> Iterator[Figure]:
    """The time from the commit of a shift to the last acknowledgement; the gateway is one of the sidecars."""
    for sidecars in sizes:
        with folder_for_mesh() as folder:
            callers = {f"caller{n}": app(upstreams=["target"]) for n in range(sidecars - 1)}
            write_topology(folder, {"target": app(versions={"v1": {}, "v2": {}}), **callers})
            meshctl(folder, "up", "-d", "--wait", timeout=300)
            taken = asyncio.run(_shift(folder, shifts, sidecars))
        taken.sort()
        p99 = taken[min(len(taken) - 1, int(0.99 * len(taken)))]
        name = f"shift in effect at {sidecars} sidecars, median"
        yield Figure(name, statistics.median(taken), _BOUNDS[sidecars], "ms", f"p99 {p99:.1f} ms of {len(taken)}")


async def _shift(folder: Path, shifts: int, sidecars: int) -> list[float]:
    paths = locate(str(folder.resolve()), environ=os.environ, uid=os.getuid())
    taken = []
    async with MeshClient(paths.api_socket) as client:
        for number in range(shifts):
            weights = {"v2": 1 + number % 99}
            result = await client.shifts.shift(ShiftRequest(service="target", weights=weights, author="bench"))
            assert result.acked == sidecars, result
            taken.append(result.duration_ms)
    return taken
