"""What a request costs: CPU of the two sidecars on its way, with all that is on by default, beside two bare Envoys.

Run: ``python -m benchmarks.cost``. Meshes and bare pairs are measured in turn, so that they share the noise of the
machine. A process takes up to a tenth more or less than another one of the same kind for as long as it lives (where its
memory came to lie), so there are several of each, and what is told is the median of them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bare import bare_pair
from benchmarks.figures import Figure
from benchmarks.load import cpu_seconds, load, measure_requests
from benchmarks.mesh import app, folder_for_mesh, meshctl, post, status, write_topology

_SETTLE = 6.0
# Seconds of load until the share of requests that are recorded has come to rest.

_FORCED = {"none recorded": "0", "all recorded": "100"}
# What spans take of it: the share of requests that are recorded, set by hand.

_SHARE = "tracing.random_sampling"


@dataclass(slots=True)
class _Found:
    """What was measured: seconds of CPU for a request by what it went through; and of the daemon, for a second."""

    costs: dict[str, list[float]] = field(default_factory=dict)
    daemon: list[float] = field(default_factory=list)
    sidecar_bytes: list[int] = field(default_factory=list)
    daemon_bytes: list[int] = field(default_factory=list)

    def ratios(self, way: str) -> list[float]:
        """By mesh: what a way costs, in costs of two bare Envoys."""
        return [a / b for a, b in zip(self.costs[way], self.costs["bare"], strict=True)]


def measure_cost(meshes: int, rounds: int, requests: int) -> list[Figure]:
    """CPU per request of two sidecars and of two bare Envoys, the breaker's part of it, and memory after the load."""
    found = _Found()
    for _ in range(meshes):
        _measure_one(found, rounds, requests)
    everything, unbroken = found.ratios("everything"), found.ratios("without a circuit breaker")
    words = ", ".join(f"{name} {statistics.median(costs) * 1e6:.0f} us" for name, costs in found.costs.items())
    spread = f"of {meshes} meshes: {min(everything):.2f} to {max(everything):.2f}; {words}"
    breaker = [a - b for a, b in zip(everything, unbroken, strict=True)]
    return [
        Figure("CPU per request, everything on / two bare Envoys", statistics.median(everything), 1.45, "x", spread),
        Figure("the same without the circuit breaker", statistics.median(unbroken), 1.35, "x"),
        Figure("the share of the circuit breaker in that", statistics.median(breaker), 0.2, "x"),
        Figure("CPU of the daemon under that load", statistics.median(found.daemon) * 100, 15, "%"),
        Figure("memory of a sidecar (USS)", max(found.sidecar_bytes) / 1e6, 25, "MB"),
        Figure("memory of the daemon (RSS)", max(found.daemon_bytes) / 1e6, 120, "MB"),
    ]


def _measure_one(found: _Found, rounds: int, requests: int) -> None:
    """One mesh and one bare pair."""
    with _meshed() as mesh, tempfile.TemporaryDirectory() as folder:
        services = {item["name"]: item for item in mesh["services"]}
        ports = services["caller"]["upstreams"]
        pids = {name: services[name]["sidecar"]["pid"] for name in services}
        daemon = (mesh["daemon_pid"],)
        with bare_pair(Path(folder), services["app"]["instances"][0]["port"]) as bare:
            ways = {
                "everything": (ports["app"], (pids["caller"], pids["app"])),
                "without a circuit breaker": (ports["unbroken"], (pids["caller"], pids["unbroken"])),
                "bare": bare,
            }
            load(bare[0], 1000)
            _settle(ports["app"])
            costs: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, (port, both) in ways.items():
                    start, used = time.perf_counter(), cpu_seconds(daemon)
                    costs[name].append(measure_requests(port, both, requests))
                    if name == "everything":
                        found.daemon.append((cpu_seconds(daemon) - used) / (time.perf_counter() - start))
            # Only now: what is recorded by hand misleads whoever chooses the share.
            for name, share in _FORCED.items():
                for service in ("caller", "app"):
                    post(services[service]["sidecar"]["admin_socket"], f"/runtime_modify?{_SHARE}={share}")
                port, both = ways["everything"]
                costs[name] = [measure_requests(port, both, requests) for _ in range(max(1, rounds // 2))]
        for name, taken in costs.items():
            found.costs.setdefault(name, []).append(statistics.median(taken))
        found.sidecar_bytes += [psutil.Process(pid).memory_full_info().uss for pid in pids.values()]
        found.daemon_bytes.append(psutil.Process(*daemon).memory_full_info().rss)


@contextmanager
def _meshed() -> Iterator[Mapping[str, Any]]:
    with folder_for_mesh() as folder:
        unbroken = app(circuit_breaker={"enabled": False})
        write_topology(folder, {"caller": app(upstreams=["app", "unbroken"]), "app": app(), "unbroken": unbroken})
        meshctl(folder, "up", "-d", "--wait")
        yield status(folder)


def _settle(port: int) -> None:
    end = time.monotonic() + _SETTLE
    while time.monotonic() < end:
        load(port, 2000)


if __name__ == "__main__":
    for figure in measure_cost(5, 8, 3000):
        print(figure)
