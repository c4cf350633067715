"""How long callers wait and what they try again: counts, pauses, other instances, budgets, deadlines, gRPC statuses."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean

import aiohttp
import grpc
import pytest
from tests.e2e.traffic import ECHO, GRPC, LAB, Answer, Map, ask, free_port, read_map, running

pytestmark = pytest.mark.e2e

DEADLINE = "x-envoy-expected-rq-timeout-ms"
EVENTS = {"accept": "text/event-stream"}
SLOW = 3.0
"""Seconds within which an answer that a bound cuts off must have come: none of the bounds tested is longer than 1 s."""


@contextmanager
def deaf() -> Iterator[int]:
    """A port on which connections are neither accepted nor refused: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for connection in waiting:
                connection.close()


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    quick = {"max_attempts": 3, "base_interval": "5ms"}
    with deaf() as nobody:
        called = {
            "patient": {
                "command": LAB,
                "timeout": "15s",
                "retry_policy": {
                    "max_attempts": 4,
                    "base_interval": "300ms",
                    "max_interval": "600ms",
                    "budget": {"percent": 100, "min_concurrency": 100},
                },
            },
            "picky": {
                "command": LAB,
                "retry_policy": quick | {"retriable_status_codes": [500], "retriable_conditions": ["connect-failure"]},
            },
            "pair": {
                "command": LAB,
                "replicas": 2,
                "load_balancing": {"algorithm": "random"},
                "retry_policy": quick | {"max_attempts": 2},
                "routes": [
                    {"match": {"query": {"same": "1"}}, "retry_policy": {"other_instance": False}},
                    {"match": {"query": {"once": "1"}}, "retry_policy": {"max_attempts": 1}},
                ],
            },
            "stormy": {
                "command": LAB,
                "retry_policy": {
                    "max_attempts": 20,
                    "base_interval": "20ms",
                    "max_interval": "20ms",
                    "budget": {"percent": "10%", "min_concurrency": 1},
                },
            },
            "timed": {
                "command": LAB,
                "timeout": "600ms",
                "retry_policy": {"max_attempts": 1},
                "routes": [
                    {"name": "quick", "match": {"query": {"quick": "1"}}, "timeout": "200ms"},
                    {"name": "endless", "match": {"query": {"endless": "1"}}, "timeout": 0},
                    {"name": "idle", "match": {"query": {"idle": "1"}}, "timeout": {"request": 0, "idle": "400ms"}},
                ],
            },
            "middle": {"command": LAB, "upstreams": ["deep"], "timeout": "10s"},
            "deep": {"command": LAB, "timeout": "3s", "retry_policy": {"max_attempts": 1}},
            "rpc": {
                "command": GRPC,
                "protocol": "grpc",
                "retry_policy": quick | {"retriable_grpc_codes": ["unavailable"]},
                "routes": [{"name": "short", "match": {"path": "/lab.Echo/Left"}, "timeout": "2s"}],
            },
            "nobody": {
                "address": f"127.0.0.1:{nobody}",
                "timeout": {"connect": "300ms", "request": "15s"},
                "retry_policy": {"max_attempts": 1},
            },
        }
        topology = {
            "name": "calls",
            "defaults": {"circuit_breaker": {"enabled": False}},  # most calls here fail on purpose
            "gateway": {"port": free_port(), "routes": [{"path": "/", "service": "timed"}]},
            "services": {"a": {"command": ECHO, "upstreams": [name for name in called if name != "deep"]}, **called},
        }
        with running(topology) as mesh:
            yield read_map(mesh)


def timed(port: int, path: str, **more: object) -> tuple[Answer, float]:
    """An answer and the seconds it took."""
    start = time.monotonic()
    answer = ask(port, path, **more)  # type: ignore[arg-type]
    return answer, time.monotonic() - start


