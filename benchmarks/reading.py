"""What it costs that the daemon reads every sidecar each second: CPU of its own, and the p99 of requests meanwhile.

Run: ``python -m benchmarks.reading``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import psutil

from benchmarks.figures import Figure
from benchmarks.load import drive
from benchmarks.mesh import app, folder_for_mesh, meshctl, status, write_topology


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


if __name__ == "__main__":
    for figure in measure_reading(20, 15, 2000):
        print(figure)
