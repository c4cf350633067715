"""Faults with real traffic: as many requests as asked for, as late as asked for, and nobody else's."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from tests.e2e.harness import SERVICES, MeshUnderTest, wait_until
from tests.e2e.traffic import GRPC, PATIENT, Map, ask, read_map, running
from tests.support.swift_client import KeptConnection, Reply, fire

from meshctl.control.request_faults import LEASE

pytestmark = pytest.mark.e2e

SWIFT = [sys.executable, str(SERVICES / "swift.py")]
PLAIN = {"command": SWIFT, "circuit_breaker": {"enabled": False}}
ONCE = {**PLAIN, "retry_policy": {"max_attempts": 1}}
SIGMAS = 5


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    called = {
        "once": ONCE,
        "retried": {**PLAIN, "retry_policy": {"base_interval": "1ms", "budget": {"percent": "100%"}}},
        "timed": {**ONCE, "timeout": "400ms"},
        "careful": {"command": SWIFT, "retry_policy": {"max_attempts": 1}},
        "versions": {**ONCE, "versions": {"v1": {"replicas": 2}, "v2": {}}, "split": {"v1": 50, "v2": 50}},
        "prices": {"command": GRPC, "protocol": "grpc", "circuit_breaker": {"enabled": False}},
        "broken": ONCE,
    }
    callers = {name: {"command": SWIFT, "upstreams": [*called]} for name in ("a", "b")}
    topology: dict[str, Any] = {
        "name": "faults",
        "defaults": PATIENT,
        "faults": {"from-the-start": {"service": "broken", "abort": 418, "for": "1h"}},
        "services": {**callers, **called},
    }
    with running(topology) as mesh:
        yield read_map(mesh)


@pytest.fixture(autouse=True)
def no_fault_stays(world: Map) -> Iterator[None]:
    yield
    for fault in api(world.mesh, "GET", "/faults")["faults"]:
        if fault["origin"] == "command":
            api(world.mesh, "POST", "/faults/clear", {"ids": [fault["id"]], "author": "test"})


def api(mesh: MeshUnderTest, method: str, path: str, body: Any = None) -> Any:
    """What the control plane answers: faster than a command each."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    with closing(connection), closing(socket.socket(socket.AF_UNIX)) as opened:
        opened.connect(mesh.paths.api_socket)
        connection.sock = opened
        text = None if body is None else json.dumps(body)
        connection.request(method, f"/v1{path}", text, {"content-type": "application/json"})
        with closing(connection.getresponse()) as answer:
            found = json.loads(answer.read())
            assert answer.status == 200, found
            return found


def inject(world: Map, service: str, **fault: Any) -> dict[str, Any]:
    """What the API says of a fault that is on now."""
    found: dict[str, Any] = api(world.mesh, "POST", "/faults", {"service": service, "author": "test", **fault})
    return found


def clear(world: Map, fault: dict[str, Any]) -> None:
    api(world.mesh, "POST", "/faults/clear", {"ids": [fault["fault"]["id"]], "author": "test"})


def within(found: int, total: int, share: float) -> bool:
    """Whether a count is within five standard deviations of what a share gives."""
    return abs(found - total * share) <= SIGMAS * math.sqrt(total * share * (1 - share)) + 1


def test_shares_are_those_asked_for_down_to_a_thousandth(world: Map) -> None:
    for path, percent in (("/seldom", 0.1), ("/some", 2.5), ("/often", 60)):
        inject(world, "once", abort=503, percent=percent, path=path)
    counts = {"/seldom": 5000, "/some": 2000, "/often": 1000, "/never": 500}
    replies = fire(world.upstream("a", "once"), [path for path, count in counts.items() for _ in range(count)])
    hit = Counter(reply.path for reply in replies if reply.status == 503)
    assert all(bool(reply.fault) == (reply.status == 503) for reply in replies)
    assert hit["/never"] == 0
    for path, share in (("/seldom", 0.001), ("/some", 0.025), ("/often", 0.6)):
        assert within(hit[path], counts[path], share), f"{path}: {hit[path]} of {counts[path]}"


