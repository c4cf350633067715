"""Fallbacks with real traffic: what a caller gets when the service it calls fails."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from tests.e2e.harness import SERVICES, wait_until
from tests.e2e.traffic import ECHO, PATIENT, Map, ask, read_map, running

pytestmark = pytest.mark.e2e

CHANGEABLE = [sys.executable, str(SERVICES / "changeable.py")]
CALM = {"retry_policy": {"max_attempts": 1}, "circuit_breaker": {"failure_threshold": 1000}}


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    called = {
        "cached": {
            "command": CHANGEABLE,
            **CALM,
            "fallback": {"strategy": "cached_response", "max_body_bytes": 1000, "max_entries": 20},
        },
        "brief": {"command": CHANGEABLE, **CALM, "fallback": {"strategy": "cached_response", "max_age": "300ms"}},
        "shared": {
            "command": CHANGEABLE,
            **CALM,
            "fallback": {"strategy": "cached_response", "share_credentials": True},
        },
        "fixed": {
            "command": CHANGEABLE,
            "retry_policy": {"base_interval": "1ms"},
            "circuit_breaker": {"failure_threshold": 2, "timeout": "1h"},
            "fallback": {
                "strategy": "static",
                "status": 203,
                "body": '{"items": []}',
                "content_type": "application/json",
            },
        },
        "none": {"command": CHANGEABLE, **CALM},
    }
    services = {"a": {"command": ECHO, "upstreams": [*called]}, **called}
    topology = {"name": "fallbacks", "defaults": PATIENT, "services": services}
    with running(topology) as mesh:
        yield read_map(mesh)


@contextmanager
def failing(world: Map, service: str, status: int = 500) -> Iterator[None]:
    """While a service answers everything with a failure."""
    own = world.own(f"{service}-v1-1")
    ask(own, f"/mode/{status}")
    try:
        yield
    finally:
        ask(own, "/mode/200")


def test_the_last_good_answer_is_repeated_and_marked(world: Map) -> None:
    port = world.upstream("a", "cached")
    ask(port, "/page?x=1")
    good = ask(port, "/page?x=1&h=X-Kind:page")
    last = ask(port, "/page?x=1&h=X-Kind:page")
    assert good.text != last.text
    assert "x-meshctl-fallback" not in last.headers
    with failing(world, "cached"):
        answer = ask(port, "/page?x=1&h=X-Kind:page")
        assert (answer.status, answer.body) == (200, last.body)
        assert answer.headers["x-meshctl-fallback"] == "cached_response"
        assert answer.headers["warning"] == '110 - "Response is Stale"'
        assert int(answer.headers["age"]) <= 200
        assert (answer.headers["x-kind"], answer.headers["content-type"]) == ("page", "text/plain; charset=utf-8")
        assert "x-broken" not in answer.headers
        # Another query is another question, and nothing is known of it.
        assert ask(port, "/page?x=2").status == 500
    assert ask(port, "/page?x=1").headers.get("x-meshctl-fallback") is None


def test_only_get_is_answered_so(world: Map) -> None:
    port = world.upstream("a", "cached")
    assert ask(port, "/post").status == 200
    with failing(world, "cached"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert ask(port, "/post", method=method).status == 500
        assert ask(port, "/post").status == 200


def test_answers_are_not_shared_across_credentials_unless_told_to(world: Map) -> None:
    ann, bob = {"authorization": "Bearer ann"}, {"authorization": "Bearer bob"}
    port = world.upstream("a", "cached")
    mine = ask(port, "/account", headers=ann)
    ask(port, "/cookie", headers={"cookie": "id=1"})
    with failing(world, "cached"):
        assert ask(port, "/account", headers=ann).body == mine.body
        assert ask(port, "/account", headers=bob).status == 500
        assert ask(port, "/account").status == 500
        assert ask(port, "/cookie", headers={"cookie": "id=2"}).status == 500
        assert ask(port, "/cookie", headers={"cookie": "id=1"}).status == 200
    shared = ask(world.upstream("a", "shared"), "/account", headers=ann)
    with failing(world, "shared"):
        assert ask(world.upstream("a", "shared"), "/account", headers=bob).body == shared.body


@pytest.mark.parametrize(
    "header",
    ["Cache-Control:no-store", "Cache-Control:max-age=60,private", "Set-Cookie:id=1", "Vary:X-Tenant"],
)
def test_what_says_so_is_not_kept(world: Map, header: str) -> None:
    port = world.upstream("a", "cached")
    path = f"/unkept?h={header}"
    assert ask(port, path).status == 200
    with failing(world, "cached"):
        assert ask(port, path).status == 500


def test_large_bodies_pass_and_are_not_kept(world: Map) -> None:
    port = world.upstream("a", "cached")
    assert len(ask(port, "/bytes/1000").body) == 1000
    assert len(ask(port, "/bytes/1001").body) == 1001
    assert len(ask(port, "/bytes/3000000").body) == 3_000_000
    with failing(world, "cached"):
        assert len(ask(port, "/bytes/1000").body) == 1000
        assert ask(port, "/bytes/1001").status == 500


def test_a_streamed_body_passes_as_it_comes(world: Map) -> None:
    # The whole body takes ten minutes.
    with closing(http.client.HTTPConnection("127.0.0.1", world.upstream("a", "cached"), timeout=60)) as connection:
        connection.request("GET", "/stream")
        assert connection.getresponse().read(5) == b"tick\n"


def test_the_oldest_answers_go_when_there_are_too_many(world: Map) -> None:
    port = world.upstream("a", "cached")
    for number in range(21):
        ask(port, f"/many/{number}")
    with failing(world, "cached"):
        assert ask(port, "/many/0").status == 500
        assert [ask(port, f"/many/{number}").status for number in (1, 20)] == [200, 200]


def test_an_answer_gets_too_old(world: Map) -> None:
    port = world.upstream("a", "brief")
    ask(port, "/old")
    with failing(world, "brief"):
        wait_until(lambda: ask(port, "/old").status == 500, "it is too old")


def test_a_fixed_answer_after_retries_and_while_the_circuit_is_open(world: Map) -> None:
    port = world.upstream("a", "fixed")
    with failing(world, "fixed", 503):
        for turn in range(4):
            answer = ask(port, "/list")
            assert (answer.status, answer.json) == (203, {"items": []})
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-meshctl-fallback"] == "static"
            # The second failure opened the circuit; the fallback serves as before, and says so.
            assert answer.headers.get("x-meshctl-circuit") == ("open" if turn >= 2 else None)
        assert ask(port, "/list", method="POST").status == 503


def test_a_service_that_is_gone_is_replaced_too(world: Map) -> None:
    port = world.upstream("a", "cached")
    last = ask(port, "/gone")
    world.mesh.must("scale", "cached=0")
    answer = ask(port, "/gone")
    assert (answer.status, answer.body) == (200, last.body)
    assert answer.headers["x-meshctl-fallback"] == "cached_response"
    world.mesh.must("scale", "cached=1")
    wait_until(lambda: "x-meshctl-fallback" not in ask(port, "/gone").headers, "it is back")


def test_without_a_fallback_the_failure_itself_comes(world: Map) -> None:
    with failing(world, "none"):
        answer = ask(world.upstream("a", "none"))
        assert (answer.status, answer.text) == (500, "no")
    errors = {name: value for name, value in world.stats("a", "lua.errors").items() if value}
    assert errors == {}
