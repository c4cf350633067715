"""Variables in values, and the .env files they come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.errors import InvalidTopology, Where
from meshctl.spec.dotenv import parse_dotenv
from meshctl.spec.interpolate import find_variables, interpolate
from meshctl.spec.report import Report
from meshctl.spec.source import ScalarNode

VARIABLES = {"A": "one", "B": "two", "EMPTY": ""}


def fill(text: str) -> tuple[str, list[str]]:
    report = Report()
    node = interpolate(ScalarNode(text=text, where=Where("f", 1, 1)), VARIABLES, report)
    assert isinstance(node, ScalarNode)
    assert node.broken == bool(report.problems)
    return node.text, [problem.code for problem in report.problems]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${A}", "one"), ("x${A}y${B}", "xoney" + "two"), ("${NO:-d}", "d"), ("${NO-d}", "d"), ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""), ("${EMPTY}", ""), ("${A:?no}", "one"), ("${EMPTY?no}", ""), ("$$", "$"), ("$${A}", "${A}"),
        ("$A", "$A"), ("$", "$"), ("a$", "a$"), ("$$$$", "$$"), ("${NO:-}", ""), ("${NO:-${A}}", "one"),
        ("${NO:-a${NO:-b}c}", "abc"), ("${NO:-$${A}", "${A"), ("${NO:-a b\nc}", "a b\nc"), ("$(date)", "$(date)"),
        ("${NO:--1}", "-1"), ("${NO:-?}", "?"), ("${A:-${NOT_LOOKED_AT}}", "one"), ("100%", "100%"),
    ],
)  # fmt: skip
def test_references_are_filled_in(text: str, filled: str) -> None:
    assert fill(text) == (filled, [])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("${NO}", "unset-variable"),
        ("${NO:?tell}", "unset-variable"),
        ("${NO?}", "unset-variable"),
        ("${EMPTY:?tell}", "unset-variable"),
        ("${NO:-${NO}}", "unset-variable"),
        ("${", "bad-interpolation"),
        ("${A", "bad-interpolation"),
        ("${}", "bad-interpolation"),
        ("${1}", "bad-interpolation"),
        ("${A:+b}", "bad-interpolation"),
        ("${A b}", "bad-interpolation"),
        ("${NO:-" * 30 + "}" * 30, "bad-interpolation"),
    ],
)
def test_what_cannot_be_filled_in_is_reported(text: str, code: str) -> None:
    assert fill(text)[1] == [code]


@given(st.text(alphabet="${}AB:-?x", max_size=40))
def test_the_variables_found_are_all_that_filling_in_looks_at(text: str) -> None:
    seen: set[str] = set()

    class Watched(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:
            seen.add(key)
            return ""

    interpolate(ScalarNode(text=text, where=Where("f", 1, 1)), Watched(), Report())
    assert seen <= find_variables(text)


def test_variables_are_found_in_the_whole_text() -> None:
    text = "a: ${A}\nb: ${B:-${C}} $${NO} $D # ${E?}\n"
    assert find_variables(text) == {"A", "B", "C", "E"}


def test_dotenv_takes_comments_quotes_and_export() -> None:
    text = (
        "# a comment\n\nA=1\nexport B = two words # comment\nC='single # ${A} \\n'\r\n"
        'D="line\\nbreak \\"q\\" \\$x \\z"   # comment\nE=\nF="over\nlines"\nG=a#b\nH= # only a comment\nA=last'
    )
    assert parse_dotenv(text, ".env") == {
        "A": "last", "B": "two words", "C": "single # ${A} \\n", "D": 'line\nbreak "q" $x \\z', "E": "",
        "F": "over\nlines", "G": "a#b", "H": "",
    }  # fmt: skip


def test_every_bad_line_of_dotenv_is_reported_with_its_place() -> None:
    with pytest.raises(InvalidTopology) as caught:
        parse_dotenv("A=1\nnonsense\n 1X=2\nB=\"open\nC=3\nD='x' y\n", "my.env")
    places = [(str(problem.where), problem.code) for problem in caught.value.problems]
    assert places == [
        ("my.env:2:1", "bad-dotenv"),
        ("my.env:3:2", "bad-dotenv"),
        ("my.env:4:3", "bad-dotenv"),
        ("my.env:6:3", "bad-dotenv"),
    ]


@given(st.text(max_size=80))
def test_any_dotenv_is_variables_or_problems(text: str) -> None:
    try:
        variables = parse_dotenv(text, ".env")
    except InvalidTopology:
        return
    assert all("=" not in name for name in variables)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(exclude_characters="'\r\x00", exclude_categories=["Cs"]), max_size=20),
        max_size=5,
    )
)
def test_single_quotes_keep_values_as_they_are(variables: dict[str, str]) -> None:
    text = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    assert parse_dotenv(text, ".env") == variables
