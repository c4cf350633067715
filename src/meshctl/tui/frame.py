"""What stands around the table: the line at the top, tabs or breadcrumbs, sparklines, notes, keys.  Pure.

Enters: the newest figures, the link, a view, a width.  Leaves: lines of texts with tones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from meshctl.figures import NOTHING, draw_sparkline, format_age, format_ms, format_rate, format_share
from meshctl.tui.cells import Line, Span, Tone, cut_line, pad, plain_text, tone_of, width_of
from meshctl.tui.columns import GOOD_SHARE, POOR_SHARE
from meshctl.tui.trends import Trend, Values
from meshctl.tui.view import KEYS, TABS, Tab, View
from meshctl.wire.top import TopRow, TopSnapshot

OLD = 3.0
"""Seconds after which figures that come every second count as old."""

_LABEL = 8
_SIDE = 23
_MAX_NOTES = 4
_MAX_FAULTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How the figures come: the link and its message (see ``feed``), and for how many seconds nothing came."""

    link: str
    message: str = ""
    silence: float = 0.0


def draw_header(snapshot: TopSnapshot | None, connection: Connection, view: View, width: int) -> Line:
    """The mesh, what all its traffic is together, and how fresh that is."""
    if snapshot is None:
        return cut_line((Span("meshctl top", "strong"), Span("  "), *_link_words(connection)), width)
    total = snapshot.total
    left = [
        Span(snapshot.mesh or "mesh", "strong"),
        Span(" "),
        Span(snapshot.state, tone_of(snapshot.state)),
        Span(f"  {format_rate(total.rps)} rps  "),
        Span(f"{format_share(total.success)} success", share_tone(total.success)),
    ]
    right = _freshness(snapshot, connection, view)
    room = width - sum(width_of(span.text) for span in left) - sum(width_of(span.text) for span in right)
    if room < 2:
        # Whether the figures are fresh matters more than what they add up to.
        left, room = left[:3], width - sum(width_of(s.text) for s in left[:3]) - sum(width_of(s.text) for s in right)
    return cut_line((*left, Span(" " * max(2, room)), *right), width)


def draw_place(view: View, tabs: tuple[Tab, ...], width: int) -> Line:
    """The tabs with the one that is shown in brackets; with something open, the way to it."""
    spans: list[Span] = []
    for number, tab in enumerate(TABS, start=1):
        if tab not in tabs:
            continue
        here = tab == view.tab
        spans.append(Span(f"[{number} {tab}]" if here else f" {number} {tab} ", "strong" if here else "dim"))
    if view.path:
        spans = [Span(view.tab, "dim")]
        for position, subject in enumerate(view.path):
            last = position == len(view.path) - 1
            spans += [
                Span(" \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} ", "dim"),
                Span(subject.label, "strong" if last else "dim"),
            ]
    if view.filter_text:
        spans += [Span("  "), Span(f"filter: {view.filter_text}", "busy")]
    return cut_line(tuple(spans), width)


def draw_trends(trend: Trend, row: TopRow | None, width: int) -> tuple[Line, ...]:
    """The sparklines of a page: requests per second, success, p99, each with its newest and its highest value."""
    count = max(1, min(len(trend.rps), width - _LABEL - _SIDE))
    seconds = format_age(count * trend.step_s)
    lowest = min((value for value in trend.success[-count:] if value is not None), default=None)
    lines = (
        _draw_trend(
            "rps",
            trend.rps,
            count,
            now=format_rate(row.rps if row else None),
            side=f"max {format_rate(_highest(trend.rps, count))}",
        ),
        _draw_trend(
            "success",
            trend.success,
            count,
            now=format_share(row.success if row else None),
            side=f"min {format_share(lowest)}",
            top=1.0,
            tone=share_tone(row.success if row else None),
        ),
        _draw_trend(
            "p99",
            trend.p99_ms,
            count,
            now=format_ms(row.p99_ms if row else None),
            side=f"max {format_ms(_highest(trend.p99_ms, count))}",
        ),
    )
    return tuple(
        cut_line((*line, Span(f"  last {seconds}" if not i and trend.rps else "", "dim")), width)
        for i, line in enumerate(lines)
    )


