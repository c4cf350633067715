"""A trace as lines of a terminal: a tree of spans, bars over the time that they took, and words.  Pure.

Enters: a Trace.  Leaves: lines of text. What failed is marked by a word and a sign, never by colour alone, and bars of
what a service did itself look other than those of requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from meshctl.cli.render import UNBOUNDED, format_time
from meshctl.cli.requests import clean
from meshctl.cli.wording import count_nouns
from meshctl.figures import format_ms
from meshctl.wire.traces import SpanRow, Trace

_ROOMY = 76
"""Columns from which on there is room for bars."""

_DEFAULT = 120
# Columns where there is no terminal.

_MOST_TREE = 64
_LEAST_BAR, _MOST_BAR = 12, 48
_MOST_WORDS = 26
# Columns that are kept free for notes, where there are any.

_BARS = {"caller": "━", "callee": "═", "own": "█"}
_TICK = "╷"
# In the place of a bar that is too short to have a length.

_STYLES = {"caller": "cyan", "callee": "green", "own": "magenta"}
_MOST_ATTRIBUTES = 12


def draw_waterfall(trace: Trace, *, width: int, wide: bool = False) -> Iterator[Text]:
    """The lines of a trace for a terminal of so many columns."""
    width = _DEFAULT if width >= UNBOUNDED else width
    rows = trace.spans
    yield from _heading(trace, rows, width)
    trees = [_branch(rows, index) + _label(row) for index, row in enumerate(rows)]
    times = [format_ms(row.duration_ms) for row in rows]
    statuses = [_status(row) for row in rows]
    time_width = max(map(len, times), default=0)
    status_width = max(map(len, statuses), default=0)
    beside = status_width + time_width + 4
    has_bars = width >= _ROOMY
    tree_width = min(max(map(cell_len, trees), default=0), _MOST_TREE, width - beside - (_LEAST_BAR + 2) * has_bars)
    words_width = min(_MOST_WORDS, max((len("; ".join(_notes(row))) + 2 for row in rows if _notes(row)), default=0))
    room = width - tree_width - beside - 2
    bar_width = min(_MOST_BAR, max(_LEAST_BAR, room - words_width)) if has_bars else 0
    notes_beside = width - tree_width - beside - bar_width - 4
    for row, tree, time, status in zip(rows, trees, times, statuses, strict=True):
        line = Text(_fit(tree, tree_width))
        line.append(f"  {status:>{status_width}}", style="red" if row.failed else "")
        line.append(f"  {time:>{time_width}}")
        if bar_width:
            line.append("  ")
            line.append(_bar(row, trace.duration_ms, bar_width), style="red" if row.failed else _STYLES[row.kind])
        words = "; ".join(clean(note) for note in _notes(row))
        if words and len(words) <= notes_beside:
            line.append(f"  {words}", style="red" if row.failed else "yellow")
            words = ""
        line.rstrip()
        yield line
        if words:
            yield _below(row, words, width, style="red" if row.failed else "yellow")
        yield from _details(row, width, wide=wide)


def _heading(trace: Trace, rows: Sequence[SpanRow], width: int) -> Iterator[Text]:
    line = Text(f"trace {trace.id}  ", style="bold")
    if not rows:
        line.append("nothing of it is left")
    elif trace.failed:
        line.append("failed", style="red")
    elif any(row.failed or row.attempt for row in rows):
        line.append("succeeded in the end", style="yellow")
    else:
        line.append("succeeded", style="green")
    yield line
    parts = (
        format_time(trace.time),
        format_ms(trace.duration_ms),
        count_nouns(len(trace.spans), "span"),
        ", ".join(trace.services),
    )
    yield Text(_cut("  ".join(parts), width), style="bright_black")


def _label(row: SpanRow) -> str:
    if row.kind == "caller":
        target = row.destination or "?"
        return clean(f"{row.source or row.service} → {target}  {row.name}")
    if row.kind == "callee":
        which = f"try {row.attempt} " if row.attempt else ""
        return clean(f"{which}at {row.instance or row.service}")
    return clean(f"{row.name}  ({row.instance or row.service})")


def _status(row: SpanRow) -> str:
    if row.kind == "own":
        return "failed" if row.failed else ""
    return str(row.status) if row.status else "none"


def _notes(row: SpanRow) -> list[str]:
    notes = list(row.notes)
    if row.late:
        notes.append("went on after its caller had gone on")
    if row.placed == "by_time":
        notes.append("placed by time")
    return notes


def _branch(rows: Sequence[SpanRow], index: int) -> str:
    """The lines of the tree before a row."""
    depth = rows[index].depth
    if not depth:
        return ""
    parts = []
    for level in range(1, depth + 1):
        goes_on = _goes_on(rows, index, level)
        if level == depth:
            parts.append("├ " if goes_on else "└ ")
        else:
            parts.append("│ " if goes_on else "  ")
    return "".join(parts)


def _goes_on(rows: Sequence[SpanRow], index: int, level: int) -> bool:
    """Whether a later row stands at a level before one does further left."""
    for row in rows[index + 1 :]:
        if row.depth < level:
            return False
        if row.depth == level:
            return True
    return False


def _bar(row: SpanRow, total: float, width: int) -> str:
    scale = width / total if total > 0 else 0.0
    start = min(width - 1, max(0, int(row.start_ms * scale)))
    end = min(width, max(start, round((row.start_ms + row.duration_ms) * scale)))
    drawn = _BARS[row.kind] * (end - start) or _TICK
    return (" " * start + drawn).ljust(width)


def _details(row: SpanRow, width: int, *, wide: bool) -> Iterator[Text]:
    for event in row.events:
        extra = "  ".join(f"{key}={value}" for key, value in event.attributes.items() if key != "exception.stacktrace")
        yield _below(row, clean(f"• {format_ms(event.at_ms)} {event.name}  {extra}".rstrip()), width, style="")
    if wide and row.kind == "own" and row.attributes:
        pairs = [clean(f"{key}={value}") for key, value in row.attributes.items()][:_MOST_ATTRIBUTES]
        yield _below(row, "  ".join(pairs), width, style="bright_black")


def _below(row: SpanRow, words: str, width: int, *, style: str) -> Text:
    indent = "  " * (row.depth + 1)
    return Text(_cut(indent + words, width), style=style)


def _fit(text: str, width: int) -> str:
    return set_cell_size(_cut(text, width), width)


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(1, width - 1)) + "…"
