"""What is said of a request is what the plan of its caller's sidecar does with it, and where that was written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.cases import Case, make_case
from tests.support.topologies import make_source

from meshctl.plan.explain import CONTRIBUTIONS, Line, explain
from meshctl.plan.matching import Asked, find_host, find_table, matches
from meshctl.plan.model import Match
from meshctl.spec.load import read_tree
from meshctl.spec.policies import Documents, Origin
from meshctl.spec.provenance import Provenance

TEXT = """\
name: shop
defaults: {timeout: 5s, retry_policy: {max_attempts: 3}}
service_mesh: {thresholds: {error_count: 4}}
services:
  front: {command: ./front, upstreams: [orders, db, vault]}
  orders:
    timeout: 2s
    retry_policy: {base_interval: 50ms}
    versions: {v1: {command: ./orders, replicas: 2}, v2: {command: ./orders}}
    split: {v1: 90, v2: 10}
    fallback: {strategy: cached_response, max_age: 1m}
    limits: {max_requests: 100, max_request_bytes: 1000}
    outlier_detection: {consecutive_failures: 3}
    rate_limits: [{name: reads, requests: 10, per: 1s, methods: [GET], path: /list}]
  db: {command: ./db, protocol: tcp}
  vault: {address: "https://vault.example", fallback: {strategy: static, body: "none"}}
"""


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(TEXT, {"health": {"orders-v1-2": "unhealthy"}})


def lines_of(case: Case, service: str, caller: str = "front", **asked: Any) -> dict[str, Line]:
    found = explain(
        case.mesh,
        case.plan,
        case.facts,
        caller=caller,
        service=case.mesh.services[service],
        asked=Asked(**asked),
    )
    return {line.topic: line for line in found}


def test_every_policy_on_the_way_has_its_line(case: Case) -> None:
    found = {topic: line.words for topic, line in lines_of(case, "orders", path="/list?limit=3").items()}
    assert found["route"] == "orders: any path, methods that may be repeated"
    assert found["goes to"] == "orders/v1 90%, orders/v2 10%"
    assert found["timeout"] == "2s for the whole answer, retries included"
    assert found["retries"] == "up to 2, within 50ms to 1s, on 502, 503, 504, connect-failure, reset, refused-stream"
    assert found["circuit"].startswith("opens after 4 failures in a row; then 503 at once for 30s")
    kept = "instead of a failure: the last good answer up to 1m old, to the same Authorization and Cookie"
    assert found["fallback"] == kept
    assert "fallback" not in lines_of(case, "orders", method="POST")
    fixed = lines_of(case, "vault")["fallback"].words
    assert fixed == "instead of a failure: always 200, 4 characters of text/plain; charset=utf-8"
    assert found["limits"] == "at most 100 requests at once from front"
    assert found["outliers"].startswith("an instance is left out for")
    assert found["connection"] == "mTLS as spiffe://shop.mesh/front, to spiffe://shop.mesh/orders"
    assert found["authorization"] == "allowed: no rule matches, and the default is `allow`"
    assert found["rate limit"].startswith("reads: 10 in 1s")
    assert found["body"] == "at most 1000 bytes; more is answered with 413"
    assert "rate limit" not in lines_of(case, "orders", path="/other")
    assert "rate limit" not in lines_of(case, "orders", path="/list", method="POST")


def test_what_may_not_be_repeated_is_told_apart(case: Case) -> None:
    careful = lines_of(case, "orders", method="POST")
    assert "only when it never reached orders: POST may not be safe to repeat" in careful["retries"].words
    keyed = lines_of(case, "orders", method="POST", headers={"idempotency-key": "1"})
    assert keyed["route"].words == "orders: any path, with an Idempotency-Key"
    assert "on 502" in keyed["retries"].words


ROUTED = """\
services:
  front: {command: ./front, upstreams: [api]}
  back: {command: ./back}
  api:
    versions: {v1: {command: ./api}, v2: {command: ./api}}
    sticky: {cookie: {name: user}}
    split: {v1: 50, v2: 50}
    mirror: {version: v2, percent: 5}
    routes:
      - name: old
        match: {path: {prefix: /old}}
        redirect: {path: /new}
      - name: beta
        match: {path: {prefix: /beta}, headers: {x-beta: {regex: "y.*"}}, query: {on: "1"}, methods: [GET]}
        split: {v2: 100}
        timeout: 300ms
        rewrite: {prefix: /v2}
        headers: {request: {set: {x-team: blue}, remove: [x-debug]}}
      - name: exact
        match: {path: {exact: /only}}
        retry_policy: {max_attempts: 1}
      - name: regex
        match: {path: {regex: "/n[0-9]+"}}
        split: {v1: 100}
    security:
      default: deny
      rules:
        - {name: readers, action: allow, from: [front], methods: [GET]}