def draw_notes(
    snapshot: TopSnapshot | None,
    connection: Connection,
    view: View,
    *,
    hidden: int,
    dropped: tuple[str, ...],
    width: int,
) -> tuple[Line, ...]:
    """What the user has to know beside the figures: who does not answer, what is hidden, what went wrong."""
    notes: list[Line] = []
    if connection.link == "reconnecting":
        notes.append((Span("reconnecting: ", "warn"), Span(connection.message)))
    if connection.link == "down":
        notes.append((Span("the mesh is down", "warn"), Span(": `meshctl up` starts it, and this goes on then")))
    if snapshot is not None:
        notes += list(_fault_notes(snapshot))
        for sidecar in snapshot.stale:
            since = "never answered" if sidecar.age_s is None else f"has not answered for {format_age(sidecar.age_s)}"
            reason = f": {' '.join(sidecar.error.split())}" if sidecar.error else ""
            notes.append((Span(f"sidecar {sidecar.sidecar} {since}", "warn"), Span(reason)))
    if len(notes) > _MAX_NOTES:
        more = len(notes) - _MAX_NOTES + 1
        notes = [*notes[: _MAX_NOTES - 1], (Span(f"and {more} more that do not answer", "warn"),)]
    if hidden:
        rows = "row" if hidden == 1 else "rows"
        notes.append((Span(f"{hidden} {rows} hidden by the filter {view.filter_text!r}", "dim"),))
    if dropped:
        notes.append((Span(f"no room for {', '.join(dropped)}", "dim"),))
    return tuple(cut_line(note, width) for note in notes)


def _fault_notes(snapshot: TopSnapshot) -> Iterator[Line]:
    """What is broken on purpose, so that nobody takes it for a failure."""
    for fault in snapshot.faults[:_MAX_FAULTS]:
        left = format_age(max(0.0, fault.ends_at - snapshot.time))
        name = Span(f"FAULT {fault.id} on {fault.subject}", "warn")
        yield name, Span(f": {fault.summary}; ends in {left}")
    more = len(snapshot.faults) - _MAX_FAULTS
    if more > 0:
        yield (Span(f"FAULTS: {more} more are on, see `meshctl inject list`", "warn"),)


def draw_keys(view: View, width: int) -> Line:
    """The keys that matter, as many as fit; the help has all of them."""
    wanted = [key for key in KEYS if key.short]
    order = sorted(wanted, key=lambda key: _FOOTER.index(key.short))
    spans: list[Span] = []
    used = 0
    for key in order:
        label = key.label.split()[0] if key.short != "sort" else key.label
        short = "go on" if key.short == "pause" and view.paused else key.short
        size = width_of(label) + 1 + width_of(short) + 2
        if used + size > width:
            break
        used += size
        spans += [Span(label, "strong"), Span(f" {short}  ", "dim")]
    return tuple(spans)


_FOOTER = ("quit", "help", "open", "back", "filter", "sort", "reverse", "pause", "logs", "describe", "yaml")
"""The keys from the one that has to be seen to the one that may be looked up."""


def share_tone(success: float | None) -> Tone:
    """How a share of success is meant."""
    if success is None or success >= GOOD_SHARE:
        return "plain"
    return "bad" if success < POOR_SHARE else "warn"


def _freshness(snapshot: TopSnapshot, connection: Connection, view: View) -> list[Span]:
    window = f"last {format_age(snapshot.window_s)}"
    stamp = datetime.fromtimestamp(snapshot.time, UTC).strftime("%H:%M:%SZ")
    if connection.link != "live" or connection.silence > OLD:
        words = [*_link_words(connection), Span(f", figures are {format_age(connection.silence)} old", "warn")]
        return words if not view.paused else [Span("PAUSED ", "warn"), *words]
    if view.paused:
        return [Span(f"PAUSED at {stamp}", "warn"), Span(f"  {window}", "dim")]
    return [Span(f"{window}, {stamp}", "dim")]


def _link_words(connection: Connection) -> list[Span]:
    match connection.link:
        case "live":
            return [Span("no news", "warn")]
        case "down":
            return [Span("DOWN", "bad")]
        case "connecting":
            return [Span("connecting", "busy")]
    return [Span("RECONNECTING", "warn")]


def _draw_trend(
    label: str, values: Values, count: int, *, now: str, side: str, top: float | None = None, tone: Tone = "busy"
) -> Line:
    drawn = draw_sparkline(values, count, top=top) if values else NOTHING
    return (
        Span(pad(label, _LABEL), "dim"),
        Span(pad(now, 7, right=True), "strong"),
        Span("  "),
        Span(drawn, tone if tone != "plain" else "busy"),
        Span(f"  {side}", "dim"),
    )


def _highest(values: Values, count: int) -> float | None:
    return max((value for value in values[-count:] if value is not None), default=None)


def line_width(line: Line) -> int:
    """The columns that a line takes."""
    return width_of(plain_text(line))
