"""A table as it stands on the screen: rows filtered, sorted, and cut into columns that fit.  Pure.

Enters: columns, rows of any kind, how to sort and filter, a width.  Leaves: a ``Table`` of texts with tones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from meshctl.tui.cells import Span, cut, width_of
from meshctl.tui.columns import Column, SortValue
from meshctl.tui.fitting import fit

R = TypeVar("R")

UP = "▲"
DOWN = "▼"


@dataclass(frozen=True, slots=True)
class Sort:
    """By which column, and whether the highest stands first."""

    key: str
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A column as shown; ``sorted`` is empty, or the mark of its direction, which ``title`` holds already."""

    key: str
    title: str
    width: int
    align: Literal["left", "right"]
    sorted: str


@dataclass(frozen=True, slots=True)
class Body:
    """A row as shown: what it is known by, and a cell for every column."""

    key: str
    cells: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as shown. ``hidden`` counts the rows that the filter keeps away, ``dropped`` are titles without room."""

    heads: tuple[Head, ...]
    rows: tuple[Body, ...]
    hidden: int
    dropped: tuple[str, ...]


def arrange(
    columns: Sequence[Column[R]],
    items: Iterable[R],
    *,
    key: Callable[[R], str],
    sort: Sort,
    filter_text: str,
    width: int,
) -> Table:
    """The table of the items in ``width`` columns of a terminal; the sorted column is never dropped."""
    everything = list(items)
    kept = [item for item in everything if matches(filter_text, _search_text(columns, item))]
    ordered = sort_items(columns, kept, key=key, sort=sort)
    wanted = [column for column in columns if column.when is None or any(column.when(item) for item in everything)]
    titles = [_title(column, sort) for column in wanted]
    # Cells are made once: they are measured here and shown below.
    cells = [[column.show(item) for column in wanted] for item in ordered]
    widths = [
        max([column.width, width_of(title), *(width_of(row[i].text) for row in cells)])
        for i, (column, title) in enumerate(zip(wanted, titles, strict=True))
    ]
    shown, narrowed = fit([0 if column.key == sort.key else column.drop for column in wanted], widths, width)
    return Table(
        heads=tuple(
            Head(
                key=wanted[i].key,
                title=cut(titles[i], narrowed[i]),
                width=narrowed[i],
                align="right" if wanted[i].right else "left",
                sorted=_mark(wanted[i], sort),
            )
            for i in shown
        ),
        rows=tuple(
            Body(key(item), tuple(Span(cut(row[i].text, narrowed[i]), row[i].tone) for i in shown))
            for item, row in zip(ordered, cells, strict=True)
        ),
        hidden=len(everything) - len(kept),
        dropped=tuple(wanted[i].title for i in range(len(wanted)) if i not in shown),
    )


def sort_items(columns: Sequence[Column[R]], items: Iterable[R], *, key: Callable[[R], str], sort: Sort) -> list[R]:
    """The items in order: by the column, then by key; those without a value stand last whichever the direction."""
    column = next((column for column in columns if column.key == sort.key), None)
    by_key = sorted(items, key=key)
    if column is None:
        return by_key
    values = [(column.value(item), item) for item in by_key]
    known = [(value, item) for value, item in values if value is not None]
    # Python keeps the order of equal ones, here that of their keys, when it sorts in reverse too.
    known.sort(key=lambda pair: _comparable(pair[0]), reverse=sort.descending)
    return [item for _, item in known] + [item for value, item in values if value is None]


def matches(filter_text: str, text: str) -> bool:
    """Whether a text has every word of a filter, in any case; ``!word`` is one that it must not have."""
    folded = text.casefold()
    for word in filter_text.casefold().split():
        if word.startswith("!"):
            if word[1:] and word[1:] in folded:
                return False
        elif word not in folded:
            return False
    return True


def toggle_sort(columns: Sequence[Column[R]], sort: Sort, key: str) -> Sort:
    """The sort after a column was chosen: figures from the highest down at first, the other way when chosen again."""
    if key == sort.key:
        return Sort(key, not sort.descending)
    return first_sort(columns, key)


def first_sort(columns: Sequence[Column[R]], key: str) -> Sort:
    """How a column is sorted when it is chosen."""
    return Sort(key, any(column.key == key and column.right for column in columns))


def step_sort(columns: Sequence[Column[R]], shown: Sequence[str], sort: Sort, step: int) -> Sort:
    """The sort by the column ``step`` columns further among those shown, around the ends."""
    keys = list(shown)
    if not keys:
        return sort
    if sort.key not in keys:
        return first_sort(columns, keys[0])
    return first_sort(columns, keys[(keys.index(sort.key) + step) % len(keys)])


def _search_text(columns: Sequence[Column[R]], item: R) -> str:
    """What a filter looks through: the words of a row, and not its figures, which change all the time."""
    return " ".join(column.show(item).text for column in columns if not column.right and column.key != "trend")


def _title(column: Column[R], sort: Sort) -> str:
    mark = _mark(column, sort)
    return f"{column.title}{mark}"


def _mark(column: Column[R], sort: Sort) -> str:
    if column.key != sort.key:
        return ""
    return DOWN if sort.descending else UP


def _comparable(value: SortValue) -> tuple[float, str]:
    return (0.0, value.casefold()) if isinstance(value, str) else (float(value or 0), "")
