"""What it costs that the daemon reads every sidecar each second: CPU of its own, and the p99 of requests meanwhile.

Run: ``python -m benchmarks.reading``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from benchmarks.figures import Figure
from benchmarks.load import cpu_seconds, drive
from benchmarks.mesh import app, folder_for_mesh, meshctl, status, write_topology
from meshctl.adapters.clock import SystemClock
from meshctl.adapters.envoy_admin import EnvoyAdmin
from meshctl.control.metrics_reader import MetricsReader, SidecarProcess


def measure_reading(seconds: float, rounds: int, requests: int) -> list[Figure]:
    """What it costs the daemon, and requests, that twenty sidecars are read each second.

    The daemon is in nobody's way, so that stopping it gives a run without a control plane to compare with; and one in
    which sidecars are read and nothing else happens, by a process that does this as the daemon does.
    """
    with folder_for_mesh() as folder:
        services = {f"app{n}": app(upstreams=[f"app{(n + 1) % 20}"]) for n in range(20)}
        write_topology(folder, services)
        meshctl(folder, "up", "-d", "--wait")
        found = status(folder)
        daemon = psutil.Process(found["daemon_pid"])
        port = next(item for item in found["services"] if item["name"] == "app0")["upstreams"]["app1"]
        sidecars = {item["sidecar"]["admin_socket"]: item["sidecar"]["pid"] for item in found["services"]}
        time.sleep(5)
        rest = _share(daemon.pid, seconds)
        watching = [sys.executable, "-m", "meshctl", "stat", "--watch", "-o", "json"]
        with subprocess.Popen(watching, cwd=folder, stdout=subprocess.DEVNULL) as watcher:
            time.sleep(3)
            watched = _share(daemon.pid, seconds)
            watcher.terminate()
        asyncio.run(drive("127.0.0.1", port, requests=1000, connections=4))
        taken: dict[str, list[float]] = {"all": [], "read": [], "none": [], "none again": []}
        for _ in range(rounds):
            taken["all"] += _paced(port, requests)
            daemon.suspend()
            try:
                with _reading(sidecars):
                    taken["read"] += _paced(port, requests)
                taken["none"] += _paced(port, requests)
                taken["none again"] += _paced(port, requests)
            finally:
                daemon.resume()
    none = _p99(taken["none"] + taken["none again"])
    one, other = _p99(taken["none"]), _p99(taken["none again"])
    # This says how much of a ratio is the machine's own noise.
    words = f"two runs without: {max(one, other) / min(one, other):.2f}x; {none * 1e3:.1f} ms without"
    return [
        Figure("CPU of the daemon, twenty sidecars at rest", rest * 100, 5, "%"),
        Figure("CPU of the daemon while figures are watched", watched * 100, 10, "%"),
        Figure("p99 of requests, sidecars read each second / not at all", _p99(taken["read"]) / none, 1.2, "x", words),
        Figure("p99 of requests, with a control plane / without", _p99(taken["all"]) / none, 1.3, "x", words),
    ]


@contextmanager
def _reading(sidecars: Mapping[str, int]) -> Iterator[None]:
    """A process that reads sidecars, pids by admin socket, each second."""
    words = [f"{socket}={pid}" for socket, pid in sidecars.items()]
    with subprocess.Popen([sys.executable, "-m", "benchmarks.reading", *words], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        # It has read each of them once.
        reader.stdout.readline()
        try:
            yield
        finally:
            reader.terminate()


async def _read(sidecars: Mapping[str, int]) -> None:
    """Read until ended, as the daemon does; writes a line when it has begun."""
    processes = {socket: SidecarProcess(socket=socket, pid=pid, started_at=0.0) for socket, pid in sidecars.items()}

    def complain(name: str, error: BaseException) -> None:
        raise RuntimeError(name) from error

    reader = MetricsReader(
        admin=EnvoyAdmin(),
        sidecars=lambda: processes,
        known=lambda: frozenset(processes),
        clock=SystemClock(),
        on_error=complain,
    )
    await asyncio.gather(*reader.begin_reading())
    assert not reader.errors, reader.errors
    print("reading", flush=True)
    await reader.run()


def _paced(port: int, requests: int) -> tuple[float, ...]:
    """Seconds of each request under a load that leaves the machine time for other things."""
    return asyncio.run(drive("127.0.0.1", port, requests=requests, connections=4, pause=0.008)).seconds


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))]


def _share(pid: int, seconds: float) -> float:
    before, start = cpu_seconds([pid]), time.perf_counter()
    time.sleep(seconds)
    return (cpu_seconds([pid]) - before) / (time.perf_counter() - start)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(_read({socket: int(pid) for socket, _, pid in (word.rpartition("=") for word in sys.argv[1:])}))
    for figure in measure_reading(20, 8, 2000):
        print(figure)
