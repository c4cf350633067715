"""Circuit breakers with real traffic: how they open, try again and close, and what a caller sees of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import ECHO, LAB, PATIENT, Answer, Map, api, ask, ask_many, read_map, running

pytestmark = pytest.mark.e2e

ONCE = {"max_attempts": 1}
HOUR = 3600
QUICK = {"failure_threshold": 3, "success_threshold": 2, "timeout": "1h"}
"""Opens soon, and stays so until a test shortens the time: see ``let_try_again``."""

SLOW = {"slow_call": {"threshold": "100ms"}, "probe_timeout": "300ms"}


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    called = {
        "plain": {"command": LAB, "retry_policy": ONCE, "circuit_breaker": QUICK},
        "again": {"command": LAB, "retry_policy": ONCE, "circuit_breaker": QUICK},
        "retried": {"command": LAB, "retry_policy": {"base_interval": "1ms"}, "circuit_breaker": QUICK},
        "rated": {
            "command": LAB,
            "retry_policy": ONCE,
            "circuit_breaker": {"failure_threshold": 100, "failure_rate": "50%", "minimum_requests": 10},
        },
        "slow": {"command": LAB, "circuit_breaker": QUICK | SLOW},
        "late": {"command": LAB, "timeout": "100ms", "retry_policy": ONCE, "circuit_breaker": QUICK},
        "killed": {"command": LAB, "retry_policy": ONCE, "circuit_breaker": QUICK},
        "capped": {
            "command": LAB,
            "retry_policy": ONCE,
            "limits": {"max_requests": 1},
            "rate_limits": [{"name": "few", "requests": 1, "per": "1h", "path": "/limited"}],
            "circuit_breaker": QUICK | {"failure_threshold": 2},
        },
        "off": {"command": LAB, "retry_policy": ONCE, "circuit_breaker": {"enabled": False}},
        "moody": {
            "command": [sys.executable, "-c", GRPC_SERVICE],
            "protocol": "grpc",
            "retry_policy": ONCE,
            "circuit_breaker": QUICK,
        },
    }
    services = {"a": {"command": ECHO, "upstreams": [*called]}, **called}
    topology = {"name": "circuits", "defaults": PATIENT, "services": services}
    with running(topology) as mesh:
        yield read_map(mesh)


GRPC_SERVICE = """
import os
from concurrent import futures
import grpc

def answer(request, context):
    if request:
        context.abort(getattr(grpc.StatusCode, request.decode()), "as asked")
    return b"fine"

