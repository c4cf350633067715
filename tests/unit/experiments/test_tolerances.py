"""Tolerances, the JSON paths in them, and how they are told."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from meshctl.experiments.jsonpath import find_all, parse_path
from meshctl.experiments.model import AtPath, Between, Equal, Matches, OneOf, Tolerance
from meshctl.experiments.tolerances import check, describe, pick, show, to_number

JSON = '{"ok": 3, "items": [{"id": 1}, {"id": 2}]}'


@pytest.mark.parametrize(
    ("tolerance", "value", "expected"),
    [
        (Equal(value=200), 200, True),
        (Equal(value=200), {"status": 200, "body": ""}, True),
        (Equal(value=200), {"status": 503}, False),
        (Equal(value=1), True, False),
        (Equal(value=True), True, True),
        (Equal(value="open"), "open", True),
        (OneOf(values=(200, 201)), {"status": 201}, True),
        (OneOf(values=("a", "b")), "c", False),
        (Between(low=0.99, high=1), 0.995, True),
        (Between(low=0.99, high=1), 1, True),
        (Between(low=0.99, high=1), None, False),
        (Between(low=0, high=1), True, False),
        (Between(low=0, high=1), "0.5", True),
        (Between(low=0, high=1), "much", False),
        (Between(low=0, high=1), math.nan, False),
        (Between(low=200, high=299), {"status": 204}, True),
        (Between(low=0, high=5, target="p99_ms"), {"p99_ms": 3, "status": 9}, True),
        (Between(low=0, high=5, target="p99_ms"), {"other": 3}, False),
        (Matches(pattern=re.compile("^ok")), "ok then", True),
        (Matches(pattern=re.compile("ok"), target="stdout"), {"stdout": "not"}, False),
        (Matches(pattern=re.compile('"a": 1')), {"a": 1}, True),
        (Matches(pattern=re.compile("x")), None, False),
        (AtPath(path="$.ok", expect=(3,), target="stdout"), {"status": 0, "stdout": JSON}, True),
        (AtPath(path="$.ok", expect=(4,), target="stdout"), {"stdout": JSON}, False),
        (AtPath(path="$.items[*].id", expect=(1, 2)), JSON, True),
        (AtPath(path="$.items[*].id", count=2), JSON, True),
        (AtPath(path="$.items[*].id", count=3), JSON, False),
        (AtPath(path="$.nothing"), JSON, False),
        (AtPath(path="$.ok"), JSON, True),
        (AtPath(path="$.ok"), "no JSON", False),
    ],
)
def test_a_value_is_within_a_tolerance_or_not(tolerance: Tolerance, value: Any, expected: bool) -> None:
    assert check(tolerance, value) is expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("$", 1, [1]),
        ("$.a.b", {"a": {"b": 2}}, [2]),
        ("a.b", {"a": {"b": 2}}, [2]),
        ("$['a b'][\"c\"]", {"a b": {"c": 3}}, [3]),
        ("$.a[0]", {"a": [1, 2]}, [1]),
        ("$.a[-1]", {"a": [1, 2]}, [2]),
        ("$.a[5]", {"a": [1, 2]}, []),
        ("$.a[*]", {"a": [1, 2]}, [1, 2]),
        ("$.*.b", {"x": {"b": 1}, "y": {"b": 2}}, [1, 2]),
        ("$.a[0]", {"a": "text"}, []),
        ("$[*]", 7, []),
    ],
)
def test_a_path_leads_to_values(path: str, value: Any, expected: list[Any]) -> None:
    assert find_all(parse_path(path), value) == expected


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("$..a", "the descent"),
        ("$.a[?(@.b)]", "a filter"),
        ("$.a[0:2]", "a slice"),
        ("$.a[0,1]", "a union"),
        ("$.a[(1)]", "an expression"),
        ("$.a!", "cannot be read"),
    ],
)
def test_what_a_path_cannot_do_is_named(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_path(path)


@pytest.mark.parametrize(
    ("tolerance", "words"),
    [
        (Equal(value=True), "true"),
        (OneOf(values=(200, 201)), "one of 200, 201"),
        (Between(low=0.99, high=1, target="success"), "success between 0.99 and 1"),
        (Between(low=5, high=math.inf), "at least 5"),
        (Between(low=-math.inf, high=300), "at most 300"),
        (Matches(pattern=re.compile("ok")), "like /ok/"),
        (AtPath(path="$.a", expect=(1,)), "1 at $.a"),
        (AtPath(path="$.a", count=2), "2 values at $.a"),
        (AtPath(path="$.a", target="stdout"), "stdout something at $.a"),
    ],
)
def test_a_tolerance_is_told_in_words(tolerance: Tolerance, words: str) -> None:
    assert describe(tolerance) == words


def test_what_is_shown_is_what_is_looked_at() -> None:
    load = {"success": 0.98765, "p99_ms": 1234.5}
    assert show(pick(Between(low=0, high=1, target="success"), load)) == "0.9877"
    assert show(pick(Between(low=0, high=1, target="p99_ms"), load)) == "1234"
    assert pick(Equal(value=200), {"status": 200}) == 200
    assert pick(Matches(pattern=re.compile("x"), target="stdout"), {"stdout": "y"}) == "y"
    assert pick(AtPath(path="$.items[*].id"), JSON) == [1, 2]
    assert pick(AtPath(path="$.ok"), JSON) == 3
    assert pick(None, [1]) == [1]


def test_a_long_value_is_shortened_to_one_line() -> None:
    shown = show("a\nb" * 100)
    assert len(shown) == 80
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"status": 503, "body": "x"}, "status 503"),
        ({"requests": 9, "success": 0.5, "p99_ms": 12.0}, "9 requests, success 0.5, p99 12 ms"),
        ({"changes": []}, "nothing changed"),
        ({"changes": ["a", "b"]}, "a; b"),
        ({"id": "f1", "summary": "paused"}, "paused"),
        ({"message": "killed: a"}, "killed: a"),
        ({"v1": 100}, '{"v1": 100}'),
        (None, "null"),
    ],
)
def test_of_what_verbs_answer_the_gist_is_shown(value: Any, words: str) -> None:
    assert show(value) == words


def test_a_number_is_not_whatever_can_be_made_one() -> None:
    assert [to_number(value) for value in ("1.5", True, None, "x", [1], math.nan)] == [
        1.5,
        None,
        None,
        None,
        None,
        None,
    ]
