"""Faults of processes, certificates and ways between services, on real Envoys; the control plane killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import pids
from tests.e2e.traffic import LAB, TCP, Map, api, ask, read_map, running

from meshctl.client.client import MeshClient
from meshctl.errors import ConflictError, NotFoundError, NotRunningError, UsageError
from meshctl.wire.disturbances import DisturbanceKind, DisturbRequest, DisturbResult
from meshctl.wire.faults import ClearRequest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    quick = {"interval": "1s", "timeout": "1s"}
    topology = {
        "name": "lab",
        "defaults": {
            "timeout": "1s",
            "retry_policy": {"max_attempts": 1},
            "circuit_breaker": {"enabled": False},
            "load_balancing": {"health_check": {"path": "/health", **quick}},
        },
        "services": {
            "one": {"command": LAB, "upstreams": ["two", "three", "lines"]},
            "two": {"command": LAB},
            "three": {"command": LAB, "upstreams": ["two"]},
            "lines": {"command": TCP, "protocol": "tcp"},
        },
    }
    with running(topology) as mesh:
        yield read_map(mesh)


@pytest.fixture(autouse=True)
def calm(world: Map) -> Iterator[None]:
    yield
    try:
        clear(world.mesh)
    except NotRunningError:  # a test that failed left no control plane
        world.mesh.up()
        clear(world.mesh)
    wait_until(lambda: status(world, "one", "two") == 200, "all is well again")


def status(world: Map, caller: str, callee: str) -> int:
    return ask(world.upstream(caller, callee), "/x").status


def faults(mesh: MeshUnderTest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api(mesh, "/faults")["faults"]
    return found


def disturb(mesh: MeshUnderTest, kind: DisturbanceKind, target: str, **more: Any) -> DisturbResult:
    """What ``meshctl inject`` does, without starting a command."""
    request = DisturbRequest(kind=kind, target=target, author="test@inject", **{"duration": 60.0, **more})

    async def ask() -> DisturbResult:
        async with MeshClient(mesh.paths.api_socket) as client:
            return await client.disturbances.disturb(request)

    return asyncio.run(ask())


def clear(mesh: MeshUnderTest) -> None:
    """End every fault."""

    async def ask() -> None:
        async with MeshClient(mesh.paths.api_socket) as client:
            await client.faults.clear(ClearRequest(author="test@inject"))

    asyncio.run(ask())


def pid_of(mesh: MeshUnderTest, instance: str) -> int:
    return pids(mesh)[instance]


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def round_trip(world: Map) -> float:
    """Seconds that a line takes there and back over plain TCP, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", world.upstream("one", "lines")), timeout=30) as line:
        read = line.makefile("rb").readline
        assert read() == b"lines-v1-1\n"
        begun = time.monotonic()
        line.sendall(b"there\n")
        assert read() == b"there\n"
        return time.monotonic() - begun


@pytest.mark.parametrize("kind", ["kill", "exit"])
def test_an_instance_that_is_struck_comes_back(world: Map, kind: DisturbanceKind) -> None:
    before = pid_of(world.mesh, "two-v1-1")
    result = disturb(world.mesh, kind, "two")
    assert (result.instances, result.id) == (["two-v1-1"], "")
    wait_until(lambda: status(world, "one", "two") == 200, "it is back")
    assert pid_of(world.mesh, "two-v1-1") != before
    assert faults(world.mesh) == []


def test_a_pause_is_seen_by_callers_and_ended_by_hand(world: Map) -> None:
    mesh, pid = world.mesh, pid_of(world.mesh, "two-v1-1")
    paused = json.loads(mesh.must("inject", "pause", "two/two-v1-1", "--for", "1m", "-o", "json"))
    wait_until(lambda: is_stopped(pid), "it stands still")
    listed = json.loads(mesh.must("inject", "list", "-o", "json"))["faults"]
    assert [(fault["id"], fault["kind"], fault["subject"]) for fault in listed] == [(paused["id"], "pause", "two-v1-1")]
    wait_until(lambda: status(world, "one", "two") >= 500, "nobody answers")
    with pytest.raises(ConflictError, match="held by a fault already"):
        disturb(mesh, "cpu", "two", percent=50.0)
    mesh.must("inject", "clear", paused["id"])
    wait_until(lambda: not is_stopped(pid), "it goes on")
    wait_until(lambda: status(world, "one", "two") == 200, "it answers again")


def test_a_pause_is_over_when_its_process_is_gone(world: Map) -> None:
    disturb(world.mesh, "pause", "two")
    disturb(world.mesh, "kill", "two")
    wait_until(lambda: faults(world.mesh) == [], "nothing is left to be undone")


def test_time_is_taken_from_one_instance(world: Map) -> None:
    disturb(world.mesh, "cpu", "two", percent=90.0)
    pid = pid_of(world.mesh, "two-v1-1")
    wait_until(lambda: is_stopped(pid), "it stands still at times")
    wait_until(lambda: not is_stopped(pid), "and goes on at others")


