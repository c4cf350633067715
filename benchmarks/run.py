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
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from benchmarks.bare import bare_pair
from benchmarks.canary_simulation import measure_judge
from benchmarks.figures import Figure
from benchmarks.load import drive, load, measure_requests
from benchmarks.mesh import APP, app, folder_for_mesh, meshctl, status, write_topology
from benchmarks.shift import measure_shift
from benchmarks.telemetry import measure_telemetry
from meshctl.client.client import MeshClient
from meshctl.wire.models import SourceFileShape, UpRequest
from meshctl.wire.paths import locate


def measure_cost(rounds: int, requests: int) -> list[Figure]:
    """CPU per request of two sidecars against two bare Envoys, in turns; and what of it the circuit breaker takes."""
    with folder_for_mesh() as folder, tempfile.TemporaryDirectory() as bare_folder:
        unbroken = app(circuit_breaker={"enabled": False})
        write_topology(folder, {"caller": app(upstreams=["app", "unbroken"]), "app": app(), "unbroken": unbroken})
        meshctl(folder, "up", "-d", "--wait")
        services = {item["name"]: item for item in status(folder)["services"]}
        ports = services["caller"]["upstreams"]
        pids = {name: services[name]["sidecar"]["pid"] for name in services}
        pairs = {name: (ports[name], (pids["caller"], pids[name])) for name in ("app", "unbroken")}
        app_port = services["app"]["instances"][0]["port"]
        with bare_pair(Path(bare_folder), app_port) as bare:
            pairs["bare"] = bare
            for port, _ in pairs.values():
                load(port, 1000)
            costs: dict[str, list[float]] = {name: [] for name in pairs}
            for _ in range(rounds):
                for name, (port, both) in pairs.items():
                    costs[name].append(measure_requests(port, both, requests))
        memory = max(psutil.Process(pid).memory_full_info().uss for pid in pids.values()) / 1e6
        daemon = psutil.Process(status(folder)["daemon_pid"]).memory_full_info().rss / 1e6
    taken = {name: statistics.median(found) * 1e6 for name, found in costs.items()}
    shares = [(a - u) / b for a, u, b in zip(costs["app"], costs["unbroken"], costs["bare"], strict=True)]
    against = f"us against {taken['bare']:.0f} us"
    return [
        Figure(
            "CPU per request, default policies and telemetry / two bare Envoys",
            _median_ratio(costs["app"], costs["bare"]),
            1.45,
            "x",
            f"{taken['app']:.0f} {against}",
        ),
        Figure(
            "the same without the circuit breaker",
            _median_ratio(costs["unbroken"], costs["bare"]),
            1.35,
            "x",
            f"{taken['unbroken']:.0f} {against}",
        ),
        Figure(
            "the share of the circuit breaker in that",
            statistics.median(shares),
            0.2,
            "x",
            f"{statistics.median(shares) * taken['bare']:.1f} us",
        ),
        Figure("memory of a sidecar (USS)", memory, 25, "MB"),
        Figure("memory of the daemon (RSS)", daemon, 120, "MB"),
    ]


def _median_ratio(costs: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(costs, others, strict=True))


def measure_reading(seconds: float, rounds: int, requests: int) -> list[Figure]:
    """What it costs the daemon, and requests, that it reads twenty sidecars each second.

    The daemon is in nobody's way, so that stopping it for a moment gives a run without any reading to compare with.
    """
    with folder_for_mesh() as folder:
        services = {f"app{n}": app(upstreams=[f"app{(n + 1) % 20}"]) for n in range(20)}
        write_topology(folder, services)
        meshctl(folder, "up", "-d", "--wait")
        found = status(folder)
        daemon = psutil.Process(found["daemon_pid"])
        port = next(item for item in found["services"] if item["name"] == "app0")["upstreams"]["app1"]
        time.sleep(5)
        rest = _share(daemon, seconds)
        watching = [sys.executable, "-m", "meshctl", "stat", "--watch", "-o", "json"]
        with subprocess.Popen(watching, cwd=folder, stdout=subprocess.DEVNULL) as watcher:
            time.sleep(3)
            watched = _share(daemon, seconds)
            watcher.terminate()
        asyncio.run(drive("127.0.0.1", port, requests=1000, connections=4))
        reading: list[float] = []
        silent: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            reading += _paced(port, requests)
            daemon.suspend()
            try:
                for found_seconds in silent:
                    found_seconds.extend(_paced(port, requests))
            finally:
                daemon.resume()
    one, other = (_p99(found_seconds) for found_seconds in silent)
    ratio = _p99(reading) / _p99(silent[0] + silent[1])
    # The second says how much of the first is the machine's own noise.
    words = f"two runs without: {max(one, other) / min(one, other):.2f}x"
    return [
        Figure("CPU of the daemon, twenty sidecars at rest", rest * 100, 5, "%"),
        Figure("CPU of the daemon while figures are watched", watched * 100, 10, "%"),
        Figure("p99 of requests, read each second / not at all", ratio, 1.2, "x", words),
    ]


def _paced(port: int, requests: int) -> tuple[float, ...]:
    """Seconds of each request under a load that leaves the machine time for other things."""
    return asyncio.run(drive("127.0.0.1", port, requests=requests, connections=4, pause=0.008)).seconds


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))]


def _share(process: psutil.Process, seconds: float) -> float:
    before, start = sum(process.cpu_times()[:2]), time.perf_counter()
    time.sleep(seconds)
    return float(sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - start)


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
        lambda: measure_cost(2 if quick else 7, 2000 if quick else 10000),
        lambda: measure_telemetry(2 if quick else 20, 2000 if quick else 3000),
        lambda: measure_reading(5 if quick else 20, 3 if quick else 15, 1000 if quick else 2000),
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
