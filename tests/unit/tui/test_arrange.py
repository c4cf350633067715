"""Filtering, sorting and fitting tables."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.tui.arrange import Sort, arrange, first_sort, matches, sort_items, step_sort, toggle_sort
from meshctl.tui.cells import clean, cut, pad, width_of
from meshctl.tui.columns import TABLES, Item
from meshctl.tui.fitting import GAP, fit
from meshctl.wire.top import TopRow

NAMES = st.text(alphabet="abc-é漢 ", min_size=1, max_size=12)
ROWS = st.builds(
    TopRow,
    service=NAMES,
    source=NAMES,
    version=NAMES,
    state=st.sampled_from(["", "ready", "failed", "completed"]),
    rps=st.none() | st.floats(min_value=0, max_value=1e6),
    success=st.none() | st.floats(min_value=0, max_value=1),
    p99_ms=st.none() | st.floats(min_value=0, max_value=1e6),
    circuit=st.sampled_from(["", "open", "closed", "half-open"]),
    ejected=st.integers(min_value=0, max_value=3),
    stale=st.lists(NAMES, max_size=2),
)
TABLE = st.sampled_from(sorted(TABLES))


def items(rows: list[TopRow]) -> list[Item]:
    return [Item(key=f"{number:03}", row=row, part="version") for number, row in enumerate(rows)]


def test_rows_without_a_value_stand_last_in_both_directions() -> None:
    rows = items([TopRow(service="a"), TopRow(service="b", rps=1.0), TopRow(service="c", rps=2.0)])
    for descending, order in ((False, "bca"), (True, "cba")):
        found = sort_items(TABLES["services"], rows, key=lambda item: item.key, sort=Sort("rps", descending))
        assert "".join(item.row.service for item in found) == order


@given(st.lists(ROWS, max_size=12), TABLE, st.data())
def test_sorting_keeps_every_row_and_equal_ones_in_the_order_of_their_keys(
    rows: list[TopRow], table: str, data: st.DataObject
) -> None:
    columns = TABLES[table]
    column = data.draw(st.sampled_from(columns))
    sort = Sort(column.key, data.draw(st.booleans()))
    found = sort_items(columns, items(rows), key=lambda item: item.key, sort=sort)
    assert sorted(item.key for item in found) == [item.key for item in items(rows)]
    values = [(column.value(item), item.key) for item in found]
    for (value, key), (other, next_key) in pairwise(values):
        if value == other:
            assert key < next_key
        assert value is not None or other is None


@given(st.lists(ROWS, max_size=8), TABLE, st.data(), st.integers(min_value=60, max_value=220))
def test_a_table_fits_and_never_loses_the_sorted_column(
    rows: list[TopRow], table: str, data: st.DataObject, width: int
) -> None:
    columns = TABLES[table]
    sort = Sort(data.draw(st.sampled_from([column.key for column in columns if column.when is None])))
    made = arrange(columns, items(rows), key=lambda item: item.key, sort=sort, filter_text="", width=width)
    assert sum(head.width + GAP for head in made.heads) - GAP <= width
    assert any(head.key == sort.key and head.sorted for head in made.heads)
    for row in made.rows:
        assert len(row.cells) == len(made.heads)
        assert all(width_of(cell.text) <= head.width for cell, head in zip(row.cells, made.heads, strict=True))


@pytest.mark.parametrize(
    ("words", "found"),
    [("", True), ("check", True), ("CHECK v1", True), ("check v9", False),
     ("!pay", True), ("!check", False), ("!", True), ("check !v1", False)],
)  # fmt: skip
def test_a_filter_wants_all_of_its_words_and_none_of_the_negated(words: str, found: bool) -> None:
    assert matches(words, "checkout v1 ready") is found


def test_a_filter_looks_at_words_and_not_at_figures() -> None:
    rows = items([TopRow(service="checkout", rps=503.0)])
    made = arrange(TABLES["services"], rows, key=lambda i: i.key, sort=Sort("service"), filter_text="503", width=200)
    assert (made.rows, made.hidden) == ((), 1)


def test_figures_are_sorted_from_the_highest_down_and_names_from_a() -> None:
    columns = TABLES["services"]
    assert first_sort(columns, "p99") == Sort("p99", descending=True)
    assert first_sort(columns, "service") == Sort("service")
    assert toggle_sort(columns, Sort("p99", descending=True), "p99") == Sort("p99")
    assert step_sort(columns, ["service", "rps"], Sort("rps"), 1) == Sort("service")
    assert step_sort(columns, ["service", "rps"], Sort("gone"), 1) == Sort("service")
    assert step_sort(columns, [], Sort("rps"), 1) == Sort("rps")


def test_the_age_of_figures_is_a_column_when_some_are_old() -> None:
    for stale, shown in (([], False), (["payment"], True)):
        rows = items([TopRow(service="a", stale=stale, age_s=14.0)])
        made = arrange(TABLES["services"], rows, key=lambda i: i.key, sort=Sort("service"), filter_text="", width=200)
        assert any(head.key == "age" for head in made.heads) is shown


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=12), st.integers(20, 200))
def test_fitting_never_drops_what_never_goes(columns: list[tuple[int, int]], limit: int) -> None:
    drops, widths = [drop for drop, _ in columns], [width for _, width in columns]
    shown, narrowed = fit(drops, widths, limit)
    assert shown == sorted(shown)
    assert {i for i, drop in enumerate(drops) if drop == 0} <= set(shown)
    fixed = sum(min(4, widths[i]) + GAP for i, drop in enumerate(drops) if drop == 0)
    if fixed <= limit:
        assert sum(narrowed[i] for i in shown) + GAP * max(0, len(shown) - 1) <= limit


@given(st.text(max_size=30), st.integers(min_value=0, max_value=40))
def test_texts_take_the_columns_they_are_given(text: str, width: int) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert width_of(cut(shown, width)) <= width
    assert width_of(pad(shown, width)) == width
    assert width_of(pad(shown, width, right=True)) == width