def test_a_partition_cuts_two_services_off_from_each_other_and_from_nobody_else(world: Map) -> None:
    disturb(world.mesh, "partition", "two", source="one")
    assert status(world, "one", "two") in (503, 504)
    wait_until(lambda: status(world, "three", "two") == 200, "others reach the one")
    wait_until(lambda: status(world, "one", "three") == 200, "and the other")
    with pytest.raises(ConflictError, match="disturbed already"):
        disturb(world.mesh, "latency", "two", delay_ms=1.0, source="one")
    clear(world.mesh)
    wait_until(lambda: status(world, "one", "two") == 200, "it passes again")


def test_a_partition_cuts_open_connections_of_plain_tcp(world: Map) -> None:
    with socket.create_connection(("127.0.0.1", world.upstream("one", "lines")), timeout=30) as line:
        read = line.makefile("rb").readline
        assert read() == b"lines-v1-1\n"
        disturb(world.mesh, "partition", "lines", source="one")
        # Envoy closes what is open when its five seconds for draining are over.
        assert read() == b""
    clear(world.mesh)
    wait_until(lambda: round_trip(world) > 0, "it passes again")


def test_latency_is_felt_by_plain_tcp(world: Map) -> None:
    wait_until(lambda: round_trip(world) < 0.15, "it is quick as a rule")
    disturb(world.mesh, "latency", "lines", delay_ms=150.0, source="one")
    assert round_trip(world) >= 0.3
    clear(world.mesh)
    wait_until(lambda: round_trip(world) < 0.15, "it is as quick as before")


def test_a_certificate_that_is_not_valid_is_refused_by_peers(world: Map) -> None:
    disturb(world.mesh, "cert-expired", "two")
    wait_until(lambda: status(world, "one", "two") == 503, "peers refuse it")
    wait_until(lambda: status(world, "one", "three") == 200, "and no other")
    clear(world.mesh)
    wait_until(lambda: status(world, "one", "two") == 200, "it has an ordinary one")


def test_faults_end_in_time_when_the_control_plane_is_killed(world: Map) -> None:
    """Invariant 7."""
    mesh = world.mesh
    pid = pid_of(mesh, "one-v1-1")
    for seconds in (4.0, 15.0, 60.0):
        if ends_at := disturb_and_die(world, pid, seconds):
            break
        mesh.up()
        wait_until(lambda: faults(mesh) == [], "none of them is left", timeout=seconds + 30)
    else:
        pytest.fail("faults of a minute were over before they could be looked at")
    wait_until(lambda: not is_stopped(pid), "it runs again", timeout=seconds + 20)
    assert time.time() > ends_at - 1
    wait_until(lambda: status(world, "three", "two") == 200, "it passes again", timeout=seconds + 20)
    wait_until(lambda: status(world, "one", "three") == 200, "its certificate is valid", timeout=seconds + 20)
    mesh.up()
    wait_until(lambda: faults(mesh) == [], "the next control plane finds nothing to be undone")
    assert pid_of(mesh, "one-v1-1") == pid


def disturb_and_die(world: Map, pid: int, seconds: float) -> float:
    """
    Make a fault of each kind, and kill the control plane: each has to be on. Returns when the first of them ends, or
    0 when that was before they were all looked at: the machine was too slow for faults so short.
    """
    mesh = world.mesh
    made = (
        disturb(mesh, "pause", "one", duration=seconds),
        disturb(mesh, "partition", "two", source="three", duration=seconds),
        disturb(mesh, "cert-expired", "three", duration=seconds),
    )
    ends_at = min(result.ends_at for result in made if result.ends_at is not None)
    daemon = psutil.Process(api(mesh, "/status")["daemon_pid"])
    daemon.kill()
    daemon.wait(30)
    wait_until(lambda: is_stopped(pid) or time.time() >= ends_at, "it stands still")
    seen = is_stopped(pid), status(world, "three", "two") >= 500
    if time.time() >= ends_at:
        return 0.0
    assert seen == (True, True)
    return ends_at


def test_what_does_not_exist_is_refused(world: Map) -> None:
    unknown: tuple[tuple[DisturbanceKind, str], ...] = (("pause", ""), ("partition", "one"), ("cert-expired", ""))
    for kind, source in unknown:
        with pytest.raises(NotFoundError) as failure:
            disturb(world.mesh, kind, "four", source=source)
        assert "two" in failure.value.hint
    with pytest.raises(ConflictError, match="neither calls the other"):
        disturb(world.mesh, "partition", "lines", source="two")
    with pytest.raises(UsageError, match="cannot last 25h"):
        disturb(world.mesh, "pause", "two", duration=25 * 3600.0)