def together(count: int, port: int, path: str) -> list[Answer]:
    """Requests all at once; ``{n}`` in the path is the number of each."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(ask(port, path.format(n=n)))) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# ---------------------------------------------------------------------------------------------- retries


def test_pauses_between_tries_grow_and_are_random(world: Map) -> None:
    answers = together(30, world.upstream("a", "patient"), "/tries/{n}?fail=3")
    assert {(answer.status, answer.json["tries"]) for answer in answers} == {(200, 4)}
    own = world.own("patient-v1-1")
    times = [ask(own, f"/count/{n}").json["times"] for n in range(30)]
    first, second, third = ([after[k + 1] - after[k] for after in times] for k in range(3))
    # Evenly spread over [0, 300 ms), then [0, 600 ms): the means less five standard deviations of a mean of 30.
    assert mean(first) > 0.150 - 0.080
    assert mean(second) > 0.300 - 0.159
    assert mean(third) > 0.300 - 0.159
    # A second for a machine that has other things to do.
    assert max(first) < 1.3
    assert max(second + third) < 1.6


def test_only_statuses_and_conditions_that_are_listed_are_tried_again(world: Map) -> None:
    port = world.upstream("a", "picky")
    assert ask(port, "/tries/status?fail=1").json == {"tries": 1}  # 503
    assert ask(port, "/tries/cut?cut=1").status == 503
    assert ask(world.own("picky-v1-1"), "/count/cut").json["tries"] == 1
    other = world.upstream("a", "patient")
    assert ask(other, "/tries/cut?cut=1").json == {"tries": 2}
    assert ask(other, "/tries/cut-post?cut=1", method="POST", body=b"{}").status == 503
    assert ask(world.own("patient-v1-1"), "/count/cut-post").json["tries"] == 1


def tries_of_pair(world: Map, key: str) -> list[int]:
    return sorted(ask(world.own(f"pair-v1-{n}"), f"/count/{key}").json["tries"] for n in (1, 2))


def test_a_retry_goes_to_the_other_instance(world: Map) -> None:
    port = world.upstream("a", "pair")
    for number in range(12):
        ask(port, f"/tries/o{number}?fail=1")
        assert tries_of_pair(world, f"o{number}") == [1, 1]
    for number in range(12):
        ask(port, f"/tries/s{number}?fail=1&same=1")
    # Chosen at random, all twelve retries go to the other instance once in 2^12; all to the same likewise.
    assert [0, 2] in [tries_of_pair(world, f"s{number}") for number in range(12)]


def test_a_route_has_a_retry_policy_of_its_own(world: Map) -> None:
    assert ask(world.upstream("a", "pair"), "/tries/once?fail=9&once=1").status == 503
    assert tries_of_pair(world, "once") == [0, 1]


def test_a_budget_keeps_retries_from_becoming_a_storm(world: Map) -> None:
    answers = together(40, world.upstream("a", "stormy"), "/tries/storm?fail=100000")
    assert {answer.status for answer in answers} == {503}
    tries = ask(world.own("stormy-v1-1"), "/count/storm").json["tries"]
    # Forty requests of twenty attempts each would be 800. A tenth of forty may be repeated at any time.
    assert 40 <= tries <= 300
    assert world.stats("a", "retry_overflow")["cluster.stormy/v1.upstream_rq_retry_overflow"] > 0


# ---------------------------------------------------------------------------------------------- gRPC


@pytest.fixture
def channel(world: Map) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{world.upstream('a', 'rpc')}") as made:
        yield made


def test_a_grpc_call_is_tried_again_by_its_status(channel: grpc.Channel) -> None:
    flaky = channel.unary_unary("/lab.Echo/Flaky")
    assert flaky(b"2 UNAVAILABLE again", timeout=20) == b"3"
    with pytest.raises(grpc.RpcError) as raised:
        flaky(b"9 UNAVAILABLE hopeless", timeout=20)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNAVAILABLE, "try 3")
    with pytest.raises(grpc.RpcError) as raised:
        flaky(b"9 INTERNAL unlisted", timeout=20)
    assert raised.value.details() == "try 1"


def test_a_grpc_call_that_has_begun_to_answer_is_not_tried_again(channel: grpc.Channel) -> None:
    answers = channel.unary_stream("/lab.Echo/Broken")(b"1 UNAVAILABLE begun", timeout=20)
    assert next(answers) == b"1"
    with pytest.raises(grpc.RpcError) as raised:
        next(answers)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert next(channel.unary_stream("/lab.Echo/Broken")(b"1 UNAVAILABLE begun", timeout=20)) == b"2"


def test_a_grpc_deadline_reaches_the_service(channel: grpc.Channel) -> None:
    left = channel.unary_unary("/lab.Echo/Left")
    assert 0 < float(left(b"", timeout=1.5)) <= 1.5


# ---------------------------------------------------------------------------------------------- timeouts


@pytest.mark.parametrize(
    ("path", "headers", "least"),
    [
        ("/sleep/9", {}, 0.55),
        ("/sleep/9?quick=1", {}, 0.15),
        ("/sleep/9?idle=1", {}, 0.35),
        ("/sleep/9", EVENTS, 0.55),
    ],
    ids=["service", "route", "idle", "events-that-do-not-begin"],
)
def test_what_takes_too_long_is_answered_with_504(world: Map, path: str, headers: dict[str, str], least: float) -> None:
    answer, taken = timed(world.upstream("a", "timed"), path, headers=headers)
    assert answer.status == 504
    assert least <= taken < SLOW


def test_a_route_without_a_timeout_waits(world: Map) -> None:
    assert ask(world.upstream("a", "timed"), "/sleep/1.2?endless=1").status == 200


def test_a_connection_that_is_not_made_is_given_up(world: Map) -> None:
    answer, taken = timed(world.upstream("a", "nobody"), "/")
    assert answer.status == 503
    assert 0.25 <= taken < SLOW


def test_an_event_stream_goes_on_when_the_timeout_has_passed(world: Map) -> None:
    port = world.upstream("a", "timed")
    whole = "".join(f"data: {number}\n\n" for number in range(4))
    assert ask(port, "/drip/4/0.4", headers=EVENTS).text == whole
    assert ask(world.gateway, "/drip/4/0.4", headers=EVENTS).text == whole
    with pytest.raises(http.client.IncompleteRead):
        ask(port, "/drip/4/0.4")


async def test_a_websocket_goes_on_when_the_timeout_has_passed(world: Map) -> None:
    url = f"http://127.0.0.1:{world.upstream('a', 'timed')}/socket"
    async with aiohttp.ClientSession() as client, client.ws_connect(url) as connection:
        await connection.receive_str()
        with pytest.raises(TimeoutError):
            await connection.receive_str(timeout=1.0)
        await connection.send_str("still there")
        assert await connection.receive_str() == "still there"


# ---------------------------------------------------------------------------------------------- deadlines


def test_the_service_is_told_how_long_its_caller_waits(world: Map) -> None:
    port = world.upstream("a", "timed")
    assert ask(port, "/").json["headers"][DEADLINE] == "600"
    assert ask(port, "/x?quick=1").json["headers"][DEADLINE] == "200"
    assert DEADLINE not in ask(port, "/x?endless=1").json["headers"]


@pytest.mark.parametrize(("given", "seen"), [("", "3000"), ("250", "250"), ("60000", "3000"), ("soon", "3000")])
def test_a_deadline_that_is_handed_on_only_shortens(world: Map, given: str, seen: str) -> None:
    query = f"?deadline={given}" if given else ""
    port = world.upstream("a", "middle")
    # Without a deadline of its own the service hands on the one it was given: ten seconds, more than the upstream's.
    said = ask(port, f"/relay/DEEP/x{query}").json
    assert said["headers"][DEADLINE] == seen


def test_a_call_ends_when_the_deadline_that_was_handed_on_has_passed(world: Map) -> None:
    answer, taken = timed(world.upstream("a", "middle"), "/relay/DEEP/sleep/9?deadline=300")
    assert answer.status == 504
    assert 0.25 <= taken < 2.9  # the upstream's own timeout is 3 s


def test_the_callees_sidecar_cuts_off_what_nobody_waits_for(world: Map) -> None:
    # This route has no timeout, so it can only be the callee's sidecar that goes by the header.
    port = world.upstream("a", "timed")
    answer, taken = timed(port, "/sleep/9?endless=1", headers={DEADLINE: "300"})
    assert answer.status == 504
    assert 0.25 <= taken < SLOW
    # An answer that has begun is its caller's to end.
    drip = ask(port, "/drip/3/0.3?endless=1", headers={DEADLINE: "300"})
    assert drip.text.count("data:") == 3


def test_the_outside_cannot_set_a_deadline(world: Map) -> None:
    answer = ask(world.gateway, "/", headers={DEADLINE: "1", "x-envoy-upstream-rq-timeout-ms": "1"})
    assert (answer.status, answer.json["headers"][DEADLINE]) == (200, "600")


@pytest.mark.parametrize("said_to_be_for", ["10.0.0.1", "127.0.0.1"])
def test_callers_cannot_talk_their_sidecar_out_of_its_policies(world: Map, said_to_be_for: str) -> None:
    # Envoy has headers for all of this, which it obeys from what it takes for internal addresses.
    wishes = {
        "x-forwarded-for": said_to_be_for,
        "x-envoy-upstream-rq-timeout-ms": "9000",
        "x-envoy-upstream-rq-per-try-timeout-ms": "9000",
        "x-envoy-max-retries": "9",
        "x-envoy-retry-on": "5xx",
    }
    port = world.upstream("a", "timed")
    answer, taken = timed(port, "/sleep/8", headers=wishes)
    assert answer.status == 504
    assert taken < SLOW
    path = f"/tries/wishes-{said_to_be_for}?fail=20"
    assert ask(port, path, method="POST", headers=wishes).json["tries"] == 1
