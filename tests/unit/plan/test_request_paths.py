"""Paths as sidecars make them, and which of them a rule stands for. Real Envoy has its say in tests/e2e."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.plan.policies.request_paths import is_settled, matches_path, normalise, path_regex

SEEN_IN_ENVOY = {
    "/admin": "/admin",
    "/./admin": "/admin",
    "/x/../admin": "/admin",
    "/%2e%2e/admin": "/admin",
    "/a%2E%2E/b": "/a../b",
    "/..": "/",
    "/a/b/..": "/a/",
    "//../admin": "/admin",
    "/a//../b": "/a/b",
    "/a/./b/.": "/a/b/",
    "/a\\admin": "/a/admin",
    "/a//b": "/a//b",
    '/a"b<>^`{|}': "/a%22b%3C%3E%5E%60%7B%7C%7D",
    "/%41%5a%30%2d%2e%5f%7e": "/AZ0-._~",
    "/a%24b": "/a%24b",
    "/a%zzb": "/a%zzb",
    "/a%": "/a%",
    "/a%2fb?c=/../d": "/a%2fb?c=/../d",
    "/caf%c3%a9": "/caf%c3%a9",
    "/%%361": "/%2561",
    "/%%32e": "/%252e",
    "/...": "/...",
    "/": "/",
}
"""What Envoy 1.40 made of these."""


@pytest.mark.parametrize("path", SEEN_IN_ENVOY)
def test_a_path_is_what_envoy_makes_of_it(path: str) -> None:
    assert normalise(path) == SEEN_IN_ENVOY[path]


@pytest.mark.parametrize("path", ["", "a", "*", "http", "/a#b", "/a%00"])
def test_what_envoy_answers_with_400_is_no_path(path: str) -> None:
    assert normalise(path) is None


def test_characters_that_are_not_ascii_are_encoded() -> None:
    assert normalise("/caf\u00e9") == "/caf%C3%A9"


@pytest.mark.parametrize("path", ["/a/b", "/a%20b", "/a%25", "/a%25b/%40", "/?a=;%2f", "/~a.b-c_d", "/caf%C3%A9"])
def test_most_paths_are_settled(path: str) -> None:
    assert is_settled(path)


@pytest.mark.parametrize(
    "path", ["/a;b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%3bb", "/a%00", "/%61", "/%2e", "/a%zz", "/a%", "/%252e", "/\\a"]
)
def test_what_one_application_reads_otherwise_is_not(path: str) -> None:
    assert not is_settled(path)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/charge", "/charge", True),
        ("/charge", "/charge/", True),
        ("/charge/", "/charge", True),
        ("/charge", "//charge", True),
        ("/charge", "/charge?a=b", True),
        ("/charge", "/charges", False),
        ("/charge", "/charge/7", False),
        ("/charge", "/CHARGE", False),
        ("/orders/*", "/orders", True),
        ("/orders/*", "/orders/", True),
        ("/orders/*", "/orders?all", True),
        ("/orders/*", "/orders/7/items", True),
        ("/orders/*", "/orders-old", False),
        ("/v1*", "/v1", True),
        ("/v1*", "/v10/x", True),
        ("/v1*", "/v", False),
        ("/*", "/", True),
        ("*", "/any/thing", True),
        ("/", "/", True),
        ("/", "/?a", True),
        ("/", "/a", False),
        ("/a@b", "/a%40b", True),
        ("/a%40b", "/a@b", True),
        ("/caf%C3%A9", "/caf%c3%a9", True),
        ("/a b", "/a%20b", True),
    ],
)
def test_a_rule_stands_for_a_path_however_it_is_written(pattern: str, path: str, matches: bool) -> None:
    assert matches_path(pattern, path) is matches
    assert (re.fullmatch(path_regex(pattern), path) is not None) is matches


PIECES = st.lists(st.sampled_from(["/", "a", "b", "%40", "@", "%C3%A9", "%20", ".", "?", "+", "-"]), max_size=8)


@given(pattern=PIECES, end=st.sampled_from(["", "*", "/*"]), path=PIECES)
def test_the_regular_expression_says_the_same(pattern: list[str], end: str, path: list[str]) -> None:
    named = "".join(piece for piece in pattern if piece not in "?/")
    rule = f"/{named}{end}" if named or end == "*" else end or "/"
    made = normalise("/" + "".join(path))
    if made is not None and is_settled(made):
        assert matches_path(rule, made) == (re.fullmatch(path_regex(rule), made) is not None)