handler = grpc.unary_unary_rpc_method_handler(answer, lambda data: data, lambda data: data)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Moody", {"Answer": handler}),))
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
server.wait_for_termination()
"""


def circuit(world: Map, service: str, caller: str = "a") -> dict[str, Any]:
    found = api(world.mesh, f"/circuits?service={service}")["circuits"]
    return next(item for item in found if item["caller"] == caller)


def fail(world: Map, service: str, times: int, key: str) -> list[Answer]:
    port = world.upstream("a", service)
    return [ask(port, f"/tries/{key}-{number}?fail=9") for number in range(times)]


def count(world: Map, service: str, key: str) -> int:
    """How often the service itself was asked for a key."""
    tries: int = ask(world.own(f"{service}-v1-1"), f"/count/{key}").json["tries"]
    return tries


def let_try_again(world: Map, service: str, **more: Any) -> None:
    """Say that a circuit is open for a moment only: one that has been open for longer lets calls try again."""
    policy = {"services": {service: {"circuit_breaker": QUICK | {"timeout": "10ms"} | more}}}
    done = world.mesh.run("apply", "-f", "-", stdin=json.dumps(policy))
    assert done.code == 0, done.err


def test_it_opens_after_failures_in_a_row_tries_again_and_closes(world: Map) -> None:
    port = world.upstream("a", "plain")
    fail(world, "plain", 2, "first")
    assert ask(port).status == 200  # which ends the row
    assert [answer.status for answer in fail(world, "plain", 3, "second")] == [503] * 3
    answer = ask(port, "/tries/refused")
    assert (answer.status, answer.headers["x-meshctl-circuit"]) == (503, "open")
    assert HOUR - 120 <= int(answer.headers["retry-after"]) <= HOUR
    assert count(world, "plain", "refused") == 0
    # By host name there is another listener, and the same circuit.
    assert ask(world.proxy("a"), "http://plain/").headers.get("x-meshctl-circuit") == "open"
    assert circuit(world, "plain")["state"] == "open"
    assert circuit(world, "plain")["reason"] == "3 failures in a row"
    assert circuit(world, "plain")["rejected"] == 2
    let_try_again(world, "plain")
    wait_until(lambda: ask(port).status == 200, "it tries again")
    assert circuit(world, "plain")["state"] == "half_open"
    assert ask(world.proxy("a"), "http://plain/").status == 200
    assert circuit(world, "plain")["state"] == "closed"
    wait_until(lambda: len(events(world.mesh, "a -> plain")) == 3, "they are events")
    assert events(world.mesh, "a -> plain") == ["circuit.opened", "circuit.half_opened", "circuit.closed"]


def test_a_failure_while_half_open_opens_it_again(world: Map) -> None:
    port = world.upstream("a", "again")
    fail(world, "again", 3, "again")
    let_try_again(world, "again")
    wait_until(lambda: "x-meshctl-circuit" not in ask(port, "/tries/probe?fail=9").headers, "it tries again")
    assert circuit(world, "again")["state"] == "open"
    assert circuit(world, "again")["reason"] == "a call that tried again failed"


def test_retries_of_one_call_count_once(world: Map) -> None:
    fail(world, "retried", 2, "x")
    assert count(world, "retried", "x-0") == 3
    assert (circuit(world, "retried")["state"], circuit(world, "retried")["failures"]) == ("closed", 2)
    fail(world, "retried", 1, "y")
    assert circuit(world, "retried")["state"] == "open"


def test_a_share_of_failures_opens_it(world: Map) -> None:
    port = world.upstream("a", "rated")
    for number in range(9):
        assert ask(port, f"/tries/rate-{number}?fail={number % 2}").status == (503 if number % 2 else 200)
    assert circuit(world, "rated")["state"] == "closed"
    ask(port, "/tries/rate-9?fail=1")
    assert circuit(world, "rated")["state"] == "open"
    assert circuit(world, "rated")["reason"] == "50% of the last calls failed"


def test_slow_calls_count_and_an_abandoned_probe_gives_its_place_back(world: Map) -> None:
    port = world.upstream("a", "slow")
    for _ in range(3):
        assert ask(port, "/sleep/0.2").status == 200
    assert circuit(world, "slow")["state"] == "open"
    let_try_again(world, "slow", **SLOW)
    # Two clients are let through and go away without an answer: neither success nor failure.
    with ExitStack() as stack:
        for number in (1, 2):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"GET /sleep/50 HTTP/1.1\r\nhost: slow\r\n\r\n")
            wait_until(lambda: under_way(world, "slow") == number, "it is let through")  # noqa: B023
    # One that is slow by chance opens it once more.
    wait_until(
        lambda: ask(port).status == 200 and circuit(world, "slow")["state"] in ("half_open", "closed"),
        "a place is free again",
    )


def under_way(world: Map, service: str) -> int:
    """How many requests are under way to a service."""
    name = f"cluster.{service}/v1.upstream_rq_active"
    return world.stats("a", name)[name]


def test_timeouts_count(world: Map) -> None:
    assert [ask(world.upstream("a", "late"), "/sleep/50").status for _ in range(3)] == [504] * 3
    assert circuit(world, "late")["state"] == "open"


def test_refusals_by_limits_are_no_failures_of_the_service(world: Map) -> None:
    port = world.upstream("a", "capped")
    fail(world, "capped", 1, "before")
    with socket.create_connection(("127.0.0.1", port)) as busy:
        busy.sendall(b"GET /sleep/50 HTTP/1.1\r\nhost: capped\r\n\r\n")
        wait_until(lambda: under_way(world, "capped") == 1, "it is")
        for _ in range(3):
            assert ask(port).headers["x-meshctl-overloaded"] == "limits"
        assert (circuit(world, "capped")["state"], circuit(world, "capped")["failures"]) == ("closed", 1)
    wait_until(lambda: ask(port, "/limited").status == 200, "the limit lets one through")
    assert [ask(port, "/limited").status for _ in range(3)] == [429] * 3
    assert circuit(world, "capped")["state"] == "closed"


def test_what_is_switched_off_never_opens(world: Map) -> None:
    fail(world, "off", 10, "x")
    assert ask(world.upstream("a", "off")).status == 200
    assert api(world.mesh, "/circuits?service=off")["circuits"] == []


def test_grpc_goes_by_its_own_status_and_is_answered_as_grpc(world: Map) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{world.upstream('a', 'moody')}") as channel:
        method = channel.unary_unary("/Moody/Answer")

        def status(wanted: str) -> tuple[grpc.StatusCode, dict[str, str]]:
            try:
                method(wanted.encode(), timeout=60, wait_for_ready=True)
            except grpc.RpcError as error:
                said = (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))
                return error.code(), {key: str(value) for key, value in said}
            return grpc.StatusCode.OK, {}

        for _ in range(5):
            assert status("NOT_FOUND")[0] is grpc.StatusCode.NOT_FOUND
        for _ in range(3):
            assert status("INTERNAL")[0] is grpc.StatusCode.INTERNAL
        code, metadata = status("")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert metadata["x-meshctl-circuit"] == "open"
        let_try_again(world, "moody")
        wait_until(lambda: status("")[0] is grpc.StatusCode.OK, "it tries again")


def test_it_works_without_a_control_plane_and_its_state_outlives_it(world: Map) -> None:
    port = world.upstream("a", "killed")
    world.mesh.kill_daemon()
    fail(world, "killed", 3, "dead")
    assert ask(port).headers["x-meshctl-circuit"] == "open"
    world.mesh.up()
    assert ask(port).headers["x-meshctl-circuit"] == "open"
    assert circuit(world, "killed")["state"] == "open"
    assert 0 < circuit(world, "killed")["retry_in"] <= HOUR
    # Neither does it end with the sidecar's process.
    pid = world.mesh.pids()["sidecar.a"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: world.mesh.pids()["sidecar.a"] not in (pid, None), "it was started again")
    answer = wait_until(lambda: try_to_ask(port), "it answers")
    assert answer.headers["x-meshctl-circuit"] == "open"
    world.mesh.up()  # which returns when all of its listeners are there again


def test_it_is_held_open_and_closed_by_hand(world: Map) -> None:
    port, mesh = world.upstream("a", "off"), world.mesh
    done = mesh.run("circuit", "open", "off", "-m", "its database moves")
    assert done.code == 0
    assert "the circuit to off is held open; applied to" in done.err
    # At every listener of every caller, from the moment the command is back.
    for answer in (ask(port), ask(world.proxy("a"), "http://off/")):
        assert (answer.status, answer.headers["x-meshctl-circuit"]) == (503, "open")
        assert "it was opened by hand" in answer.text
    assert mesh.call("http://off/")["headers"]["x-meshctl-circuit"] == "open"
    listed = json.loads(mesh.must("circuit", "list", "off", "-o", "json"))["circuits"]
    assert {(item["state"], item["forced"]) for item in listed} == {("open", "open")}
    mesh.must("circuit", "close", "killed")
    assert "x-meshctl-circuit" not in ask(world.upstream("a", "killed")).headers
    assert {a.status for a in ask_many(world.upstream("a", "killed"), "/tries/held?fail=1000", 20)} == {503}
    assert circuit(world, "killed")["state"] == "closed"
    mesh.must("circuit", "auto", "off")
    assert ask(port).status == 200
    mesh.must("circuit", "auto", "killed")
    assert circuit(world, "killed")["failures"] == 0
    assert ask(world.upstream("a", "killed")).status == 200
    assert mesh.run("circuit", "open", "nobody").code == 1


def try_to_ask(port: int) -> Answer | None:
    try:
        return ask(port)
    except OSError:
        return None


def events(mesh: MeshUnderTest, subject: str) -> list[str]:
    lines = mesh.must("events", "-o", "json").splitlines()
    found = [json.loads(line) for line in lines]
    return [item["kind"] for item in found if item["subject"] == subject]