"""


@pytest.fixture(scope="module")
def routed() -> Case:
    return make_case(ROUTED)


def test_rules_are_told_with_their_places(routed: Case) -> None:
    found = lines_of(routed, "api", path="/beta/x?on=1", headers={"x-beta": "yes"})
    assert (
        found["route"].words == "api/beta: paths under /beta, the header x-beta matches y.*, the parameter on is 1, GET"
    )
    assert str(found["route"].where) == "mesh.yaml:13:9"
    assert found["rewrite"].words == "it is asked for /v2/x?on=1"
    assert found["headers"].words == "of the request: x-team is blue, x-debug is taken away"
    assert found["goes to"].words == "api/v2"
    assert found["timeout"].words == "300ms for the whole answer, retries included"
    assert found["timeout"].where == found["route"].where
    assert found["mirror"].words == "a copy of 5% goes to mirror/api/v2, whose answers are dropped"
    plain = lines_of(routed, "api", path="/beta/x?on=1")
    assert plain["route"].words.startswith("api: any path")
    assert plain["sticky"].words == "who has the cookie user stays on one version"
    assert lines_of(routed, "api", path="/n12")["route"].words.startswith("api/regex: paths that match /n[0-9]+")
    assert lines_of(routed, "api", path="/n12x")["route"].words.startswith("api: ")
    exact = lines_of(routed, "api", path="/only")
    assert (exact["route"].words, exact["retries"].words) == ("api/exact: the path /only", "none")


def test_a_redirect_is_told_and_nothing_after_it(routed: Case) -> None:
    found = lines_of(routed, "api", path="/old/x")
    assert list(found) == ["route", "redirect"]
    assert found["redirect"].words == "302 to http://api/new"


def test_who_is_let_in_is_told_by_its_rule(routed: Case) -> None:
    admitted = lines_of(routed, "api")["authorization"]
    assert (admitted.words, str(admitted.where)) == ("allowed: by the rule readers", "mesh.yaml:28:11")
    refused = lines_of(routed, "api", method="PUT")["authorization"]
    assert (refused.words, refused.keys) == ("denied with 403: no allow rule matches", ("security.rules",))


def test_instances_are_counted_by_their_health(case: Case) -> None:
    found = explain(
        case.mesh, case.plan, case.facts, caller="front", service=case.mesh.services["orders"], asked=Asked()
    )
    assert [line.words for line in found if line.topic == "instances"] == [
        "orders/v1: 1 of 2 healthy",
        "orders/v2: 1 of 1 healthy",
    ]


def test_who_may_not_call_is_told_what_it_gets(case: Case) -> None:
    (line,) = lines_of(case, "front", caller="orders").values()
    assert line.words.startswith('answered at once with 502: meshctl: orders has no upstream "front".')
    assert line.keys == ()


def test_plain_tcp_and_addresses_outside_are_told_as_such(case: Case) -> None:
    assert lines_of(case, "db")["route"].words == "plain TCP: a connection is handed on as it is"
    assert lines_of(case, "db")["goes to"].words == "db/v1"
    assert "has no upstream db" in lines_of(case, "db", caller="orders")["route"].words
    assert "(vault.example:443)" in lines_of(case, "vault")["connection"].words
    assert "headers" not in lines_of(case, "vault")  # what sidecars tell each other is no header of the user's


def test_no_two_contributions_are_the_same() -> None:
    assert len(set(CONTRIBUTIONS)) == len(CONTRIBUTIONS)


@pytest.mark.parametrize(
    ("match", "asked", "expected"),
    [
        (Match(path_prefix="/a"), Asked(path="/a"), True),
        (Match(path_prefix="/a"), Asked(path="/a/b?c=d"), True),
        (Match(path_prefix="/a"), Asked(path="/ab"), False),
        (Match(path_prefix="/a/"), Asked(path="/a"), True),
        (Match(methods=("GET",)), Asked(method="POST"), False),
        (Match(header_present="x-a"), Asked(headers={"x-a": ""}), True),
        (Match(header_present="x-a"), Asked(), False),
        (Match(body_over=10), Asked(), False),
        (Match(body_undeclared=True), Asked(), True),
        (Match(body_undeclared=True), Asked(headers={"content-length": "1"}), False),
    ],
)
def test_a_request_is_matched_as_envoy_does(*, match: Match, asked: Asked, expected: bool) -> None:
    assert matches(match, asked) is expected


def test_hosts_that_are_not_named_are_those_of_all_others(case: Case) -> None:
    table = find_table(case.plan.proxies["front"], "outbound")
    assert table is not None
    named, other = find_host(table, "orders"), find_host(table, "nobody")
    assert named is not None
    assert other is not None
    assert (named.name, other.name) == ("orders", "*")
    assert find_table(case.plan.proxies["front"], "nothing") is None


# ------------------------------------------------------------------------------------------ provenance


def provenance(documents: Documents | None = None) -> Provenance:
    source = make_source(TEXT)
    return Provenance(read_tree(source), documents or read_tree(source).policies)


def test_a_value_is_found_where_it_was_written_in_whichever_layer() -> None:
    found = provenance()
    (timeout,) = found.find("orders", "timeout")
    assert (timeout.owner, str(timeout.where), timeout.origin) == ("orders", "mesh.yaml:7:14", Origin())
    (timeout,) = found.find("front", "timeout")
    assert (timeout.owner, str(timeout.where)) == ("defaults", "mesh.yaml:2:21")
    assert [(s.path, s.owner) for s in found.find("orders", "retry_policy")] == [
        ("retry_policy.max_attempts", "defaults"),
        ("retry_policy.base_interval", "orders"),
    ]
    (threshold,) = found.find("orders", "circuit_breaker")
    assert (threshold.path, threshold.owner) == ("circuit_breaker.failure_threshold", "mesh")
    assert [source.path for source in found.find("orders", "split")] == ["split.v1", "split.v2"]
    assert found.find("front", "split") == ()
    assert found.find("orders", "load_balancing") == ()
    assert found.find("orders", "timeout.nothing") == ()


def test_what_a_command_set_is_found_by_its_revision() -> None:
    documents = dict(read_tree(make_source(TEXT)).policies)
    made = Origin(revision=7, author="ann@apply", time=1.0)
    for key in (("orders", "timeout"), ("orders", "split")):
        documents[key] = replace(documents[key], origin=made)
    found = provenance(documents)
    assert {source.origin for key in ("timeout", "split") for source in found.find("orders", key)} == {made}
    gone = {key: document for key, document in documents.items() if key != ("orders", "timeout")}
    assert [source.owner for source in provenance(gone).find("orders", "timeout")] == ["defaults"]


def test_how_an_instance_is_chosen_and_what_it_takes_is_told() -> None:
    text = """
