"""Where requests go: rules by path, method, header, query and caller; rewrites, redirects, mirrors, sticky splits."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import ECHO, LAB, PATIENT, Answer, Map, ask, ask_many, free_port, read_map, running

pytestmark = pytest.mark.e2e

TWO: dict[str, Any] = {"command": LAB, "versions": {"v1": {}, "v2": {}}}
RULES = [
    {"name": "beta", "match": {"headers": {"x-beta": "1"}}, "version": "v2"},
    {"name": "late", "match": {"path": {"prefix": "/first"}, "methods": ["GET"]}, "version": "v2"},
    {"name": "later", "match": {"path": {"prefix": "/first"}}, "version": "v1"},
    {"name": "exact", "match": {"path": "/exact"}, "version": "v2"},
    {"name": "regex", "match": {"path": {"regex": "/v[0-9]+/(a|b)"}}, "version": "v2"},
    {"name": "query", "match": {"query": {"debug": "1"}}, "version": "v2"},
    {"name": "caller", "match": {"path": {"prefix": "/who"}, "from": ["b"]}, "version": "v2"},
    {"name": "outside", "match": {"path": {"prefix": "/who"}, "from": ["gateway"]}, "split": {"v2": 100}},
    {"name": "halves", "match": {"path": "/halves"}, "split": {"v1": 50, "v2": 50}},
    {"name": "stripped", "match": {"path": {"prefix": "/api"}}, "rewrite": {"prefix": "/"}},
    {"name": "moved", "match": {"path": {"prefix": "/old"}}, "rewrite": {"prefix": "/new", "host": "inner.test"}},
    {"name": "whole", "match": {"path": {"prefix": "/any"}}, "rewrite": {"path": "/one"}},
    {"name": "gone", "match": {"path": "/gone"}, "redirect": {"path": "/here", "host": "x.test:81", "status": 308}},
    {
        "name": "dressed",
        "match": {"path": "/dressed"},
        "headers": {
            "request": {"set": {"x-set": "100%"}, "add": {"x-add": "2"}, "remove": ["x-gone"]},
            "response": {"set": {"x-served": "yes"}, "remove": ["content-type"]},
        },
    },
]


def topology(weight: int, port: int) -> dict[str, Any]:
    return {
        "name": "routing",
        "defaults": PATIENT,
        "gateway": {
            "port": port,
            "routes": [{"path": "/", "service": "shop"}, {"path": "/site", "service": "site"}],
        },
        "services": {
            "a": {"command": ECHO, "upstreams": ["shop", "users", "mirrored"]},
            "b": {"command": ECHO, "upstreams": ["shop"]},
            "shop": TWO | {"routes": RULES},
            "site": TWO | {"split": {"v1": 50, "v2": 50}, "sticky": {"cookie": {"name": "site.seen", "ttl": "1h"}}},
            "users": TWO | {"split": {"v1": 100 - weight, "v2": weight}, "sticky": {"header": "x-user"}},
            "mirrored": TWO
            | {
                "mirror": {"version": "v2"},
                "routes": [{"match": {"path": "/some"}, "mirror": {"version": "v2", "percent": "20%"}}],
            },
        },
    }


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    with running(topology(20, free_port())) as mesh:
        yield read_map(mesh)


def version(answer: Answer) -> str:
    assert answer.status == 200, answer
    return answer.headers["x-meshctl-version"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/", {}, "v1"),
        ("POST", "/", {"x-beta": "1"}, "v2"),
        ("GET", "/", {"x-beta": "2"}, "v1"),
        ("GET", "/first/x", {}, "v2"),
        ("POST", "/first", {}, "v1"),
        ("GET", "/firstly", {}, "v1"),
        ("PUT", "/exact", {}, "v2"),
        ("GET", "/exact?x=1", {}, "v2"),
        ("GET", "/exact/", {}, "v1"),
        ("GET", "/v12/b", {}, "v2"),
        ("GET", "/v12/bc", {}, "v1"),
        ("DELETE", "/x?a=1&debug=1", {}, "v2"),
        ("GET", "/x?debug=2", {}, "v1"),
    ],
)
def test_the_first_rule_that_matches_is_taken(
    world: Map, method: str, path: str, headers: dict[str, str], expected: str
) -> None:
    for port in (world.upstream("a", "shop"), world.gateway):
        assert version(ask(port, path, method=method, headers=headers)) == expected
    assert version(ask(world.proxy("a"), f"http://shop{path}", method=method, headers=headers)) == expected


def test_a_rule_for_one_caller_is_not_for_others(world: Map) -> None:
    assert version(ask(world.upstream("a", "shop"), "/who")) == "v1"
    assert version(ask(world.upstream("b", "shop"), "/who")) == "v2"
    assert version(ask(world.gateway, "/who")) == "v2"
    config = json.loads(world.mesh.must("proxy", "config", "a", "routes", "-o", "json"))
    assert "shop/caller" not in json.dumps(config)


def test_a_rule_has_a_split_of_its_own(world: Map) -> None:
    seen = Counter(map(version, ask_many(world.upstream("a", "shop"), "/halves", 400)))
    # Five standard deviations (10) of a binomial distribution about its mean.
    assert 150 <= seen["v2"] <= 250


@pytest.mark.parametrize(
    ("path", "asked", "host"),
    [
        ("/api", "/", None),
        ("/api/x?q=1", "/x?q=1", None),
        ("/old/x", "/new/x", "inner.test"),
        ("/old", "/new", "inner.test"),
        ("/any/thing?q=%2F", "/one?q=%2F", None),
    ],
)
def test_the_service_is_asked_for_what_the_rule_says(world: Map, path: str, asked: str, host: str | None) -> None:
    said = ask(world.upstream("a", "shop"), path, headers={"host": "shop"}).json
    assert (said["path"], said["headers"]["host"]) == (asked, host or "shop")


def test_a_redirect_keeps_the_query(world: Map) -> None:
    answer = ask(world.upstream("a", "shop"), "/gone?q=1", headers={"host": "shop"})
    assert (answer.status, answer.headers["location"]) == (308, "http://x.test:81/here?q=1")


def test_headers_are_changed_both_ways(world: Map) -> None:
    sent = {"x-set": "0", "x-add": "1", "x-gone": "1"}
    answer = ask(world.upstream("a", "shop"), "/dressed", headers=sent)
    got = answer.json["headers"]
    assert (got["x-set"], got["x-add"], "x-gone" in got) == ("100%", "1,2", False)
    assert (answer.headers["x-served"], "content-type" in answer.headers) == ("yes", False)


# ---------------------------------------------------------------------------------------------- mirrors


def test_every_request_is_copied_and_the_answers_of_copies_are_dropped(world: Map) -> None:
    answers = ask_many(world.upstream("a", "mirrored"), "/copied", 100)
    assert {version(answer) for answer in answers} == {"v1"}
    copies = world.own("mirrored-v2-1")
    wait_until(lambda: ask(copies, "/seen/copied").json["copies"] == 100, "all copies have arrived")
    assert ask(copies, "/seen/copied").json["seen"] == 100
    assert ask(world.own("mirrored-v1-1"), "/seen/copied").json["copies"] == 0
    # Copies have a cluster of their own, so that nothing counts them as requests to the version.
    counted = world.stats("a", "upstream_rq_total")
    assert counted["cluster.mirrored/v2.upstream_rq_total"] == 0
    assert counted["cluster.mirror/mirrored/v2.upstream_rq_total"] >= 100


def test_a_share_of_the_requests_is_copied(world: Map) -> None:
    ask_many(world.upstream("a", "mirrored"), "/some", 400)
    # What was copied before arrives before what is copied after: then all are there.
    ask(world.upstream("a", "mirrored"), "/last")
    copies = world.own("mirrored-v2-1")
    wait_until(lambda: ask(copies, "/seen/last").json["copies"], "the last copy has arrived")
    # Five standard deviations (8) of a binomial distribution about its mean.
    assert 40 <= ask(copies, "/seen/some").json["copies"] <= 120


# ---------------------------------------------------------------------------------------------- sticky splits


def test_a_visitor_with_the_cookie_stays_on_the_version_of_the_first_answer(world: Map) -> None:
    first: Counter[str] = Counter()
    for _ in range(40):
        answer = ask(world.gateway, "/site")
        first[version(answer)] += 1
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("site.seen=")
        assert "Max-Age=3600" in cookie
        headers = {"cookie": f"other=1; {cookie.partition(';')[0]}"}
        again = [ask(world.gateway, f"/site/{n}", method="POST", headers=headers) for n in range(3)]
        assert {version(item) for item in again} == {version(answer)}
        assert all("set-cookie" not in item.headers for item in again)
    # All of one kind would be chance once in 2^39.
    assert set(first) == {"v1", "v2"}


def versions_of_users(world: Map) -> dict[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", world.upstream("a", "users"), timeout=60)
    found: dict[int, str] = {}
    for number in range(400):
        connection.request("GET", "/", headers={"x-user": f"user-{number}"})
        response = connection.getresponse()
        response.read()
        found[number] = str(response.getheader("x-meshctl-version"))
    connection.close()
    return found


def test_a_growing_canary_keeps_the_users_that_it_has(world: Map) -> None:
    before = versions_of_users(world)
    assert versions_of_users(world) == before
    # The hash spreads users as chance would: five standard deviations (8) about the mean.
    assert 40 <= Counter(before.values())["v2"] <= 120
    world.mesh.write(topology(60, world.gateway))
    world.mesh.up()
    after = versions_of_users(world)
    assert 191 <= Counter(after.values())["v2"] <= 289
    assert all(after[user] == "v2" for user, there in before.items() if there == "v2")
