"""Faults of processes, certificates and ways between services, on real Envoys; the control plane killed meanwhile."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import LAB, TCP, Map, ask, read_map, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    quick = {"interval": "1s", "timeout": "1s"}
    topology = {
        "name": "lab",
        "defaults": {
            "timeout": "2s",
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
    if world.mesh.run("inject", "clear", "--all").code == 3:  # a test that failed left no control plane
        world.mesh.up()
        world.mesh.must("inject", "clear", "--all")
    wait_until(lambda: status(world, "one", "two") == 200, "all is well again")


def status(world: Map, caller: str, callee: str) -> int:
    return ask(world.upstream(caller, callee), "/x").status


def faults(mesh: MeshUnderTest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(mesh.must("inject", "list", "-o", "json"))["faults"]
    return found


def disturb(mesh: MeshUnderTest, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mesh.must("inject", *words, "-o", "json"))
    return found


def pid_of(mesh: MeshUnderTest, instance: str) -> int:
    return mesh.pids()[instance]


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def round_trip(world: Map) -> float:
    """Seconds that a line takes there and back over plain TCP, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", world.upstream("one", "lines")), timeout=10) as line:
        read = line.makefile("rb").readline
        assert read() == b"lines-v1-1\n"
        begun = time.monotonic()
        line.sendall(b"there\n")
        assert read() == b"there\n"
        return time.monotonic() - begun


@pytest.mark.parametrize("kind", ["kill", "exit"])
def test_an_instance_that_is_struck_comes_back(world: Map, kind: str) -> None:
    before = pid_of(world.mesh, "two-v1-1")
    result = disturb(world.mesh, kind, "two")
    assert (result["instances"], result["id"]) == (["two-v1-1"], "")
    wait_until(lambda: status(world, "one", "two") == 200, "it is back")
    assert pid_of(world.mesh, "two-v1-1") != before
    assert faults(world.mesh) == []


def test_a_pause_is_seen_by_callers_and_ended_by_hand(world: Map) -> None:
    mesh, pid = world.mesh, pid_of(world.mesh, "two-v1-1")
    paused = disturb(mesh, "pause", "two/two-v1-1", "--for", "1m")
    assert is_stopped(pid)
    assert [(fault["id"], fault["kind"], fault["subject"]) for fault in faults(mesh)] == [
        (paused["id"], "pause", "two-v1-1")
    ]
    wait_until(lambda: status(world, "one", "two") >= 500, "nobody answers")
    refused = mesh.run("inject", "cpu", "two")
    assert (refused.code, "held by a fault already" in refused.err) == (1, True)
    mesh.must("inject", "clear", paused["id"])
    assert not is_stopped(pid)
    wait_until(lambda: status(world, "one", "two") == 200, "it answers again")


def test_a_pause_is_over_when_its_process_is_gone(world: Map) -> None:
    disturb(world.mesh, "pause", "two", "--for", "1m")
    disturb(world.mesh, "kill", "two")
    wait_until(lambda: faults(world.mesh) == [], "nothing is left to be undone")


def test_time_is_taken_from_one_instance(world: Map) -> None:
    disturb(world.mesh, "cpu", "two", "--percent", "90", "--for", "1m")
    pid = pid_of(world.mesh, "two-v1-1")
    wait_until(lambda: is_stopped(pid), "it stands still at times")
    wait_until(lambda: not is_stopped(pid), "and goes on at others")


def test_a_partition_cuts_two_services_off_from_each_other_and_from_nobody_else(world: Map) -> None:
    disturb(world.mesh, "partition", "one", "two", "--for", "1m")
    assert status(world, "one", "two") in (503, 504)
    assert status(world, "three", "two") == 200
    assert status(world, "one", "three") == 200
    refused = world.mesh.run("inject", "latency", "two", "--delay", "1ms", "--from", "one")
    assert (refused.code, "disturbed already" in refused.err) == (1, True)
    world.mesh.must("inject", "clear", "--all")
    wait_until(lambda: status(world, "one", "two") == 200, "it passes again")


def test_latency_is_felt_by_plain_tcp(world: Map) -> None:
    usual = round_trip(world)
    disturb(world.mesh, "latency", "lines", "--delay", "150ms", "--from", "one", "--for", "1m")
    late = round_trip(world)
    assert late >= 0.3
    assert usual < 0.15
    world.mesh.must("inject", "clear", "--all")
    wait_until(lambda: round_trip(world) < 0.15, "it is as quick as before")


def test_a_certificate_that_is_not_valid_is_refused_by_peers(world: Map) -> None:
    assert status(world, "one", "two") == 200
    disturb(world.mesh, "cert-expired", "two", "--for", "1m")
    wait_until(lambda: status(world, "one", "two") == 503, "peers refuse it")
    assert status(world, "one", "three") == 200
    world.mesh.must("inject", "clear", "--all")
    wait_until(lambda: status(world, "one", "two") == 200, "it has an ordinary one")


def test_faults_end_in_time_when_the_control_plane_is_killed(world: Map) -> None:
    """Invariant 7."""
    mesh = world.mesh
    pid = pid_of(mesh, "one-v1-1")
    disturb(mesh, "cert-expired", "three", "--for", "15s")
    disturb(mesh, "partition", "three", "two", "--for", "15s")
    ends_at = disturb(mesh, "pause", "one", "--for", "12s")["ends_at"]
    mesh.kill_daemon()
    assert is_stopped(pid)
    assert status(world, "three", "two") >= 500
    wait_until(lambda: not is_stopped(pid), "it runs again", timeout=20)
    assert time.time() > ends_at - 1
    wait_until(lambda: status(world, "three", "two") == 200, "it passes again", timeout=20)
    wait_until(lambda: status(world, "one", "three") == 200, "its certificate is valid", timeout=20)
    mesh.up()
    wait_until(lambda: faults(mesh) == [], "the next control plane finds nothing to be undone")
    assert pid_of(mesh, "one-v1-1") == pid


def test_what_does_not_exist_is_refused(world: Map) -> None:
    for words in (["pause", "four"], ["partition", "one", "four"], ["cert-expired", "four"]):
        done = world.mesh.run("inject", *words)
        assert (done.code, "two" in done.err) == (1, True), done.err
    done = world.mesh.run("inject", "partition", "two", "lines")
    assert "neither calls the other" in done.err
    assert world.mesh.run("inject", "pause", "two", "--for", "25h").code == 2