def draw(world: Map, held: float) -> dict[str, int]:
    """What became of 3000 requests, of which some are held for so many seconds and some answered with 503.

    How many were held the sidecar says itself: how long an answer took says what else the machine did, too.
    """
    before = count_held(world, "once")
    replies = fire(world.upstream("a", "once"), ["/"] * 3000, connections=64)
    held_in_all = count_held(world, "once") - before
    hit = sum(bool(reply.fault) for reply in replies)
    failed = sum(reply.status == 503 for reply in replies)
    # Envoy counts a delay from when its loop last looked at the clock: while that is held up, some are too short.
    assert sum(reply.seconds >= held - 0.005 for reply in replies) >= 0.98 * held_in_all
    both = held_in_all + failed - hit
    return {"none": 3000 - hit, "late": held_in_all - both, "failed": failed - both, "both": both}


def count_held(world: Map, service: str) -> int:
    """How many requests the sidecar of a service has delayed."""
    return sum(world.stats(service, r"\.fault\.delays_injected$").values())


def test_delay_and_failure_together_are_as_the_table_says(world: Map) -> None:
    seen = inject(world, "once", delay="100ms", abort=503, percent=30)
    kinds = draw(world, 0.1)
    told = {item["what"]: item["share"] for item in seen["forecast"]["outcomes"]}
    for kind, what in (
        ("none", "nothing"),
        ("late", "delay 100ms alone"),
        ("failed", "abort 503 alone"),
        ("both", "delay 100ms, then abort 503"),
    ):
        assert within(kinds[kind], 3000, told[what]), f"{kind}: {kinds[kind]} of 3000, told {told[what]}"


def test_exclusive_faults_never_come_together(world: Map) -> None:
    inject(world, "once", delay="100ms", abort=503, percent=30, exclusive=True)
    kinds = draw(world, 0.1)
    assert kinds["both"] == 0
    for kind, share in (("none", 0.4), ("late", 0.3), ("failed", 0.3)):
        assert within(kinds[kind], 3000, share), f"{kind}: {kinds[kind]} of 3000"


