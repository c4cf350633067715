"""Which rules can never match, what a route lays over its service, and which expressions are taken."""

from __future__ import annotations

import pytest
from tests.support.cases import load_mesh

from meshctl.errors import InvalidTopology
from meshctl.spec.policy_schema import Timeouts
from meshctl.spec.regexes import explain_unusable
from meshctl.spec.routing_schema import PathMatch, RouteRule

HEAD = """\
services:
  web: {command: ./web, upstreams: [api]}
  other: {command: ./other, upstreams: [api]}
  api:
    timeout: {request: 9s, idle: 1m}
    retry_policy: {max_attempts: 4, base_interval: 10ms}
    versions: {v1: {command: ./one}, v2: {command: ./two}}
    routes:
"""


_SECOND = HEAD.count("\n") + 2


def rules(*lines: str) -> tuple[RouteRule, ...]:
    """The rules of a service from lines in flow style."""
    return load_mesh(HEAD + "".join(f"      - {line}\n" for line in lines)).services["api"].routes


def reachable(first: str, second: str) -> bool:
    """Whether the second match can be reached behind the first."""
    lines = (f"{{match: {{{first}}}, version: v1}}", f"{{match: {{{second}}}, version: v2}}")
    with pytest.raises(InvalidTopology) as raised:
        rules(*lines, "{version: unknown}")
    # The version that does not exist is reported in any case.
    assert "unknown-version" in {problem.code for problem in raised.value.problems}
    return "unreachable-route" not in {p.code for p in raised.value.problems if p.where and p.where.line == _SECOND}


@pytest.mark.parametrize("second", ["{path: /b, version: v2}", "{match: {methds: [GET]}, version: v2}"])
def test_a_misspelt_condition_hides_no_other_rule(second: str) -> None:
    with pytest.raises(InvalidTopology) as raised:
        rules("{name: all, path: /a, version: v1}", second)
    assert {problem.code for problem in raised.value.problems} == {"unknown-key"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", "path: /x"),
        ("path: {prefix: /}", "methods: [GET]"),
        ("path: {prefix: /a}", "path: {prefix: /a/b}"),
        ("path: {prefix: /a/}", "path: /a"),
        ("path: /a", "path: /a, headers: {x: y}"),
        ("path: {regex: '/v[0-9]+'}", "path: /v12"),
        ("path: {regex: '/a.*'}", "path: {regex: '/a.*'}"),
        ("methods: [GET, POST]", "methods: [POST]"),
        ("headers: {x-a: {present: true}}", "headers: {X-A: '1'}"),
        ("headers: {x-a: {regex: '[0-9]'}}", "headers: {x-a: '1', x-b: '2'}"),
        ("headers: {x-a: {present: false}}", "headers: {x-a: {present: false}}"),
        ("query: {a: {present: true}}", "query: {a: {regex: '[0-9]'}}"),
        ("from: [web, gateway]", "from: [gateway], path: /x"),
    ],
)
def test_a_rule_that_an_earlier_one_leaves_nothing_is_named(first: str, second: str) -> None:
    assert not reachable(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("path: {prefix: /a}", "path: {prefix: /ab}"),
        ("path: {prefix: /a/b}", "path: {prefix: /a}"),
        ("path: /a", "path: /a/"),
        ("path: /a", "path: {prefix: /a}"),
        ("path: {prefix: /a}", "path: {regex: '/a/.*'}"),  # it could be said, but not for every expression
        ("path: {regex: '/(?:a|b)'}", "path: /c"),
        ("path: {regex: '/a\\b'}", "path: /a"),
        ("methods: [GET]", "methods: [GET, POST]"),
        ("methods: [GET]", ""),
        ("headers: {x-a: '1'}", "headers: {x-a: '2'}"),
        ("headers: {x-a: '1'}", "headers: {x-a: {present: true}}"),
        ("headers: {x-a: {present: true}}", "headers: {x-a: {present: false}}"),
        ("query: {a: '1'}", "query: {A: '1'}"),
        ("from: [web]", "from: [web, other]"),
        ("from: [web]", ""),
    ],
)
def test_a_rule_that_may_match_is_not(first: str, second: str) -> None:
    assert reachable(first, second)


def test_a_route_is_laid_over_its_service_key_by_key() -> None:
    plain, short, none, retried = rules(
        "{match: {path: /a}}",
        "{match: {path: /b}, timeout: 2s}",
        "{match: {path: /c}, timeout: {request: 0}}",
        "{match: {path: /d}, timeout: {idle: 0}, retry_policy: {max_attempts: 2}}",
    )
    assert plain.timeout == Timeouts(request=9.0, idle=60.0)
    assert (short.timeout, short.own_timeout) == (Timeouts(request=2.0, idle=60.0), True)
    assert (none.timeout, none.own_timeout) == (Timeouts(request=0.0, idle=60.0), True)
    assert (retried.timeout, retried.own_timeout) == (Timeouts(request=9.0, idle=0.0), False)
    assert (retried.retry_policy.max_attempts, retried.retry_policy.base_interval) == (2, 0.01)
    assert (plain.name, plain.match.path) == ("1", PathMatch(kind="exact", value="/a"))


def test_a_duration_over_a_mapping_keeps_the_rest_of_it() -> None:
    text = "defaults: {timeout: {request: 3s, idle: 1m}}\nservices: {web: {command: ./web, timeout: 7s}}\n"
    assert load_mesh(text).services["web"].policies.timeout == Timeouts(request=7.0, idle=60.0)
    text = "defaults: {timeout: 7s}\nservices: {web: {command: ./web, timeout: {connect: 2s}}}\n"
    assert load_mesh(text).services["web"].policies.timeout == Timeouts(request=7.0, connect=2.0)


def test_an_expression_that_would_fill_the_engine_is_refused() -> None:
    assert explain_unusable("[^a]{1000}") == ""
    assert "too large" in explain_unusable(f"(?:{'[^a]' * 100}){{1000}}")
