"""What being seen costs: CPU per request with metrics, traces and access log as they are by default, beside two bare
Envoys in the same run, and of it what spans take.

Run: ``python -m benchmarks.telemetry``. Both are measured in turn, so that they share the noise of the machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.bare import bare_pair
from benchmarks.figures import Figure
from benchmarks.load import cpu_seconds, load, measure_requests
from benchmarks.mesh import app, folder_for_mesh, meshctl, post, status, write_topology

_SETTLE = 6.0
# Seconds of load until the share of requests that are recorded has come to rest.

_FORCED = {"none recorded": "0", "all recorded": "100"}
# What spans take of it: the share of requests that are recorded, set by hand.

_SHARE = "tracing.random_sampling"


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
        daemon = (found["daemon_pid"],)
        with bare_pair(Path(bare_folder), services["app"]["instances"][0]["port"]) as (bare_port, bare_pids):
            everything, bare, shares = [], [], []
            load(bare_port, 1000)
            _settle(port)
            for _ in range(rounds):
                start, used = time.perf_counter(), cpu_seconds(daemon)
                everything.append(measure_requests(port, pids, requests))
                shares.append((cpu_seconds(daemon) - used) / (time.perf_counter() - start))
                bare.append(measure_requests(bare_port, bare_pids, requests))
            # Only now: what is recorded by hand misleads whoever chooses the share.
            forced = {}
            for name, share in _FORCED.items():
                for sidecar in sidecars:
                    post(sidecar["admin_socket"], f"/runtime_modify?{_SHARE}={share}")
                forced[name] = [measure_requests(port, pids, requests) for _ in range(max(1, rounds // 2))]
    taken = {"bare": bare, "everything": everything, **forced}
    words = ", ".join(f"{name} {statistics.median(costs) * 1e6:.0f} us" for name, costs in taken.items())
    ratio = statistics.median(a / b for a, b in zip(everything, bare, strict=True))
    return [
        Figure("CPU per request, everything on / two bare Envoys", ratio, 1.45, "x", words),
        Figure("CPU of the daemon under that load", statistics.median(shares) * 100, 15, "%"),
    ]


def _settle(port: int) -> None:
    end = time.monotonic() + _SETTLE
    while time.monotonic() < end:
        load(port, 2000)


if __name__ == "__main__":
    for figure in measure_telemetry(20, 3000):
        print(figure)