def test_delays_are_those_asked_for(world: Map) -> None:
    inject(world, "once", delay="60ms")

    def are_in_time() -> bool:
        took = sorted(reply.seconds for reply in fire(world.upstream("a", "once"), ["/"] * 40, connections=4))
        # Where the machine holds Envoy's loop up, some are late, and those that begin meanwhile too short.
        return took[0] >= 0.055 and took[len(took) // 10] <= 0.068

    wait_until(are_in_time, "delays are as long as asked for")


def test_jitter_spreads_delays_evenly(world: Map) -> None:
    inject(world, "once", delay="60ms", jitter="40ms")

    def are_in_time() -> bool:
        took = [reply.seconds for reply in fire(world.upstream("a", "once"), ["/"] * 400, connections=16)]
        assert max(took) >= 0.085
        # Uniform over 81 ms: the standard deviation of the mean of 400 is 1.2 ms; a busy machine adds.
        return 0.015 <= min(took) <= 0.035 and 0.054 <= statistics.mean(took) <= 0.080

    wait_until(are_in_time, "delays are as long as asked for")


def test_callers_that_are_not_named_are_left_alone(world: Map) -> None:
    inject(world, "once", abort=503, callers=["a"])
    assert {reply.status for reply in fire(world.upstream("a", "once"), ["/"] * 200)} == {503}
    others = fire(world.upstream("b", "once"), ["/"] * 500)
    assert {(reply.status, reply.fault) for reply in others} == {(200, "")}


def test_a_fault_is_narrowed_by_method_path_header_version_and_instance(world: Map) -> None:
    port = world.upstream("a", "once")
    inject(world, "once", abort=418, methods=["POST"], path="/pay", headers={"x-user": "ann", "x-any": None})
    both = "x-user: ann\r\nx-any: 1\r\n"
    assert {r.status for r in fire(port, ["/pay", "/pay/now", "/pay?x=1"], method="POST", headers=both)} == {418}
    assert {r.status for r in fire(port, ["/payments", "/"], method="POST", headers=both)} == {200}
    assert {r.status for r in fire(port, ["/pay"], headers=both)} == {200}
    assert {r.status for r in fire(port, ["/pay"], method="POST", headers="x-user: ann\r\n")} == {200}
    inject(world, "versions", abort=503, version="v2")
    inject(world, "versions", abort=500, instance="versions-v1-2")
    shares = Counter(reply.status for reply in fire(world.upstream("a", "versions"), ["/"] * 1000))
    assert within(shares[503], 1000, 0.5)
    assert shares[500] + shares[200] == 1000 - shares[503]
    assert abs(shares[500] - shares[200]) <= 60


def test_health_checks_are_hit_only_when_asked(world: Map) -> None:
    port = world.upstream("a", "once")
    fault = inject(world, "once", abort=503)
    assert [reply.status for reply in fire(port, ["/health", "/healthy"], connections=1)] == [503, 200]
    clear(world, fault)
    inject(world, "once", abort=503, health_checks=True)
    assert fire(port, ["/health"])[0].status == 503


def test_connections_that_are_open_feel_it_at_once(world: Map) -> None:
    async def talk() -> list[int]:
        connection = KeptConnection(world.upstream("a", "once"))
        statuses = []
        for _ in range(5):
            statuses.append((await connection.ask()).status)
            fault = await asyncio.to_thread(inject, world, "once", abort=503)
            statuses.append((await connection.ask()).status)
            await asyncio.to_thread(clear, world, fault)
        connection.close()
        return statuses

    assert asyncio.run(talk()) == [200, 503] * 5


def test_retries_see_faults_at_the_callee_and_leave_what_was_told(world: Map) -> None:
    seen = inject(world, "retried", abort=503, percent=50)
    told = {item["which"]: item["fails"] for item in seen["forecast"]["calls"]}
    port = world.upstream("a", "retried")
    failed = sum(reply.status == 503 for reply in fire(port, ["/"] * 2000))
    assert told["GET, PUT, DELETE, Idempotency-Key"] == pytest.approx(0.125)
    assert within(failed, 2000, 0.125), f"{failed} of 2000"
    failed = sum(reply.status == 503 for reply in fire(port, ["/"] * 1000, method="POST"))
    assert within(failed, 1000, told["POST, PATCH"])


def test_a_fault_at_the_caller_is_seen_by_nobody_else(world: Map) -> None:
    seen = inject(world, "careful", abort=503, side="caller", callers=["a"])
    assert [item["fails"] for item in seen["forecast"]["calls"]] == [1.0]
    assert {reply.status for reply in fire(world.upstream("a", "careful"), ["/"] * 50)} == {503}
    assert {reply.status for reply in fire(world.upstream("b", "careful"), ["/"] * 50)} == {200}
    circuits = api(world.mesh, "GET", "/circuits?service=careful")["circuits"]
    assert {circuit["state"] for circuit in circuits} == {"closed"}
    assert ask(world.proxy("a"), "http://careful/").status == 503


def test_a_request_that_is_reset_is_retried_and_leaves_others_alone(world: Map) -> None:
    before = world.stats("a", r"^cluster\.retried/v1\.upstream_cx_total$")
    fault = inject(world, "retried", reset=True, percent=30)
    replies = fire(world.upstream("a", "retried"), ["/"] * 1500)
    assert within(sum(reply.status == 503 for reply in replies), 1500, 0.3**3)
    after = world.stats("a", r"^cluster\.retried/v1\.(upstream_cx_total|upstream_rq_rx_reset)$")
    assert after["cluster.retried/v1.upstream_rq_rx_reset"] >= 400
    # The connection that all of them share stays.
    assert after["cluster.retried/v1.upstream_cx_total"] <= before.get("cluster.retried/v1.upstream_cx_total", 0) + 1
    clear(world, fault)
    assert fire(world.upstream("a", "retried"), ["/"])[0].status == 200


def test_a_blackhole_lasts_until_the_caller_has_waited_long_enough(world: Map) -> None:
    seen = inject(world, "timed", blackhole=True)
    assert "callers get 504 after the timeout of 400ms" in seen["forecast"]["notes"]
    reply = fire(world.upstream("a", "timed"), ["/"])[0]
    assert reply.status == 504
    assert reply.seconds >= 0.39


def test_a_rate_slows_bodies_and_marks_them(world: Map) -> None:
    inject(world, "once", rate="100KB/s", path="/bytes")
    slow, quick = fire(world.upstream("a", "once"), ["/small", "/bytes/100000"], connections=1)
    assert slow.fault
    assert slow.size == 100_000
    assert slow.seconds >= 0.7
    assert not quick.fault


def test_a_grpc_call_ends_with_the_status_asked_for(world: Map) -> None:
    inject(world, "prices", grpc_status="RESOURCE_EXHAUSTED")
    with grpc.insecure_channel(f"127.0.0.1:{world.upstream('a', 'prices')}") as channel:
        call = channel.unary_unary("/test.Echo/Say")
        with pytest.raises(grpc.RpcError) as failed:
            call(b"x", timeout=60)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_coming_and_going_a_hundred_times_loses_nothing_else(world: Map) -> None:
    """Requests that no fault means are answered by the service, whatever faults come and go beside them."""
    stop = threading.Event()
    replies: list[Reply] = []

    def load() -> None:
        while not stop.is_set():
            replies.extend(fire(world.upstream("a", "once"), ["/other"] * 50, connections=4))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        turns = 0
        while turns < 100 or (len(replies) < 500 and thread.is_alive()):
            clear(world, inject(world, "once", abort=503, delay="10ms", jitter="5ms", path="/meant"))
            turns += 1
    finally:
        stop.set()
        thread.join()
    assert len(replies) >= 500
    assert {(reply.status, reply.fault) for reply in replies} == {(200, "")}


def test_a_fault_ends_at_its_deadline(world: Map) -> None:
    port = world.upstream("a", "once")

    def ids() -> set[str]:
        return {item["id"] for item in api(world.mesh, "GET", "/faults")["faults"]}

    def status_while_it_is_on() -> tuple[int, dict[str, Any]] | None:
        begun = time.monotonic()
        fault = inject(world, "once", abort=503, duration="1s")["fault"]
        status = fire(port, ["/"])[0].status
        if time.monotonic() - begun < 1:
            return status, fault
        wait_until(lambda: fault["id"] not in ids(), "it is over before its answer was there")
        return None

    status, fault = wait_until(status_while_it_is_on, "an answer in time")
    assert status == 503
    wait_until(lambda: fire(port, ["/"])[0].status == 200, "the fault is over")
    wait_until(lambda: fault["id"] not in ids(), "and it is known to be over")
    events = [json.loads(line) for line in world.mesh.must("events", "-o", "json").splitlines()]
    mine = [event["kind"] for event in events if f"fault {fault['id']} " in event["message"]]
    assert mine == ["fault.on", "fault.off"]


def test_a_mesh_may_start_broken(world: Map) -> None:
    def ask_once() -> tuple[int, str]:
        reply = fire(world.upstream("a", "broken"), ["/"])[0]
        return reply.status, reply.fault

    # All leases of a sidecar end with the earliest deadline of any fault, and the rest are handed out anew then.
    wait_until(lambda: ask_once() == (418, "from-the-start"), "the fault of the topology is on")


def test_a_fault_ends_with_the_control_plane_and_is_taken_over_by_the_next(world: Map) -> None:
    """Invariant 7."""
    port, other = world.upstream("a", "once"), world.upstream("a", "retried")
    fault = inject(world, "once", abort=503, duration="5m", reason="who watches?")["fault"]
    begun = time.monotonic()
    short = inject(world, "retried", abort=503, duration="3s")["fault"]
    deadline = time.monotonic() + 3
    world.mesh.kill_daemon()
    lease = time.monotonic() + LEASE
    looks: list[tuple[float, float, bool, bool]] = []

    def is_over() -> bool:
        sent = time.monotonic()
        short_is_on, long_is_on = (fire(each, ["/"])[0].status == 503 for each in (other, port))
        looks.append((sent, time.monotonic(), short_is_on, long_is_on))
        return not short_is_on and not long_is_on

    wait_until(is_over, "both are over", LEASE + 30)
    # The leases of all end with the earliest deadline, and not before.
    assert all(short_is_on and long_is_on for _, answered, short_is_on, long_is_on in looks if answered < begun + 3)
    # A sidecar that hangs at that very moment ends a fault later, which one look finds, as it waits meanwhile.
    assert sum(short_is_on for sent, _, short_is_on, _ in looks if sent > deadline + 1) <= 3
    assert sum(long_is_on for sent, _, _, long_is_on in looks if sent > lease + 1) <= 3
    world.mesh.up()
    wait_until(lambda: fire(port, ["/"])[0].status == 503, "the fault is on again")
    known = {item["id"]: item for item in api(world.mesh, "GET", "/faults")["faults"]}
    assert known[fault["id"]]["reason"] == "who watches?"
    wait_until(lambda: short["id"] not in {f["id"] for f in api(world.mesh, "GET", "/faults")["faults"]}, "it is gone")
