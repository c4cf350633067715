"""``make bench``: what the mesh costs, beside a bare pair of Envoys in the same run.

Prints one line per figure with its bound, and ends with 1 when one is over.  Nothing here is part of the tests: the
machines that run it are shared and noisy, so figures are ratios or quantiles of many repetitions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.canary_simulation import measure_judge
from benchmarks.cost import measure_cost
from benchmarks.figures import Figure
from benchmarks.mesh import APP, app, folder_for_mesh, meshctl, write_topology
from benchmarks.reading import measure_reading
from benchmarks.shift import measure_shift
from meshctl.client.client import MeshClient
from meshctl.wire.models import SourceFileShape, UpRequest
from meshctl.wire.paths import locate


def measure_startup(rounds: int) -> list[Figure]:
    """``up --wait`` of ten trivial services, less what the services need to start by themselves."""
    over = []
    for _ in range(rounds):
        own = _start_ten_services()
        with folder_for_mesh() as folder:
            write_topology(folder, {f"app{n}": app(upstreams=[f"app{(n + 1) % 10}"]) for n in range(10)})
            start = time.perf_counter()
            meshctl(folder, "up", "-d", "--wait")
            over.append(time.perf_counter() - start - own)
            meshctl(folder, "down")
    return [Figure("up --wait of ten services, beyond their own start", statistics.median(over), 3.0, "s")]


def measure_route_change(changes: int) -> list[Figure]:
    """From the request for another split to every sidecar's acknowledgement, ten sidecars."""
    with folder_for_mesh() as folder:

        def topology(weight: int) -> dict[str, object]:
            split = {"versions": {"v1": {}, "v2": {}}, "split": {"v1": weight, "v2": 100 - weight}}
            callers = {f"caller{n}": app(upstreams=["target"]) for n in range(8)}
            return {"target": app(**split), **callers}

        write_topology(folder, topology(50))
        meshctl(folder, "up", "-d", "--wait")
        taken = asyncio.run(_change_routes(folder, topology, changes))
    taken.sort()
    p99 = taken[min(len(taken) - 1, int(0.99 * len(taken)))]
    words = f"median {statistics.median(taken) * 1e3:.1f} ms of {len(taken)}"
    return [Figure("route change in effect at ten sidecars, p99", p99 * 1e3, 50, "ms", words)]


async def _change_routes(folder: Path, topology: object, changes: int) -> list[float]:
    assert callable(topology)
    paths = locate(str(folder.resolve()), environ=os.environ, uid=os.getuid())
    taken = []
    async with MeshClient(paths.api_socket) as client:
        for number in range(changes):
            write_topology(folder, topology(1 + number % 99))
            text = (folder / "mesh.yaml").read_text()
            file = SourceFileShape(path="mesh.yaml", directory=str(folder.resolve()), text=text)
            start = time.perf_counter()
            await client.up(UpRequest(files=[file], variables={}, services=[]))
            result = await client.ready(30.0)
            taken.append(time.perf_counter() - start)
            assert result.state == "ready", result
    return taken


def _start_ten_services() -> float:
    start = time.perf_counter()
    processes = [
        subprocess.Popen([sys.executable, str(APP)], env={**os.environ, "PORT": str(31500 + n)}) for n in range(10)
    ]
    try:
        asyncio.run(_wait_for_ports([31500 + n for n in range(10)]))
        return time.perf_counter() - start
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=10)


async def _wait_for_ports(ports: list[int]) -> None:
    async with asyncio.timeout(30):
        for port in ports:
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it works")
    quick = parser.parse_args().quick
    figures: list[Figure] = []
    parts: tuple[Callable[[], Iterable[Figure]], ...] = (
        lambda: measure_cost(1 if quick else 5, 2 if quick else 8, 2000 if quick else 3000),
        lambda: measure_reading(5 if quick else 20, 2 if quick else 8, 1000 if quick else 2000),
        lambda: measure_startup(1 if quick else 3),
        lambda: measure_route_change(10 if quick else 200),
        lambda: measure_judge(10 if quick else 60),
        lambda: measure_shift(10 if quick else 100, (2, 10) if quick else (2, 10, 20, 40)),
    )
    for part in parts:
        for figure in part():
            figures.append(figure)
            print(figure, flush=True)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
