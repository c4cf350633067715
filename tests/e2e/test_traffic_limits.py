"""Limits on real traffic: rate limits, lengths of bodies, caps on what is under way, adaptive concurrency."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import aiohttp
import grpc
import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import ECHO, GRPC, LAB, PATIENT, TCP, Answer, Map, ask, ask_many, outside, read_map, running

pytestmark = pytest.mark.e2e

LONG = "1h"
"""In so long a time no bucket of these tests is filled again."""

MOST = 10_000


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    some = [
        {"name": "writes", "requests": 2, "per": LONG, "from": ["a"], "path": "/writes", "methods": ["POST", "PUT"]},
        {"name": "exact", "requests": 1, "per": LONG, "path": {"exact": "/exact"}},
        {"name": "users", "requests": 2, "per": LONG, "path": "/users", "header": "X-User"},
        {"name": "callers", "requests": 2, "per": LONG, "path": "/callers", "each_caller": True},
        {"name": "soon", "requests": 2, "per": "1s", "burst": 1, "path": "/soon"},
        {"name": "instances", "requests": 3, "per": LONG, "path": "/instances"},
    ]
    every = [
        {"name": "every", "requests": 4, "per": LONG},
        {"name": "few", "requests": 1, "per": LONG, "path": "/few"},
    ]
    called = {
        "some": {"command": LAB, "rate_limits": some},
        "pair": {"command": LAB, "replicas": 2, "rate_limits": some},
        "every": {"command": LAB, "rate_limits": every},
        "calls": {
            "command": GRPC,
            "protocol": "grpc",
            "rate_limits": [{"name": "calls", "requests": 2, "per": LONG}],
        },
        "sized": {"command": LAB, "limits": {"max_request_bytes": MOST}},
        "capped": {"command": LAB, "limits": {"max_requests": 3}},
        "adaptive": {
            "command": LAB,
            "limits": {"adaptive_concurrency": True},
            # What it refuses is a failure of the service to its callers' circuit breakers.
            "circuit_breaker": {"enabled": False},
        },
        "retried": {
            "command": LAB,
            "limits": {"max_retries": 1},
            "retry_policy": {"max_attempts": 2, "base_interval": "1s", "max_interval": "1s"},
            "circuit_breaker": {"enabled": False},
            "timeout": "30s",
        },
        "tcp": {"command": TCP, "protocol": "tcp", "limits": {"max_connections": 1}},
    }
    with outside(answer_late) as port:
        called["outer"] = {
            "address": f"127.0.0.1:{port}",
            "limits": {"max_connections": 1, "max_pending_requests": 1},
            "timeout": "30s",
        }
        callers = {name: {"command": ECHO, "upstreams": [*called]} for name in ("a", "b")}
        with running({"name": "limits", "defaults": PATIENT, "services": {**callers, **called}}) as mesh:
            yield read_map(mesh)


LET_GO = threading.Event()
"""Set once the service outside of the mesh may answer."""


def answer_late(connection: socket.socket) -> None:
    """An HTTP/1.1 server that answers when it is let go."""
    with connection.makefile("rb") as lines:
        while lines.readline():
            while lines.readline().strip():
                pass
            LET_GO.wait(300)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def statuses(port: int, path: str, count: int, **more: str) -> list[int]:
    """The statuses of so many requests, one after another; ``more`` are headers."""
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    return [ask(port, path, headers=headers).status for _ in range(count)]


# ---------------------------------------------------------------------------------------------- rate limits


def test_a_refused_request_is_told_which_limit_and_how_long_to_wait(world: Map) -> None:
    port = world.upstream("a", "some")
    answers = [ask(port, "/writes/1?x=y", method=method, body=b"{}") for method in ("POST", "PUT", "POST")]
    assert [answer.status for answer in answers] == [200, 200, 429]
    refused = answers[-1]
    told = {name: refused.headers[name] for name in refused.headers if "rate" in name or name == "retry-after"}
    assert told == {
        "x-meshctl-ratelimit": "writes",
        "retry-after": "1800",
        "ratelimit": '"writes";r=0;t=1800',
        "ratelimit-policy": '"writes";q=2;w=3600',
        "x-ratelimit-limit": "2",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1800",
    }
    assert refused.text == "meshctl: the rate limit writes is used up; try again in 1800 s.\n"
    # Other methods, other paths and other callers are not limited.
    assert ask(port, "/writes").status == 200
    assert ask(port, "/writesome", method="POST", body=b"").status == 200
    assert ask(world.upstream("b", "some"), "/writes", method="POST", body=b"").status == 200


def test_a_refused_request_is_not_tried_again(world: Map) -> None:
    port = world.upstream("a", "some")
    assert statuses(port, "/exact?a", 2) == [200, 429]
    assert statuses(port, "/exact/", 2) == [200, 200]
    stats = world.stats("a", "cluster.some/v1.upstream_rq_retry$")
    assert stats["cluster.some/v1.upstream_rq_retry"] == 0


def test_each_value_of_a_header_has_a_bucket_and_requests_without_it_share_one(world: Map) -> None:
    port = world.upstream("a", "some")
    assert statuses(port, "/users", 3, x_user="ann") == [200, 200, 429]
    assert statuses(port, "/users", 3, X_USER="bob") == [200, 200, 429]
    assert statuses(port, "/users", 3) == [200, 200, 429]


def test_values_without_end_take_no_memory_without_end(world: Map) -> None:
    port = world.upstream("a", "some")
    assert statuses(port, "/users", 3, x_user="first") == [200, 200, 429]
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for number in range(1100):
            connection.request("GET", "/users", headers={"x-user": f"user-{number}"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
    # Those used last are kept, so the first one starts anew.
    assert ask(port, "/users", headers={"x-user": "first"}).status == 200
    assert ask(port, "/users", headers={"x-user": "user-1099"}).status == 200
    assert ask(port, "/users", headers={"x-user": "user-1099"}).status == 429


def test_each_caller_has_a_bucket_by_its_identity_whatever_it_says_itself(world: Map) -> None:
    forged = {"x-forwarded-client-cert": "By=x;URI=spiffe://limits.mesh/nobody"}
    first = world.upstream("a", "some")
    assert [ask(first, "/callers", headers=forged).status for _ in range(3)] == [200, 200, 429]
    assert statuses(world.upstream("b", "some"), "/callers", 3) == [200, 200, 429]


def test_a_bucket_fills_again(world: Map) -> None:
    port = world.upstream("a", "some")
    wait_until(lambda: ask(port, "/soon").status == 429, "it is empty")
    answer = wait_until(lambda: (found := ask(port, "/soon")).status == 200 and found, "it has a token again")
    assert "x-meshctl-ratelimit" not in answer.headers


def test_every_instance_has_buckets_of_its_own(world: Map) -> None:
    answers = ask_many(world.upstream("a", "pair"), "/instances", 12, clients=1)
    taken = Counter(answer.headers["x-meshctl-instance"] for answer in answers if answer.status == 200)
    assert taken == {"pair-v1-1": 3, "pair-v1-2": 3}


def test_a_limit_for_every_request_says_how_many_are_left(world: Map) -> None:
    port = world.upstream("a", "every")
    answers = [ask(port) for _ in range(2)]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["3", "2"]
    assert answers[0].headers["x-ratelimit-limit"] == "4"
    # What another limit refuses takes no token of this one, and names one limit only.
    few = [ask(port, "/few") for _ in range(3)]
    assert [answer.status for answer in few] == [200, 429, 429]
    assert [answer.headers["x-ratelimit-limit"] for answer in few] == ["4", "1", "1"]
    last = [ask(port) for _ in range(2)]
    assert [(answer.status, answer.headers["x-ratelimit-remaining"]) for answer in last] == [(200, "0"), (429, "0")]
    assert last[1].headers["x-meshctl-ratelimit"] == "every"


def test_a_grpc_call_beyond_the_rate_is_resource_exhausted(world: Map) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{world.upstream('a', 'calls')}") as channel:
        once = channel.unary_unary("/lab.Echo/Once", bytes, bytes)
        assert [once(b"x", timeout=60) for _ in range(2)] == [b"x", b"x"]
        with pytest.raises(grpc.RpcError) as raised:
            once(b"x", timeout=60)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the rate limit calls is used up" in raised.value.details()


# ---------------------------------------------------------------------------------------------- bodies


def chunked(port: int, length: int) -> int:
    """The status for a body of a length that is not declared."""
    sent = b"POST /digest HTTP/1.1\r\nhost: sized\r\ntransfer-encoding: chunked\r\n\r\n"
    for start in range(0, length, 1000):
        size = min(1000, length - start)
        sent += f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        # In one piece: whoever refuses it may close the connection while there is more to come.
        connection.sendall(sent + b"0\r\n\r\n")
        return int(connection.makefile("rb").readline().split()[1])


def test_a_body_may_have_the_longest_length_and_not_a_byte_more(world: Map) -> None:
    port = world.upstream("a", "sized")
    assert ask(port, "/digest", method="POST", body=b"x" * MOST).json["length"] == MOST
    refused = ask(port, "/digest", method="PUT", body=b"x" * (MOST + 1))
    assert refused.status == 413
    assert refused.text == f"meshctl: sized takes request bodies of at most {MOST} bytes (limits.max_request_bytes).\n"
    assert chunked(port, MOST) == 200
    assert chunked(port, MOST + 1) == 413
    assert ask(port, "/x").status == 200


def test_a_declared_length_is_refused_before_the_body_is_there(world: Map) -> None:
    with socket.create_connection(("127.0.0.1", world.upstream("a", "sized")), 60) as connection:
        connection.sendall(b"POST /digest HTTP/1.1\r\nhost: sized\r\ncontent-length: 1000000000\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"413"


async def test_a_websocket_is_not_held_back_where_bodies_have_a_limit(world: Map) -> None:
    url = f"http://127.0.0.1:{world.upstream('a', 'sized')}/socket"
    async with aiohttp.ClientSession() as client, client.ws_connect(url) as connection:
        await connection.receive_str()
        for _ in range(3):
            await connection.send_bytes(b"x" * MOST)
            assert await connection.receive_bytes() == b"x" * MOST


# ---------------------------------------------------------------------------------------------- caps


@contextmanager
def held(world: Map, service: str, count: int) -> Iterator[list[Answer]]:
    """So many requests under way until the end, when ``answers`` holds what they were answered."""
    port, own = world.upstream("a", service), world.own(f"{service}-v1-1")
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda key: answers.append(ask(port, f"/events/{key}")), args=(number,))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        for number in range(count):
            ask(own, f"/release/{number}")
        for thread in threads:
            thread.join()


def test_more_requests_than_the_cap_are_refused_at_once_and_told_why(world: Map) -> None:
    port = world.upstream("a", "capped")
    active = "cluster.capped/v1.upstream_rq_active"
    with held(world, "capped", 3) as answers:
        wait_until(lambda: world.stats("a", active)[active] == 3, "three requests are under way")
        refused = [ask(port, method=method) for method in ("GET", "POST", "GET", "GET", "GET", "GET")]
        assert {answer.status for answer in refused} == {503}
        # By host name it is the same cap: it is the caller's.
        assert ask(world.proxy("a"), "http://capped/").status == 503
        assert ask(world.upstream("b", "capped")).status == 200, "another caller has a cap of its own"
    assert {answer.status for answer in answers} == {200}
    assert (refused[0].headers["x-meshctl-overloaded"], refused[0].headers["x-envoy-overloaded"]) == ("limits", "true")
    assert "more is under way from here to capped/v1 than its limits allow" in refused[0].text
    # Neither retried nor a failure of the service: its breaker would be open now.
    stats = world.stats("a", "cluster.capped/v1.upstream_rq_retry$")
    assert stats["cluster.capped/v1.upstream_rq_retry"] == 0
    assert ask(port).status == 200


def test_where_a_connection_carries_one_request_others_wait_for_it_and_no_more_than_may(world: Map) -> None:
    port, cluster = world.upstream("a", "outer"), "cluster.external/outer"
    answers: list[Answer] = []
    first, second = (threading.Thread(target=lambda: answers.append(ask(port))) for _ in range(2))

    def gauges() -> tuple[int, int]:
        found = world.stats("a", f"{cluster}.upstream_rq_(pending_)?active$")
        return found[f"{cluster}.upstream_rq_active"], found[f"{cluster}.upstream_rq_pending_active"]

    try:
        first.start()
        # Until it has its connection, the first one waits itself, and another one would be refused.
        wait_until(lambda: gauges() == (1, 0), "one is under way")
        second.start()
        wait_until(lambda: gauges() == (1, 1), "one is under way, and one waits")
        refused = ask(port)
    finally:
        LET_GO.set()
        for thread in (first, second):
            if thread.is_alive():
                thread.join()
    assert (refused.status, refused.headers["x-meshctl-overloaded"]) == (503, "limits")
    assert [answer.status for answer in answers] == [200, 200]
    connections = f"{cluster}.upstream_cx_total"
    assert world.stats("a", connections)[connections] == 1


def test_no_more_requests_are_tried_again_at_once_than_may(world: Map) -> None:
    port, cluster = world.upstream("a", "retried"), "cluster.retried/v1"
    ask_many(port, "/tries/storm?fail=1000", 20, clients=20)
    stats = world.stats("a", f"{cluster}.upstream_rq_retry")
    assert stats[f"{cluster}.upstream_rq_retry_overflow"] > 0
    assert stats[f"{cluster}.upstream_rq_retry"] < 20


def test_a_tcp_connection_beyond_the_cap_is_closed(world: Map) -> None:
    port = world.upstream("a", "tcp")
    with socket.create_connection(("127.0.0.1", port), 60) as first:
        assert first.recv(100) == b"tcp-v1-1\n"
        with socket.create_connection(("127.0.0.1", port), 60) as second:
            assert second.recv(100) == b""
        first.sendall(b"still here")
        assert first.recv(100) == b"still here"


def test_adaptive_concurrency_refuses_what_an_instance_cannot_take_at_once(world: Map) -> None:
    port = world.upstream("a", "adaptive")
    blocked = "adaptive_concurrency.gradient_controller.rq_blocked"
    with held(world, "adaptive", 40) as answers:
        wait_until(lambda: sum(world.stats("adaptive", blocked).values()), "some were refused")
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in refused} == {503}, "more than ten at once before the latency is known"
    assert {answer.headers["x-meshctl-overloaded"] for answer in refused} == {"adaptive-concurrency"}
    assert len(refused) < 40, "some are let through"
    # One after another, it takes them all, and learns how many it can take.
    answers = ask_many(port, "/", 200, clients=2)
    assert {answer.status for answer in answers} == {200}
    limits = "adaptive_concurrency.gradient_controller.concurrency_limit"
    wait_until(
        lambda: ask_many(port, "/", 40, clients=2) and max(world.stats("adaptive", limits).values()) > 10,
        "the limit is a measured one",
    )
