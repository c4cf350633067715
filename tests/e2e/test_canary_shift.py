"""Shifting traffic between versions by hand, and loads: on real Envoys, under traffic, with nothing lost."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.harness import SERVICES, wait_until
from tests.e2e.traffic import ECHO, LAB, Map, api, ask, free_port, read_map, running

from meshctl.client.calls import MeshRequest
from meshctl.client.client import MeshClient
from meshctl.client.load import Load
from meshctl.telemetry.load import Arrivals
from meshctl.wire.shifts import ShiftRequest, TrafficResult

pytestmark = pytest.mark.e2e

CALLERS = ("a", "b", "c")
TWO: dict[str, Any] = {
    "command": LAB,
    "versions": {"v1": {}, "v2": {}},
    "circuit_breaker": {"enabled": False},
    "load_balancing": {"health_check": {"path": "/health", "interval": "1s"}},
    "timeout": "60s",
}
LAZY = f"import runpy, time; time.sleep(1); runpy.run_path({str(SERVICES / 'lab.py')!r}, run_name='__main__')"
CRASHING = "import sys; print('no database', file=sys.stderr); sys.exit(3)"

CYCLES = 50
PROBES = 60
"""Requests by whose versions a share is judged, over every caller's sidecar."""

FEW = 12
"""Requests that show that all of them go one way."""

UNDER_LOAD = 5
"""Requests of the load that are answered during each shift and the probes after it, at least."""

CHANCE = 2.9e-7
"""The probability of a normal distribution beyond five standard deviations, on one side."""


def topology(port: int) -> dict[str, Any]:
    stopped = {
        "v1": {},
        "v2": {"replicas": 0, "command": [sys.executable, "-c", LAZY]},
        "v3": {"replicas": 0, "command": [sys.executable, "-c", CRASHING]},
    }
    names = ["shop", "users", "late", "copied", "loaded"]
    return {
        "name": "shifts",
        "gateway": {"port": port, "routes": [{"path": "/", "service": "shop"}]},
        "services": {
            **{name: {"command": ECHO, "upstreams": names} for name in CALLERS},
            **dict.fromkeys(("shop", "users", "copied", "loaded"), TWO),
            "late": TWO | {"versions": stopped},
        },
    }


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    with running(topology(free_port())) as mesh:
        yield read_map(mesh)


def tail(successes: int, trials: int, share: float) -> float:
    """The smaller of the two probabilities of so many successes or fewer, and so many or more."""

    def mass(number: int) -> float:
        return math.comb(trials, number) * share**number * (1 - share) ** (trials - number)

    fewer = math.fsum(mass(number) for number in range(successes + 1))
    more = math.fsum(mass(number) for number in range(successes, trials + 1))
    return min(fewer, more)


def seen(world: Map, service: str, count: int, **headers: str) -> Counter[str]:
    """The versions that answered so many requests, over the sidecars of all callers; every one has to be a 200."""
    found: Counter[str] = Counter()
    for index, caller in enumerate(CALLERS):
        connection = http.client.HTTPConnection("127.0.0.1", world.upstream(caller, service), timeout=20)
        for _ in range(len(range(index, count, len(CALLERS)))):
            connection.request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            response.read()
            assert response.status == 200, (service, response.status, dict(response.getheaders()))
            found[str(response.getheader("x-meshctl-version"))] += 1
        connection.close()
    return found


