"""Only regular expressions that Python and Envoy read alike are taken."""

from __future__ import annotations

import pytest

from meshctl.spec.regexes import explain_unusable


@pytest.mark.parametrize(
    "pattern",
    ["", "a", "admin|root", "(?:a|b)+", "(?i)Bot.*", r"v\d{1,3}\.\d+", r"[^/]+", "[]a]b", "[a-z-]+", "a*?b", r"\x41",
     r"\bcat\b", "a{2,}", r"[\d\-]", "^a$", "(a)(b)"],
)  # fmt: skip
def test_what_both_know_is_taken(pattern: str) -> None:
    assert explain_unusable(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)", "uses `(?=`"),
        ("(?!a)", "uses `(?!`"),
        ("(?<=a)b", "uses `(?<=`"),
        ("(?P<n>a)", "uses `(?P<n`"),
        ("(?>a)", "uses `(?>`"),
        ("a(?i)b", "uses `(?i`"),
        (r"(a)\1", r"uses `\1`"),
        (r"a\Z", r"uses `\Z`"),
        (r"\pL", r"uses `\p`"),
        ("a++", "has nothing that `+`"),
        ("a{2}+", "has nothing that `+`"),
        ("a**", "has nothing that `*`"),
        ("^*", "has nothing that `*`"),
        ("a{,3}", "uses `{,3}`"),
        ("a{}", "uses `{}`"),
        ("[[:alpha:]]", "uses the set"),
        (r"[\b]", "uses the set"),
        ("[a--b]", "holds a set that may be read in two ways"),
        ("[[a]", "holds a set that may be read in two ways"),
        ("(a", "is not valid"),
        ("a)", "is not valid"),
        ("a{1001}", "repeats more than 1000 times"),
        ("(a{40}){40}", "repeats more than 1000 times"),
        ("é", "holds characters other than"),
        ("a\n", "holds characters other than"),
        ("a" * 1001, "is longer than"),
    ],
)
def test_what_one_of_them_reads_otherwise_is_not(pattern: str, reason: str) -> None:
    assert explain_unusable(pattern).startswith(reason)