services:
  front: {command: ./front, upstreams: [ring, slow, plain]}
  ring:
    command: ./ring
    replicas: 2
    load_balancing: {algorithm: ring_hash, hash: {header: X-User}, weights: {ring-v1-2: 3}, panic_threshold: 50%}
  slow: {command: ./slow, load_balancing: {algorithm: least_request, slow_start: 10s}}
  plain:
    command: ./plain
    load_balancing: {algorithm: maglev, hash: {source: true}}
    limits: {max_retries: 3, adaptive_concurrency: true}
    rate_limits: [{name: each, requests: 10, burst: 20, each_caller: true}]
"""
    case = make_case(text)
    assert lines_of(case, "ring")["chosen by"].words == (
        "ring_hash; by the header x-user; weights 1, 3; to all instances with less than 50% healthy"
    )
    assert lines_of(case, "slow")["chosen by"].words == "least_request; a new instance has its full share after 10s"
    assert lines_of(case, "plain")["chosen by"].words == "maglev; by its caller front"
    assert lines_of(case, "plain", "gateway")["chosen by"].words == "maglev; by the address of the client"
    assert lines_of(case, "plain")["limits"].words == "at most 3 retries at once from front"
    found = lines_of(case, "plain")["rate limit"]
    assert found.words == "each: 10 in 1s for each caller at each instance, bursts of 20; then 429"
    assert lines_of(case, "plain")["concurrency"].keys == ("limits.adaptive_concurrency",)
