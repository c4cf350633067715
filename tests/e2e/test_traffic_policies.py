"""What the policies of a topology do to real traffic: splits, retries, timeouts, load balancing, health checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import (
    ECHO,
    LAB,
    PATIENT,
    Load,
    Map,
    answer_http,
    api,
    ask,
    ask_many,
    ask_until_within,
    free_port,
    outside,
    read_map,
    running,
)

pytestmark = pytest.mark.e2e

FAST_CHECK = {"interval": "200ms", "unhealthy_threshold": 10}
"""So many failures in a row that an instance which is slow by chance stays healthy."""


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    called = {
        "split": {"command": LAB, "versions": {"v1": {"replicas": 2}, "v2": {}}, "split": {"v1": 90, "v2": 10}},
        "flaky": {"command": LAB, "retry_policy": {"base_interval": "10ms"}},
        "once": {"command": LAB, "retry_policy": {"max_attempts": 1}},
        "slow": {"command": LAB, "timeout": "500ms", "circuit_breaker": {"enabled": False}},
        "hanging": {
            "command": LAB,
            "retry_policy": {"per_try_timeout": "500ms", "base_interval": "10ms"},
            "circuit_breaker": {"enabled": False},
        },
        "even": {"command": LAB, "replicas": 3},
        "half": {
            "command": LAB,
            "retry_policy": {"base_interval": "10ms"},
            "load_balancing": {"health_check": {"interval": "60s"}},
        },
        "strict": {
            "command": LAB,
            "replicas": 2,
            "load_balancing": {"health_check": FAST_CHECK | {"path": "/health"}},
        },
        "lenient": {
            "command": LAB,
            "load_balancing": {"health_check": FAST_CHECK},
            "circuit_breaker": {"enabled": False},  # it would be open still when the instance has come back
        },
    }
    services = {"a": {"command": ECHO, "upstreams": [*called]}, **called}
    topology = {"name": "policies", "defaults": PATIENT, "services": services}
    with running(topology) as mesh:
        yield read_map(mesh)


# ---------------------------------------------------------------------------------------------- splits, balancing


def test_a_split_of_90_to_10_holds_over_2000_requests(world: Map) -> None:
    answers = ask_many(world.upstream("a", "split"), "/", 2000)
    assert {answer.status for answer in answers} == {200}
    seen = Counter(answer.headers["x-meshctl-version"] for answer in answers)
    # Five standard deviations of a binomial distribution (13.4) about its mean: one run in two million fails.
    assert 133 <= seen["v2"] <= 267
    instances = Counter(answer.headers["x-meshctl-instance"] for answer in answers)
    assert abs(instances["split-v1-1"] - instances["split-v1-2"]) <= 4


def test_round_robin_spreads_evenly(world: Map) -> None:
    answers = ask_many(world.upstream("a", "even"), "/", 300)
    seen = Counter(answer.headers["x-meshctl-instance"] for answer in answers)
    assert set(seen) == {"even-v1-1", "even-v1-2", "even-v1-3"}
    assert max(seen.values()) - min(seen.values()) <= 4


# ---------------------------------------------------------------------------------------------- retries, timeouts


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_idempotent_request_is_tried_three_times(world: Map, method: str) -> None:
    answer = ask(world.upstream("a", "flaky"), f"/tries/{method}?fail=2", method=method)
    assert (answer.status, answer.json) == (200, {"tries": 3})


def test_no_request_is_tried_a_fourth_time(world: Map) -> None:
    answer = ask(world.upstream("a", "flaky"), "/tries/hopeless?fail=9")
    assert (answer.status, answer.json) == (503, {"tries": 3})


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_request_that_may_not_be_repeated_is_tried_once(world: Map, method: str) -> None:
    answer = ask(world.upstream("a", "flaky"), f"/tries/{method}?fail=2", method=method, body=b"{}")
    assert (answer.status, answer.json) == (503, {"tries": 1})


def test_a_post_with_an_idempotency_key_is_tried_again(world: Map) -> None:
    port = world.upstream("a", "flaky")
    answer = ask(port, "/tries/key?fail=2", method="POST", body=b"{}", headers={"idempotency-key": "1"})
    assert (answer.status, answer.json) == (200, {"tries": 3})


def test_one_attempt_means_no_retry(world: Map) -> None:
    answer = ask(world.upstream("a", "once"), "/tries/x?fail=1")
    assert (answer.status, answer.json) == (503, {"tries": 1})


def test_retries_hold_for_calls_by_host_name_too(world: Map) -> None:
    answer = ask(world.proxy("a"), "http://flaky/tries/by-host?fail=2")
    assert (answer.status, answer.json) == (200, {"tries": 3})


def test_an_attempt_that_takes_too_long_is_tried_again(world: Map) -> None:
    port, turns = world.upstream("a", "hanging"), count()
    # An attempt that is late by chance is tried again, too, and the third one is the last.
    answer = wait_until(
        lambda: (said := ask(port, f"/tries/{next(turns)}?hang=1")).status == 200 and said, "one in time"
    )
    assert answer.json in ({"tries": 2}, {"tries": 3})


def test_a_post_that_was_not_delivered_is_tried_on_another_instance(world: Map) -> None:
    port = world.upstream("a", "half")
    with ExitStack() as stack:
        refusing = stack.enter_context(outside(answer_http("outside"), port=free_port()))
        world.mesh.must("register", "half", "--address", f"127.0.0.1:{refusing}")
        wait_until(lambda: b'"outside"' in ask(port).body, "the registered instance is used")
        stack.close()  # nobody listens any more, and the next health check is a minute away
        for number in range(20):
            answer = ask(port, f"/tries/{number}", method="POST", body=b"{}")
            assert (answer.status, answer.json) == (200, {"tries": 1})
        assert world.stats("half", "local/half-ext-1.upstream_cx_connect_fail")[
            "cluster.local/half-ext-1.upstream_cx_connect_fail"
        ]
        world.mesh.must("deregister", "half-ext-1")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_late_answer_is_a_504_at_the_timeout(world: Map, method: str) -> None:
    # Not at some other bound: the built-in timeout is 5 s.
    answer, taken = ask_until_within(world.upstream("a", "slow"), "/sleep/15", 4.5, method=method)
    assert answer.status == 504
    assert taken >= 0.45


def test_a_service_in_time_is_not_cut_off(world: Map) -> None:
    wait_until(lambda: ask(world.upstream("a", "slow"), "/sleep/0.1").status == 200, "it is in time")


# ---------------------------------------------------------------------------------------------- health


def health_of(world: Map, instance: str) -> str:
    instances = [item for service in api(world.mesh, "/status")["services"] for item in service["instances"]]
    return str(next(item["health"] for item in instances if item["id"] == instance))


def healthy_for_callers(world: Map, service: str) -> int:
    """How many instances of a service its caller sends requests to."""
    name = f"cluster.{service}/v1.membership_healthy"
    return world.stats("a", name)[name]


def test_an_instance_that_says_it_is_unwell_gets_no_traffic_until_it_recovers(world: Map) -> None:
    port, own = world.upstream("a", "strict"), world.own("strict-v1-1")
    wait_until(lambda: healthy_for_callers(world, "strict") == 2, "both are healthy")
    with Load(port) as load:
        ask(own, "/set-health/500")
        wait_until(lambda: health_of(world, "strict-v1-1") == "unhealthy", "it is unhealthy")
        wait_until(lambda: healthy_for_callers(world, "strict") == 1, "its callers know")
        assert {answer.headers["x-meshctl-instance"] for answer in ask_many(port, "/", 40)} == {"strict-v1-2"}
        ask(own, "/set-health/200")
        wait_until(lambda: health_of(world, "strict-v1-1") == "healthy", "it is healthy again")
        wait_until(
            lambda: (
                {answer.headers["x-meshctl-instance"] for answer in ask_many(port, "/", 40)}
                == {"strict-v1-1", "strict-v1-2"}
            ),
            "it gets traffic again",
        )
    assert load.failures == []


def test_the_built_in_check_takes_any_answer_below_500_and_a_written_one_does_not(world: Map) -> None:
    ask(world.own("lenient-v1-1"), "/set-health/404")
    ask(world.own("strict-v1-2"), "/set-health/404")
    try:
        wait_until(lambda: health_of(world, "strict-v1-2") == "unhealthy", "404 fails the check")
        checks = "cluster.local/lenient-v1-1.health_check"
        before = world.stats("lenient", checks)[f"{checks}.attempt"]
        wait_until(lambda: world.stats("lenient", checks)[f"{checks}.attempt"] >= before + 4, "it was checked again")
        found = world.stats("lenient", checks)
        # What is no answer in time is a failure of the network.
        assert found[f"{checks}.failure"] == found[f"{checks}.network_failure"]
        wait_until(lambda: health_of(world, "lenient-v1-1") == "healthy", "404 is an answer")
        assert ask(world.upstream("a", "lenient")).status == 200
        ask(world.own("lenient-v1-1"), "/set-health/500")
        wait_until(lambda: health_of(world, "lenient-v1-1") == "unhealthy", "500 is no answer of a living instance")
        wait_until(lambda: ask(world.upstream("a", "lenient")).status == 503, "no instance is left")
    finally:
        ask(world.own("lenient-v1-1"), "/set-health/200")
        ask(world.own("strict-v1-2"), "/set-health/200")
    wait_until(lambda: ask(world.upstream("a", "lenient")).status == 200, "it came back")
    wait_until(lambda: healthy_for_callers(world, "strict") == 2, "so did the other one")
