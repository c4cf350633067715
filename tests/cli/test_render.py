"""Tables fit the terminal: columns are wrapped, dropped, or cut."""

from __future__ import annotations

import io
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from meshctl.cli.render import Column, print_table

WORDS = "opens after five failures in a row and closes again"


def shown(columns: list[Column], rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    out = io.StringIO()
    print_table(Console(file=out, width=width, color_system=None), columns, rows)
    return out.getvalue().splitlines()


def test_a_column_that_wraps_is_broken_at_words_and_nothing_is_lost() -> None:
    columns = [Column(title="POLICY"), Column(title="WHAT", wrap=True), Column(title="FROM")]
    assert shown(columns, [("circuit", WORDS, "built in"), ("timeout", "5s", "mesh.yaml:2:3")], 50) == [
        "POLICY   WHAT                        FROM",
        "circuit  opens after five failures   built in",
        "         in a row and closes again",
        "timeout  5s                          mesh.yaml:2:3",
    ]


def test_what_fits_is_left_alone() -> None:
    columns = [Column(title="POLICY"), Column(title="WHAT", wrap=True)]
    assert shown(columns, [("circuit", WORDS)], 80) == ["POLICY   WHAT", f"circuit  {WORDS}"]


@given(
    rows=st.lists(st.tuples(*[st.text("ab é世", max_size=40)] * 3), max_size=4),
    width=st.integers(min_value=30, max_value=100),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = [Column(title="A", drop=1), Column(title="B", wrap=True), Column(title="C", drop=2)]
    assert all(cell_len(line) <= width for line in shown(columns, rows, width))


def test_a_column_that_is_left_out_leaves_no_empty_line() -> None:
    columns = [Column(title="A"), Column(title="B", wrap=True, drop=1), Column(title="C")]
    assert shown(columns, [("a" * 12, WORDS, "c")], 20) == ["A             C", f"{'a' * 12}  c"]