async def test_fifty_shifts_to_everything_and_back_lose_nothing_and_hold_at_once(world: Map) -> None:
    """After each command has returned, no caller's sidecar sends a request by what was before."""
    weights = [1 + (number * 37) % 99 for number in range(CYCLES)]
    took: list[float] = []
    async with MeshClient(world.mesh.paths.api_socket) as client:
        target = await client.call_target("gateway")
        request = MeshRequest(service="shop", path="/", timeout=60)
        load = Load(target, request, Arrivals(rate=100, duration=3600), connections=50)
        sending = asyncio.ensure_future(load.run())
        for weight in weights:
            for share in (weight, 100, 0):
                before = load.tally.total.requests
                result: TrafficResult = await client.shifts.shift(
                    ShiftRequest(service="shop", weights={"v2": share}, author="test@canary shift")
                )
                assert result.after.weights == {"v1": 100 - share, "v2": share}
                assert result.acked == result.total == len(CALLERS) + 1
                took.append(result.duration_ms)
                probes = PROBES if share == weight else FEW
                found = await asyncio.to_thread(seen, world, "shop", probes)
                assert tail(found["v2"], probes, share / 100) > CHANCE, (share, found)
                while load.tally.total.requests < before + UNDER_LOAD:
                    assert not sending.done(), "the load goes on"
                    await asyncio.sleep(0.002)
        load.stop()
        await sending
    assert load.tally.total.failures == 0, load.sample
    assert set(load.tally.versions) == {"v1", "v2"}
    world.mesh.must("diff")
    took.sort()
    print(f"median {took[len(took) // 2]:.1f} ms, longest {took[-1]:.1f} ms of {len(took)} shifts")


def test_a_version_that_does_not_run_gets_its_first_request_when_it_is_healthy(world: Map) -> None:
    load = world.mesh.start("load", "late", "--rps", "100", "--duration", "10m", "-o", "json")
    try:
        assert load.stdout is not None
        while not json.loads(load.stdout.readline())["total"]["requests"]:
            pass  # v1 has answered nothing yet
        done = world.mesh.run("canary", "shift", "late", "v2=50", "-o", "json")
    finally:
        load.send_signal(2)
        out, err = load.communicate(timeout=60)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["started"], result["acked"]) == (["late-v2-1"], len(CALLERS) + 1)
    assert result["waited_ms"] > 1000
    last = json.loads(out.splitlines()[-1])
    assert (last["total"]["failures"], load.returncode) == (0, 130), (last, err)
    assert tail(seen(world, "late", 120)["v2"], 120, 0.5) > CHANCE


def test_a_version_that_does_not_come_up_changes_nothing_and_is_gone(world: Map) -> None:
    before = api(world.mesh, "/policies")["policies"]
    done = world.mesh.run("canary", "shift", "late", "v3=10")
    assert done.code == 1
    assert "error: late-v3-1 did not come up: exited with 3" in done.err
    assert "    no database\n" in done.err
    assert api(world.mesh, "/policies")["policies"] == before
    wait_until(
        lambda: {item["version"] for item in world.mesh.service("late")["instances"]} <= {"v1", "v2"}, "it is gone"
    )


def test_only_requests_with_the_header_reach_the_version_until_all_do(world: Map) -> None:
    world.mesh.must("canary", "shift", "copied", "v2=100", "--header", "x-canary=1")
    assert seen(world, "copied", 30) == {"v1": 30}
    assert seen(world, "copied", 30, x_canary="1") == {"v2": 30}
    assert seen(world, "copied", 30, x_canary="2") == {"v1": 30}
    world.mesh.must("canary", "shift", "copied", "v2=0")
    assert seen(world, "copied", 30, x_canary="1") == {"v1": 30}


