"""How long callers wait and what they try again: counts, pauses, other instances, budgets, deadlines, gRPC statuses."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from statistics import mean

import aiohttp
import grpc
import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import (
    ECHO,
    GRPC,
    LAB,
    PATIENT,
    Answer,
    Map,
    ask,
    ask_together,
    ask_until_within,
    do_together,
    free_port,
    read_map,
    running,
)

pytestmark = pytest.mark.e2e

DEADLINE = "x-envoy-expected-rq-timeout-ms"
EVENTS = {"accept": "text/event-stream"}
SLOW = 3.0
"""Seconds: more than the bounds tested, which are 1 s at most, and less than those that would hold without them."""


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
            "told": {
                "command": LAB,
                "timeout": "50s",
                "retry_policy": {"max_attempts": 1},
                "routes": [
                    {"match": {"query": {"quick": "1"}}, "timeout": "40s"},
                    {"match": {"query": {"endless": "1"}}, "timeout": 0},
                ],
            },
            "middle": {"command": LAB, "upstreams": ["deep"], "timeout": "50s"},
            "deep": {"command": LAB, "timeout": "30s", "retry_policy": {"max_attempts": 1}},
            "rpc": {
                "command": GRPC,
                "protocol": "grpc",
                "retry_policy": quick | {"retriable_grpc_codes": ["unavailable"]},
                "routes": [{"name": "short", "match": {"path": "/lab.Echo/Left"}, "timeout": "60s"}],
            },
            "nobody": {
                "address": f"127.0.0.1:{nobody}",
                "timeout": {"connect": "300ms"},
                "retry_policy": {"max_attempts": 1},
            },
        }
        topology = {
            "name": "calls",
            "defaults": PATIENT | {"circuit_breaker": {"enabled": False}},  # most calls here fail on purpose
            "gateway": {
                "port": free_port(),
                "routes": [{"path": "/", "service": "told"}, {"path": "/drip", "service": "timed"}],
            },
            "services": {"a": {"command": ECHO, "upstreams": [name for name in called if name != "deep"]}, **called},
        }
        with running(topology) as mesh:
            yield read_map(mesh)


# ---------------------------------------------------------------------------------------------- retries


def test_pauses_between_tries_grow_and_are_random(world: Map) -> None:
    def are_short(turn: int) -> bool:
        keys = [f"{turn}-{number}" for number in range(30)]
        answers = ask_together(world.upstream("a", "patient"), [f"/tries/{key}?fail=3" for key in keys])
        assert {(answer.status, answer.json["tries"]) for answer in answers} == {(200, 4)}
        times: list[list[float]] = [ask(world.own("patient-v1-1"), f"/count/{key}").json["times"] for key in keys]
        first, second, third = ([after[k + 1] - after[k] for after in times] for k in range(3))
        # Evenly spread over [0, 300 ms), then [0, 600 ms): the means less five standard deviations of a mean of 30.
        assert mean(first) > 0.150 - 0.080
        assert mean(second) > 0.300 - 0.159
        assert mean(third) > 0.300 - 0.159
        return max(first) < 0.5 and max(second + third) < 0.8

    # A machine that does something else for a while makes pauses longer, never shorter.
    turns = count()
    wait_until(lambda: are_short(next(turns)), "no pause is longer than it may be")


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
    # Chosen at random, all of forty retries go to the other instance once in 2^40.
    for number in range(40):
        ask(port, f"/tries/s{number}?fail=1&same=1")
        if tries_of_pair(world, f"s{number}") == [0, 2]:
            return
    pytest.fail("every retry went to the other instance")


def test_a_route_has_a_retry_policy_of_its_own(world: Map) -> None:
    assert ask(world.upstream("a", "pair"), "/tries/once?fail=9&once=1").status == 503
    assert tries_of_pair(world, "once") == [0, 1]


def test_a_budget_keeps_retries_from_becoming_a_storm(world: Map) -> None:
    port, own = world.upstream("a", "stormy"), world.own("stormy-v1-1")
    answers: list[Answer] = []
    under_way = "cluster.stormy/v1.upstream_rq_active"

    def let_go() -> None:
        # All of them fail at once, however late some were sent.
        try:
            wait_until(lambda: world.stats("a", under_way)[under_way] == 40, "all of them are under way")
        finally:
            ask(own, "/release/storm")

    def send() -> None:
        answers.append(ask(port, "/tries/storm?fail=100000&held=storm"))

    do_together([let_go, *[send] * 40])
    assert {answer.status for answer in answers} == {503}
    tries = ask(own, "/count/storm").json["tries"]
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
    assert flaky(b"2 UNAVAILABLE again", timeout=60) == b"3"
    with pytest.raises(grpc.RpcError) as raised:
        flaky(b"9 UNAVAILABLE hopeless", timeout=60)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNAVAILABLE, "try 3")
    with pytest.raises(grpc.RpcError) as raised:
        flaky(b"9 INTERNAL unlisted", timeout=60)
    assert raised.value.details() == "try 1"


def test_a_grpc_call_that_has_begun_to_answer_is_not_tried_again(channel: grpc.Channel) -> None:
    answers = channel.unary_stream("/lab.Echo/Broken")(b"1 UNAVAILABLE begun", timeout=60)
    assert next(answers) == b"1"
    with pytest.raises(grpc.RpcError) as raised:
        next(answers)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert next(channel.unary_stream("/lab.Echo/Broken")(b"1 UNAVAILABLE begun", timeout=60)) == b"2"


def test_a_grpc_deadline_reaches_the_service(channel: grpc.Channel) -> None:
    left = channel.unary_unary("/lab.Echo/Left")
    assert 0 < float(left(b"", timeout=50)) <= 50  # and not the 60 s of its route


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
    answer, taken = ask_until_within(world.upstream("a", "timed"), path, SLOW, headers=headers)
    assert answer.status == 504
    assert taken >= least


def test_a_route_without_a_timeout_waits(world: Map) -> None:
    assert ask(world.upstream("a", "timed"), "/sleep/1.2?endless=1").status == 200


def test_a_connection_that_is_not_made_is_given_up(world: Map) -> None:
    answer, taken = ask_until_within(world.upstream("a", "nobody"), "/", SLOW)
    assert answer.status == 503
    assert taken >= 0.25


def once_begun(port: int, path: str, headers: dict[str, str]) -> Answer:
    """An answer that began before the timeout, which one that is late by chance does not."""
    found: Answer = wait_until(
        lambda: (answer := ask(port, path, headers=headers)).status != 504 and answer, "an answer that begins in time"
    )
    return found


def test_an_event_stream_goes_on_when_the_timeout_has_passed(world: Map) -> None:
    port = world.upstream("a", "timed")
    whole = "".join(f"data: {number}\n\n" for number in range(3))
    assert once_begun(port, "/drip/3/0.4", EVENTS).text == whole
    assert once_begun(world.gateway, "/drip/3/0.4", EVENTS).text == whole
    with pytest.raises(http.client.IncompleteRead):
        once_begun(port, "/drip/3/0.4", {})


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
    port = world.upstream("a", "told")
    assert ask(port, "/").json["headers"][DEADLINE] == "50000"
    assert ask(port, "/x?quick=1").json["headers"][DEADLINE] == "40000"
    assert DEADLINE not in ask(port, "/x?endless=1").json["headers"]


@pytest.mark.parametrize(("given", "seen"), [("", "30000"), ("25000", "25000"), ("60000", "30000"), ("soon", "30000")])
def test_a_deadline_that_is_handed_on_only_shortens(world: Map, given: str, seen: str) -> None:
    query = f"?deadline={given}" if given else ""
    port = world.upstream("a", "middle")
    # Without a deadline of its own the service hands on the one it was given: fifty seconds, more than the upstream's.
    said = ask(port, f"/relay/DEEP/x{query}").json
    assert said["headers"][DEADLINE] == seen


def test_a_call_ends_when_the_deadline_that_was_handed_on_has_passed(world: Map) -> None:
    # No other bound would cut it off: the upstream's own timeout is 30 s.
    answer, taken = ask_until_within(world.upstream("a", "middle"), "/relay/DEEP/sleep/9?deadline=300", SLOW)
    assert answer.status == 504
    assert taken >= 0.25


def test_the_callees_sidecar_cuts_off_what_nobody_waits_for(world: Map) -> None:
    # This route has no timeout, so it can only be the callee's sidecar that goes by the header.
    port = world.upstream("a", "timed")
    answer, taken = ask_until_within(port, "/sleep/9?endless=1", SLOW, headers={DEADLINE: "300"})
    assert answer.status == 504
    assert taken >= 0.25
    # An answer that has begun is its caller's to end.
    drip = once_begun(port, "/drip/3/0.3?endless=1", {DEADLINE: "300"})
    assert drip.text.count("data:") == 3


def test_the_outside_cannot_set_a_deadline(world: Map) -> None:
    answer = ask(world.gateway, "/", headers={DEADLINE: "1", "x-envoy-upstream-rq-timeout-ms": "1"})
    assert (answer.status, answer.json["headers"][DEADLINE]) == (200, "50000")


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
    answer, _ = ask_until_within(world.upstream("a", "timed"), "/sleep/8", SLOW, headers=wishes)
    assert answer.status == 504
    path = f"/tries/wishes-{said_to_be_for}?fail=20"
    assert ask(world.upstream("a", "told"), path, method="POST", headers=wishes).json["tries"] == 1
