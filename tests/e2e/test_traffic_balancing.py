"""How callers choose among instances: shares, stickiness, weights, slow start, panic, outliers, health checks."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from itertools import pairwise

import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import (
    ECHO,
    LAB,
    PATIENT,
    Answer,
    Map,
    answer_http,
    api,
    ask,
    ask_many,
    outside,
    read_map,
    running,
    stats,
)

pytestmark = pytest.mark.e2e

ONCE = {"retry_policy": {"max_attempts": 1}, "circuit_breaker": {"enabled": False}}
CHECK = {"path": "/health", "interval": "200ms", "timeout": "150ms"}
USERS = [f"user-{number}" for number in range(200)]


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    def balanced(replicas: int, **balancing: object) -> dict[str, object]:
        return {"command": LAB, "replicas": replicas, "load_balancing": balancing} | ONCE

    called: dict[str, dict[str, object]] = {
        "least": balanced(2, algorithm="least_request"),
        "weighted": balanced(2, weights={"weighted-v1-1": 3}),
        "lucky": balanced(2, algorithm="random"),
        "ring": balanced(2, algorithm="ring_hash", hash={"header": "X-User"}),
        "maglev": balanced(2, algorithm="maglev", hash={"cookie": {"name": "cart", "ttl": "1h"}}),
        "source": balanced(3, algorithm="maglev", hash={"source": True}),
        "slow": balanced(1, slow_start="30s"),
        "quick": balanced(1, slow_start="1s"),
        "calm": balanced(1, health_check=CHECK),
        "panicky": balanced(1, health_check=CHECK, panic_threshold=100),
        "picky": balanced(1, health_check=CHECK | {"expected_statuses": [200, 204], "healthy_threshold": 2}),
        "patient": balanced(1, health_check=CHECK | {"unhealthy_threshold": 1000}) | {"readiness": {"tcp": True}},
        "outlier": balanced(2)
        | {"outlier_detection": {"consecutive_failures": 3, "interval": "100ms", "ejection_time": "3s"}},
    }
    with outside(answer_http("away")) as port:
        for name in called.keys() - {"source"}:
            called[name]["upstreams"] = ["source"]
        called["away"] = {"address": f"127.0.0.1:{port}", "load_balancing": {"health_check": CHECK}}
        services = {"a": {"command": ECHO, "upstreams": [*called]}, **called}
        topology = {"name": "balance", "defaults": PATIENT, "services": services}
        with running(topology) as mesh:
            yield read_map(mesh)


def instances(answers: list[Answer]) -> Counter[str]:
    """How many answers each instance gave."""
    return Counter(answer.headers["x-meshctl-instance"] for answer in answers)


def members(world: Map, service: str, kind: str = "total") -> int:
    """How many instances of a service its caller knows, or holds to be healthy."""
    name = f"cluster.{service}/v1.membership_{kind}"
    return stats(world.services["a"]["sidecar"]["admin_socket"], f"^{name}$")[name]


def scale(world: Map, service: str, count: int) -> None:
    """Run so many instances, and return when the caller knows of them."""
    world.mesh.must("scale", f"{service}={count}")
    wait_until(lambda: members(world, service) == members(world, service, "healthy") == count, "its caller knows")


# ---------------------------------------------------------------------------------------------- algorithms


def test_weights_are_the_shares_of_instances(world: Map) -> None:
    seen = instances(ask_many(world.upstream("a", "weighted"), "/", 400))
    # Five standard deviations of a binomial distribution (8.7) about its mean; it is a rotation and strays far less.
    assert 257 <= seen["weighted-v1-1"] <= 343


def test_random_spreads_by_chance(world: Map) -> None:
    seen = instances(ask_many(world.upstream("a", "lucky"), "/", 400))
    assert 150 <= seen["lucky-v1-1"] <= 250, "five standard deviations"
    order = [
        answer.headers["x-meshctl-instance"] for answer in ask_many(world.upstream("a", "lucky"), "/", 60, clients=1)
    ]
    assert any(one == other for one, other in pairwise(order)), "a rotation never repeats one"


@contextmanager
def kept_busy(world: Map, busy: str, idle: str, count: int) -> Iterator[None]:
    """So many requests under way at one of two instances, and none at the other one."""
    service = busy.partition("-")[0]
    with ExitStack() as stack:
        kept = 0
        for number in range(500):
            connection = HTTPConnection("127.0.0.1", world.upstream("a", service), timeout=60)
            stack.enter_context(closing(connection))
            connection.request("GET", f"/events/{number}")
            answer = connection.getresponse()
            if answer.getheader("x-meshctl-instance") == busy:
                kept += 1
                if kept == count:
                    break
            else:
                ask(world.own(idle), f"/release/{number}")
                answer.read()
        assert kept == count
        yield


def test_least_request_spares_a_busy_instance(world: Map) -> None:
    with kept_busy(world, "least-v1-1", "least-v1-2", 5):
        seen = instances(ask_many(world.upstream("a", "least"), "/", 200, clients=1))
    # Of two instances drawn at random the one with less under way is taken, and both draws are the busy one for a
    # quarter of the requests: 50, and five standard deviations (6.1) more. In a rotation it would get half of them.
    assert seen["least-v1-1"] <= 81


def homes(world: Map, service: str, header: str, pattern: str) -> dict[str, str]:
    """The instance of each user."""
    found = {}
    with closing(HTTPConnection("127.0.0.1", world.upstream("a", service), timeout=60)) as connection:
        for user in USERS:
            connection.request("GET", "/", headers={header: pattern.format(user)})
            answer = connection.getresponse()
            answer.read()
            found[user] = str(answer.getheader("x-meshctl-instance"))
    return found


@pytest.mark.parametrize(
    ("service", "header", "pattern"), [("ring", "x-user", "{}"), ("maglev", "cookie", "a=b; cart={}")]
)
def test_a_hash_keeps_most_users_where_they_are_when_instances_come_and_go(
    world: Map, service: str, header: str, pattern: str
) -> None:
    before = homes(world, service, header, pattern)
    assert set(before.values()) == {f"{service}-v1-1", f"{service}-v1-2"}
    assert homes(world, service, header, pattern) == before
    scale(world, service, 3)
    with_a_third = homes(world, service, header, pattern)
    newcomer = f"{service}-v1-3"
    assert newcomer in with_a_third.values()
    between_others = [user for user in USERS if with_a_third[user] not in (before[user], newcomer)]
    # A ring gives the others a third less points each, which moves 17 +- 4 users between them; Maglev moves fewer.
    # A hash modulo the number of instances would move 67 +- 7.
    assert len(between_others) < 38
    scale(world, service, 2)
    assert homes(world, service, header, pattern) == before


def test_a_client_without_the_cookie_is_given_one_that_leads_to_the_same_instance(world: Map) -> None:
    port = world.upstream("a", "maglev")
    for _ in range(5):
        first = ask(port)
        given = first.headers["set-cookie"]
        assert given.startswith("cart=")
        assert "Max-Age=3600" in given
        again = [ask(port, headers={"cookie": given.partition(";")[0]}) for _ in range(5)]
        assert set(instances(again)) == set(instances([first]))
        assert not any("set-cookie" in answer.headers for answer in again)


def test_all_requests_of_a_caller_go_to_one_instance_where_the_source_is_hashed(world: Map) -> None:
    answers = ask_many(world.upstream("a", "source"), "/", 40)
    answers += [ask(world.proxy("a"), "http://source/") for _ in range(5)]
    assert len(instances(answers)) == 1


def test_callers_have_different_homes_where_the_source_is_hashed(world: Map) -> None:
    callers = [name for name, item in world.services.items() if "source" in item["upstreams"]]
    answers = [ask(world.proxy(caller), "http://source/") for caller in callers]
    # That thirteen callers have one home of three by chance happens once in half a million times.
    assert len(callers) == 13
    assert len(instances(answers)) > 1


# ---------------------------------------------------------------------------------------------- slow start


def test_a_new_instance_gets_few_requests_at_first(world: Map) -> None:
    # The first one has to be older than the second: at 12 s it has 40% of its weight.
    wait_until(lambda: time.monotonic() - world.since >= 12, "the first instance is no new one")
    scale(world, "slow", 2)
    seen = instances(ask_many(world.upstream("a", "slow"), "/", 200))
    # It has a tenth of its weight at first; that it takes more than 80 of 200 would need 18 s. A rotation gives it 100.
    assert 1 <= seen["slow-v1-2"] <= 80


def test_a_new_instance_gets_its_full_share_in_the_end(world: Map) -> None:
    scale(world, "quick", 2)
    port = world.upstream("a", "quick")
    wait_until(lambda: abs(instances(ask_many(port, "/", 40))["quick-v1-2"] - 20) <= 2, "both get as many")


# ---------------------------------------------------------------------------------------------- health


def set_health(world: Map, instance: str, status: int) -> None:
    ask(world.own(instance), f"/set-health/{status}")


def wait_for_health(world: Map, instance: str, health: str) -> None:
    def found() -> str:
        items = [item for service in api(world.mesh, "/status")["services"] for item in service["instances"]]
        return str(next(item["health"] for item in items if item["id"] == instance))

    wait_until(lambda: found() == health, f"{instance} is {health}")


@pytest.mark.parametrize(("service", "status"), [("calm", 503), ("panicky", 200)])
def test_without_a_healthy_instance_only_panic_sends_requests(world: Map, service: str, status: int) -> None:
    port = world.upstream("a", service)
    set_health(world, f"{service}-v1-1", 500)
    try:
        wait_until(lambda: members(world, service, "healthy") == 0, "its caller holds it to be unhealthy")
        answers = ask_many(port, "/", 20)
        assert {answer.status for answer in answers} == {status}
    finally:
        set_health(world, f"{service}-v1-1", 200)
    wait_until(lambda: ask(port).status == 200, "it is healthy again")


def test_a_health_check_wants_the_statuses_and_the_successes_that_were_written(world: Map) -> None:
    set_health(world, "picky-v1-1", 201)
    wait_for_health(world, "picky-v1-1", "unhealthy")
    set_health(world, "picky-v1-1", 204)
    wait_for_health(world, "picky-v1-1", "healthy")


def test_an_instance_that_does_not_answer_its_check_in_time_is_unhealthy(world: Map) -> None:
    set_health(world, "picky-v1-1", 0)
    wait_for_health(world, "picky-v1-1", "unhealthy")
    set_health(world, "picky-v1-1", 200)
    wait_for_health(world, "picky-v1-1", "healthy")


def test_it_takes_as_many_failed_checks_as_were_written(world: Map) -> None:
    set_health(world, "patient-v1-1", 500)
    checks = "cluster.local/patient-v1-1.health_check.failure"
    # At the built-in interval of ten seconds this would take a minute.
    wait_until(lambda: world.stats("patient", checks)[checks] >= 8, "eight checks have failed")
    assert ask(world.upstream("a", "patient")).status == 200
    set_health(world, "patient-v1-1", 200)


def test_an_address_outside_the_mesh_is_checked_by_its_callers(world: Map) -> None:
    stat = "cluster.external/away.health_check.success"
    wait_until(lambda: world.stats("a", stat)[stat] >= 2, "it was checked")
    # A check that is late by chance fails, and the next one passes.
    answer = wait_until(lambda: (said := ask(world.upstream("a", "away"))).status == 200 and said, "it is healthy")
    assert answer.json["name"] == "away"


# ---------------------------------------------------------------------------------------------- outliers


def ejections(world: Map) -> tuple[int, int]:
    """How many instances are ejected now, and how often one was."""
    name = "cluster.outlier/v1.outlier_detection.ejections"
    found = world.stats("a", name)
    return found[f"{name}_active"], found[f"{name}_enforced_total"]


def test_an_instance_that_keeps_failing_is_ejected_for_a_while(world: Map) -> None:
    port, own = world.upstream("a", "outlier"), world.own("outlier-v1-1")
    gone = "a -> outlier: outlier-v1-1 failed too often, and is given no requests for a while"
    back = "a -> outlier: outlier-v1-1 is given requests again"
    statuses: Counter[int] = Counter()

    def send(count: int) -> list[Answer]:
        answers = [ask(port) for _ in range(count)]
        statuses.update(answer.status for answer in answers)
        return answers

    def is_ejected() -> bool:
        send(1)
        return ejections(world)[0] == 1

    def is_spared() -> bool:
        before, answers = ejections(world), send(10)
        if before[0] == 0 or ejections(world) != before:
            return False  # its time was over meanwhile
        assert set(instances(answers)) == {"outlier-v1-2"}
        return True

    def told() -> list[str]:
        lines = world.mesh.must("events", "--kind", "outlier", "--subject", "outlier", "-o", "json").splitlines()
        return [event["message"] for event in map(json.loads, lines)]

    ask(own, "/set-echo/503/0")
    try:
        wait_until(is_ejected, "it is ejected")
        assert statuses[503] >= 3
        wait_until(is_spared, "requests are sent while it is ejected")
        # An ejection that nobody sees for seconds is none that is told: there is another one.
        wait_until(lambda: send(8) and told(), "it is an event")
    finally:
        ask(own, "/set-echo/200/0")
    wait_until(lambda: ejections(world)[0] == 0, "it is taken in again")
    wait_until(lambda: told()[-1] == back, "that is an event")
    assert told()[0] == gone
    assert set(instances(ask_many(port, "/", 20))) == {"outlier-v1-1", "outlier-v1-2"}