def versions_of_users(world: Map, count: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for caller in CALLERS:
        connection = http.client.HTTPConnection("127.0.0.1", world.upstream(caller, "users"), timeout=20)
        for number in range(count):
            user = f"user-{number}"
            connection.request("GET", "/", headers={"x-user": user})
            response = connection.getresponse()
            response.read()
            version = str(response.getheader("x-meshctl-version"))
            assert found.setdefault(user, version) == version, "one user, one version, whoever calls"
        connection.close()
    return found


def test_a_user_stays_on_one_version_through_a_shift(world: Map) -> None:
    world.mesh.must("canary", "shift", "users", "v2=20", "--sticky", "header:x-user")
    first = versions_of_users(world, 200)
    assert tail(Counter(first.values())["v2"], 200, 0.2) > CHANCE
    world.mesh.must("canary", "shift", "users", "v2=60")
    later = versions_of_users(world, 200)
    assert tail(Counter(later.values())["v2"], 200, 0.6) > CHANCE
    assert {user for user, version in first.items() if version == "v2"} <= {u for u, v in later.items() if v == "v2"}
    world.mesh.must("canary", "shift", "users", "v2=0")
    assert not [item for item in api(world.mesh, "/policies?owner=users")["policies"] if item["kind"] == "sticky"]


def under_way(world: Map, cluster: str) -> int:
    """Requests that callers' sidecars have begun at a cluster: those that wait for a connection, or for an answer."""
    names = [f"{cluster}upstream_rq_{gauge}" for gauge in ("pending_active", "active")]
    found = [world.stats(caller, "upstream_rq") for caller in CALLERS]
    return sum(stats[name] for stats in found for name in names)


def test_copies_are_the_share_that_was_asked_for(world: Map) -> None:
    world.mesh.must("canary", "mirror", "copied", "v2", "--percent", "20")
    assert seen(world, "copied", 300) == {"v1": 300}
    counter = "cluster.mirror/copied/v2.upstream_rq_total"
    wait_until(lambda: not under_way(world, "cluster.mirror/copied/v2."), "no copy is still to be sent or answered")
    sent = sum(world.stats(caller, "upstream_rq_total")[counter] for caller in CALLERS)
    assert tail(sent, 300, 0.2) > CHANCE
    own = world.own("copied-v2-1")
    wait_until(lambda: ask(own, "/seen/").json["copies"] == sent, "all copies have arrived")
    world.mesh.must("canary", "mirror", "copied", "--stop")
    seen(world, "copied", 60)
    wait_until(lambda: counter not in world.stats("a", "upstream_rq_total"), "nothing is left to send copies to")
    assert ask(own, "/seen/").json["copies"] == sent


def test_a_load_and_the_figures_of_the_mesh_agree(world: Map) -> None:
    """What the sender counted is what the gateway's sidecar did, by version and outcome; it can only take longer."""
    world.mesh.must("canary", "shift", "loaded", "v2=40")
    ask(world.own("loaded-v2-1"), "/set-echo/503/0.02")
    ask(world.own("loaded-v1-1"), "/set-echo/200/0.05")
    out = world.mesh.must("load", "loaded/x", "--rps", "100", "--duration", "3s", "-X", "POST", "-o", "json")
    last = json.loads(out.splitlines()[-1])
    # What a machine that stood still had no time to send is told, and is in no figure.
    count = last["sent"]
    assert (count + last["unsent"], count > 0, last["done"]) == (300, True, True)
    sent = {item["version"]: item["figures"] for item in last["versions"]}
    assert tail(sent["v2"]["requests"], count, 0.4) > CHANCE
    assert (sent["v1"]["failures"], sent["v2"]["failures"]) == (0, sent["v2"]["requests"])

    def agree() -> dict[str, Any] | None:
        rows = api(world.mesh, "/metrics?service=loaded&window=60&buckets=true")["versions"]
        found = {row["version"]: row for row in rows}
        counts = {name: (row["requests"], row["failures"]) for name, row in found.items()}
        told = counts == {name: (figures["requests"], figures["failures"]) for name, figures in sent.items()}
        # Envoy adds up durations once a second, later than requests.
        timed = all(sum(b["count"] for b in row["buckets"]) == row["requests"] for row in found.values())
        return found if told and timed else None

    rows = wait_until(agree, "the mesh has counted as many")
    for version, least in (("v1", 50), ("v2", 20)):
        assert rows[version]["p50_ms"] > least * 0.95
        # A bucket is a factor of 1.1 wide, and so near may the two be.
        assert sent[version]["p50_ms"] > rows[version]["p50_ms"] / 1.1
    assert last["total"]["success"] == pytest.approx(1 - sent["v2"]["requests"] / count, abs=1e-6)
