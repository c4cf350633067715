"""How things look: consoles, tables that fit the terminal, words and colours of states.

Enters: plain values.  Leaves: text on a console.  Colour is off without a terminal, with ``NO_COLOR``, with
``TERM=dumb`` or ``--no-color``, for stdout and stderr each on its own; nothing is told by colour alone.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

_NARROWEST = 24
# Characters that a column is left with when it wraps.

UNBOUNDED = 10_000
"""The width of what is no terminal: whoever reads a pipe wants whole lines."""

STYLES = {
    "ready": "green",
    "completed": "green",
    "registered": "green",
    "healthy": "green",
    "synced": "green",
    "ok": "green",
    "closed": "green",
    "half-open": "yellow",
    "open": "red",
    "starting": "cyan",
    "pending": "cyan",
    "draining": "yellow",
    "stopping": "yellow",
    "stopped": "bright_black",
    "backoff": "yellow",
    "degraded": "yellow",
    "stale": "yellow",
    "warning": "yellow",
    "unknown": "bright_black",
    "disconnected": "yellow",
    "unhealthy": "red",
    "failed": "red",
    "rejected": "bold red",
    "error": "red",
    "info": "",
    "applied": "green",
    "refused": "red",
    "superseded": "bright_black",
}
"""Colour of each state word; the word itself is always shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table. Where the terminal is narrow, columns that ``wrap`` are broken into lines; then those with
    the highest ``drop`` go first, 0 never goes.
    """

    title: str
    drop: int = 0
    wrap: bool = False
    justify: Literal["left", "right"] = "left"


def make_console(*, stderr: bool = False, no_color: bool = False) -> Console:
    """A console for stdout or stderr as they are now."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty()
    width = None if terminal or os.environ.get("COLUMNS", "").isdigit() else UNBOUNDED
    plain = no_color or not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Console(
        file=stream,
        width=width,
        no_color=plain,
        color_system=None if plain else "auto",
        force_terminal=terminal,
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=False,
    )


def print_table(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table as ``format_table`` has it, as wide as the console."""
    for line in format_table(columns, rows, console.width):
        print_line(console, line)


def format_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], width: int) -> Iterator[Text]:
    """The lines of a table without rules: columns are wrapped, then dropped, then the widest is cut, until it fits."""
    table = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [
        max([cell_len(column.title), *(cell_len(row[i].plain) for row in table)]) for i, column in enumerate(columns)
    ]
    shown = _fit(columns, widths, width)
    yield _format_row(columns, widths, [Text(column.title, style="bold") for column in columns], shown)
    for row in table:
        for line in _break_lines(columns, widths, row, shown):
            yield _format_row(columns, widths, line, shown)


def style_state(word: str) -> Text:
    """A state word in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def print_line(console: Console, text: str | Text) -> None:
    """Print one line as it is, never wrapped."""
    console.print(text, soft_wrap=True)


def print_json(data: bytes) -> None:
    """Print one JSON document or line on stdout."""
    sys.stdout.write(data.decode())
    sys.stdout.write("\n")
    sys.stdout.flush()


def format_age(seconds: float) -> str:
    """A duration in its two largest units: ``45s``, ``3m10s``, ``2h5m``, ``4d2h``."""
    left = max(0, int(seconds))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for (unit, size), (next_unit, next_size) in zip(units, (*units[1:], ("", 1)), strict=True):
        if left >= size or unit == "s":
            count, rest = divmod(left, size)
            minor = rest // next_size
            return f"{count}{unit}" + (f"{minor}{next_unit}" if minor and next_unit else "")
    return "0s"


def format_time(seconds: float) -> str:
    """A time since the epoch as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def read_clock() -> float:
    """Seconds since the epoch now."""
    return time.time()  # noqa: TID251 - the edge of the program: what is shown is relative to the reader's now


def _fit(columns: Sequence[Column], widths: list[int], limit: int) -> list[int]:
    """The indices of the columns to show; narrows the widest of them in ``widths`` when they still do not fit."""
    shown = list(range(len(columns)))

    def total() -> int:
        return sum(widths[i] for i in shown) + 2 * (len(shown) - 1)

    for i in shown:
        if columns[i].wrap and total() > limit:
            widths[i] = min(widths[i], max(_NARROWEST, widths[i] - (total() - limit)))
    while total() > limit:
        droppable = [i for i in shown if columns[i].drop > 0]
        if not droppable:
            widest = max(shown, key=lambda i: widths[i])
            widths[widest] = max(4, widths[widest] - (total() - limit))
            break
        shown.remove(max(droppable, key=lambda i: (columns[i].drop, i)))
    return shown


def _break_lines(
    columns: Sequence[Column], widths: Sequence[int], row: Sequence[Text], shown: Sequence[int]
) -> Iterator[list[Text]]:
    """The lines of a row: one, unless a cell that is shown and wraps is too long for its column."""
    parts = [
        textwrap.wrap(cell.plain, widths[i], break_on_hyphens=False)
        if i in shown and columns[i].wrap and cell_len(cell.plain) > widths[i]
        else [cell.plain]
        for i, cell in enumerate(row)
    ]
    for number in range(max(map(len, parts))):
        yield [
            Text(lines[number] if number < len(lines) else "", style=cell.style)
            for lines, cell in zip(parts, row, strict=True)
        ]


def _format_row(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[Text], shown: Sequence[int]) -> Text:
    line = Text()
    for position, i in enumerate(shown):
        plain = cells[i].plain
        if cell_len(plain) > widths[i]:
            plain = set_cell_size(plain, widths[i] - 1) + "…"
        pad = " " * (widths[i] - cell_len(plain))
        style = cells[i].style
        if columns[i].justify == "right":
            line.append(pad)
            line.append(plain, style=style)
        else:
            line.append(plain, style=style)
            line.append(pad)
        if position < len(shown) - 1:
            line.append("  ")
    line.rstrip()
    return line
