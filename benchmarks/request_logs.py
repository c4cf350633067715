"""What telling of requests costs a sidecar: CPU of one sidecar for a request, in turns on one running mesh.

Run: ``python -m benchmarks.request_logs``. The runtime values of the caller's sidecar are changed by hand between
blocks, so that all arms share one process, its connections and the noise of the machine.
"""

from __future__ import annotations

import statistics
import sys

from tests.e2e.traffic import LAB, admin, ask_many, read_map, running

from benchmarks.load import cpu_seconds
from benchmarks.mesh import post

_REQUESTS = 1500
_ROUNDS = 5

_QUIET = {"meshctl.access_log.sample": 0, "meshctl.access_log.failed": 0, "meshctl.access_log.all": 0}
ARMS: dict[str, dict[str, int]] = {
    "nothing told": _QUIET | {"meshctl.tap.upstream.b": 0},
    "log sampled": _QUIET | {"meshctl.access_log.sample": 100, "meshctl.access_log.failed": 100},
    "log all": _QUIET | {"meshctl.access_log.all": 100},
    "tapped": _QUIET | {"meshctl.tap.upstream.b": 100},
}


def main() -> None:
    """Print microseconds of CPU for a request by arm, the median of the rounds."""
    topology = {"name": "cost", "services": {"a": {"command": LAB, "upstreams": ["b"]}, "b": {"command": LAB}}}
    with running(topology) as mesh:
        port, socket = read_map(mesh).upstream("a", "b"), mesh.paths.admin_socket("a")
        sidecar = (mesh.pids()["sidecar.a"],)
        found: dict[str, list[float]] = {name: [] for name in ARMS}
        for _ in range(_ROUNDS):
            for name, values in ARMS.items():
                query = "&".join(f"{key}={value}" for key, value in ({"meshctl.tap.upstream.b": 0} | values).items())
                post(socket, f"/runtime_modify?{query}")
                before = cpu_seconds(sidecar)
                ask_many(port, "/x", _REQUESTS)
                found[name].append((cpu_seconds(sidecar) - before) / _REQUESTS * 1e6)
        assert admin(socket, "/ready")
    for name, costs in found.items():
        print(f"{name:<14} {statistics.median(costs):6.1f} us  {[round(cost) for cost in costs]}", file=sys.stdout)


if __name__ == "__main__":
    main()
