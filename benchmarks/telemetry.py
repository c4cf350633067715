"""What being seen costs: CPU per request with metrics, traces and access log as they are by default, beside two bare
Envoys in the same run, and of it what spans take.

Run: ``python -m benchmarks.telemetry``. The runtime values of the sidecars are changed by hand between blocks, so that
all arms share their processes, connections and the noise of the machine.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from benchmarks.bare import bare_pair
from benchmarks.figures import Figure
from benchmarks.load import drive
from benchmarks.mesh import app, folder_for_mesh, meshctl, status, write_topology

_SETTLE = 6.0
# Seconds of load until the share of requests that are recorded has come to rest.

_AS_IT_IS = {"tracing.random_sampling": "", "meshctl.access_log.sample": ""}
ARMS: dict[str, Mapping[str, str]] = {
    "everything": _AS_IT_IS,
    "none recorded": {**_AS_IT_IS, "tracing.random_sampling": "0"},
    "all recorded": {**_AS_IT_IS, "tracing.random_sampling": "100"},
}
"""An empty value gives back what the control plane says."""


def measure_telemetry(rounds: int, requests: int) -> list[Figure]:
    """CPU per request of two sidecars with everything on against two bare Envoys, and of the daemon meanwhile."""
    with folder_for_mesh() as folder, tempfile.TemporaryDirectory() as bare_folder:
        write_topology(folder, {"caller": app(upstreams=["app"]), "app": app()})
        meshctl(folder, "up", "-d", "--wait")
        found = status(folder)
        services = {item["name"]: item for item in found["services"]}
        port = services["caller"]["upstreams"]["app"]
        sidecars = [services[name]["sidecar"] for name in ("caller", "app")]
        pids = tuple(sidecar["pid"] for sidecar in sidecars)
        daemon = psutil.Process(found["daemon_pid"])
        with bare_pair(Path(bare_folder), services["app"]["instances"][0]["port"]) as (bare_port, bare_pids):
            costs: dict[str, list[float]] = {"bare": [], **{name: [] for name in ARMS}}
            shares: list[float] = []
            end = time.monotonic() + _SETTLE
            while time.monotonic() < end:
                _load(port, 2000)
            _load(bare_port, 1000)
            for _ in range(rounds):
                for name, values in ARMS.items():
                    for sidecar in sidecars:
                        query = "&".join(f"{key}={value}" for key, value in values.items())
                        _post(sidecar["admin_socket"], f"/runtime_modify?{query}")
                    start, used = time.perf_counter(), _cpu((daemon.pid,))
                    costs[name].append(_cost(port, pids, requests))
                    if name == "everything":
                        shares.append((_cpu((daemon.pid,)) - used) / (time.perf_counter() - start))
                costs["bare"].append(_cost(bare_port, bare_pids, requests))
    taken = {name: statistics.median(found) * 1e6 for name, found in costs.items()}
    ratio = statistics.median(a / b for a, b in zip(costs["everything"], costs["bare"], strict=True))
    words = ", ".join(f"{name} {value:.0f} us" for name, value in taken.items())
    return [
        Figure("CPU per request, everything on / two bare Envoys", ratio, 1.45, "x", words),
        Figure("CPU of the daemon under that load", statistics.median(shares) * 100, 15, "%"),
    ]


def _post(socket_path: str, path: str) -> None:
    connection = http.client.HTTPConnection("admin")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(socket_path)
    connection.request("POST", path)
    connection.getresponse().read()
    connection.close()


def _load(port: int, requests: int) -> None:
    outcome = asyncio.run(drive("127.0.0.1", port, requests=requests, connections=32))
    assert outcome.bad == 0, f"{outcome.bad} requests failed"


def _cost(port: int, pids: tuple[int, ...], requests: int) -> float:
    before = _cpu(pids)
    _load(port, requests)
    return (_cpu(pids) - before) / requests


def _cpu(pids: tuple[int, ...]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


if __name__ == "__main__":
    for figure in measure_telemetry(7, 10000):
        print(figure)
