"""The columns of every table: what each shows of a row, how it is sorted, and what goes first when it is narrow.  Pure.

A column is one row of a table below; nothing else lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshctl.figures import (
    NOTHING,
    draw_sparkline,
    format_age,
    format_bytes,
    format_count,
    format_cpu,
    format_ms,
    format_rate,
    format_share,
)
from meshctl.tui.cells import Span, Tone, tone_of
from meshctl.wire.top import TopRow

R = TypeVar("R")

SortValue = str | float | None
"""What rows are sorted by; None always stands last."""

PARTS = ("version", "instance", "caller", "upstream", "route")
"""What the page of a thing has, in this order."""

TREND_WIDTH = 16
GOOD_SHARE = 0.999
POOR_SHARE = 0.95
"""Shares of success from which on a row is well, and below which it is bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[R]):
    """A column: ``key`` names it in options, ``title`` on the screen.

    Args:
        show: the cell of a row.
        value: what rows are sorted by.
        drop: those with the highest go first when the terminal is narrow, 0 never goes.
        width: the least width, so that columns do not move when figures change.
        right: whether it is aligned to the right; such a column is sorted from the highest down at first.
        when: whether any row makes the column worth showing; None always.
    """

    key: str
    title: str
    show: Callable[[R], Span]
    value: Callable[[R], SortValue]
    drop: int = 0
    width: int = 0
    right: bool = False
    when: Callable[[R], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row of a table with what the table needs to know of it.

    ``key`` is the same for the same thing at every moment; ``part`` is what it is within the page of something else;
    ``trend`` are its requests per second so far.
    """

    key: str
    row: TopRow
    part: str = ""
    trend: tuple[float | None, ...] = ()


def _name(key: str, title: str, read: Callable[[TopRow], str], *, drop: int = 0, width: int = 0) -> Column[Item]:
    return Column(
        key=key,
        title=title,
        show=lambda item: _words(read(item.row)),
        value=lambda item: read(item.row),
        drop=drop,
        width=width,
    )


def _state(key: str, title: str, read: Callable[[TopRow], str], *, drop: int, width: int) -> Column[Item]:
    return Column(
        key=key,
        title=title,
        show=lambda item: Span(read(item.row) or NOTHING, tone_of(read(item.row)) if read(item.row) else "dim"),
        value=lambda item: read(item.row) or None,
        drop=drop,
        width=width,
    )


def _number(
    key: str,
    title: str,
    read: Callable[[TopRow], float | None],
    text: Callable[[float | None], str],
    *,
    drop: int = 0,
    width: int = 0,
    tone: Callable[[TopRow], Tone] = lambda _: "plain",
) -> Column[Item]:
    def show(item: Item) -> Span:
        value = read(item.row)
        if value is None:
            return Span(NOTHING, "dim")
        return Span(text(value), "dim" if item.row.stale else tone(item.row))

    return Column(
        key=key, title=title, show=show, value=lambda item: read(item.row), drop=drop, width=width, right=True
    )


def _words(text: str) -> Span:
    return Span(text) if text else Span(NOTHING, "dim")


def _share_tone(row: TopRow) -> Tone:
    if row.success is None or row.success >= GOOD_SHARE:
        return "plain"
    return "bad" if row.success < POOR_SHARE else "warn"


def _whole(text: Callable[[int | None], str]) -> Callable[[float | None], str]:
    return lambda value: text(None if value is None else int(value))


def show_circuit(row: TopRow) -> Span:
    """The circuit's state, and how many instances outlier detection keeps away."""
    words = [row.circuit] if row.circuit else []
    if row.ejected:
        words.append(f"{row.ejected} ejected")
    if not words:
        return Span(NOTHING, "dim")
    return Span(", ".join(words), "warn" if row.ejected and row.circuit in ("", "closed") else tone_of(row.circuit))


def _show_weights(row: TopRow) -> Span:
    if not row.weights:
        return Span(NOTHING, "dim")
    shares = "/".join(str(row.weights[version]) for version in sorted(row.weights)) + "%"
    if not row.rollout:
        return Span(shares)
    # The phase that nobody need look at is told by the word alone.
    word = "rollout" if row.rollout == "running" else row.rollout.replace("_", " ")
    return Span(f"{shares} {word}", "warn" if row.rollout in ("paused", "frozen", "rolling_back") else "busy")


def _show_secured(row: TopRow) -> Span:
    if row.secured is None:
        return Span(NOTHING, "dim")
    return Span("yes", "good") if row.secured else Span("no", "warn")


def _show_age(item: Item) -> Span:
    if not item.row.stale:
        return Span(NOTHING, "dim")
    return Span("no answer" if item.row.age_s is None else f"{format_age(item.row.age_s)} old", "warn")


def name_part(item: Item) -> str:
    """What a part is called on the page of the thing it belongs to, with its route where it has one."""
    row = item.row
    names = {
        "caller": row.source,
        "upstream": row.service,
        "version": row.version,
        "instance": row.instance,
        "route": "",
    }
    # A route without a name of its own has that of its service, which says nothing here.
    route = "" if row.route == row.service and item.part != "route" else row.route
    return " ".join(part for part in (names.get(item.part, row.service), route) if part) or NOTHING


_SOURCE = _name("source", "SOURCE", lambda row: row.source, width=8)
_DESTINATION = _name("destination", "DESTINATION", lambda row: row.service, width=11)
_SERVICE = _name("service", "SERVICE", lambda row: row.service, width=8)
_STATE = _state("state", "STATE", lambda row: row.state, drop=1, width=7)
_HEALTH = _state("health", "HEALTH", lambda row: row.health, drop=2, width=7)
_VERSION = _name("version", "VERSION", lambda row: row.version, drop=6, width=7)
_SECURED: Column[Item] = Column(
    key="secured",
    title="SECURED",
    show=lambda item: _show_secured(item.row),
    value=lambda item: None if item.row.secured is None else str(item.row.secured),
    drop=3,
)
_AGE: Column[Item] = Column(
    key="age",
    title="AGE",
    show=_show_age,
    value=lambda item: item.row.age_s if item.row.stale else None,
    width=7,
    right=True,
    when=lambda item: bool(item.row.stale),
)
_FAULT: Column[Item] = Column(
    key="fault",
    title="FAULT",
    show=lambda item: Span(",".join(item.row.faults), "warn") if item.row.faults else Span(NOTHING, "dim"),
    value=lambda item: ",".join(item.row.faults) or None,
    when=lambda item: bool(item.row.faults),
)
_TRAFFIC: tuple[Column[Item], ...] = (
    _number("rps", "RPS", lambda row: row.rps, format_rate, width=5),
    _number("success", "SUCCESS", lambda row: row.success, format_share, width=7, tone=_share_tone),
    _number("p50", "P50", lambda row: row.p50_ms, format_ms, drop=5, width=5),
    _number("p95", "P95", lambda row: row.p95_ms, format_ms, drop=8, width=5),
    _number("p99", "P99", lambda row: row.p99_ms, format_ms, width=5),
    _AGE,
    _FAULT,
    _number("conn", "CONN", lambda row: row.connections, _whole(format_count), drop=12, width=4),
    _number("retries", "RETRIES", lambda row: row.retry_rate, format_rate, drop=9, width=5),
    Column(
        key="circuit",
        title="CIRCUIT",
        show=lambda item: show_circuit(item.row),
        value=lambda item: show_circuit(item.row).text if item.row.circuit or item.row.ejected else None,
        drop=4,
        width=7,
    ),
)
_PROCESS: tuple[Column[Item], ...] = (
    Column(
        key="weight",
        title="WEIGHT",
        show=lambda item: _show_weights(item.row),
        value=lambda item: max(item.row.weights.values(), default=None),
        drop=10,
        right=True,
    ),
    _number("cpu", "CPU", lambda row: row.cpu, format_cpu, drop=13, width=5),
    _number("mem", "MEM", lambda row: row.memory, _whole(format_bytes), drop=14, width=5),
    _number("restarts", "RESTARTS", lambda row: row.restarts, _whole(format_count), drop=11),
)
_TREND: Column[Item] = Column(
    key="trend",
    title="TREND OF RPS",
    show=lambda item: Span(draw_sparkline(item.trend, TREND_WIDTH), "busy"),
    value=lambda item: item.row.rps,
    drop=15,
    width=TREND_WIDTH,
)
_PART: Column[Item] = Column(
    key="part",
    title="PART",
    show=lambda item: Span(item.part, "dim"),
    value=lambda item: PARTS.index(item.part) if item.part in PARTS else None,
    width=8,
)
_PART_NAME: Column[Item] = Column(
    key="name", title="NAME", show=lambda item: _words(name_part(item)), value=name_part, width=10
)

TABLES: Mapping[str, tuple[Column[Item], ...]] = {
    "services": (_SERVICE, _VERSION, _STATE, _HEALTH, *_TRAFFIC, *_PROCESS, _TREND),
    "edges": (_SOURCE, _DESTINATION, _SECURED, *_TRAFFIC, _TREND),
    "versions": (
        _SERVICE,
        _name("version", "VERSION", lambda row: row.version, width=7),
        _STATE,
        _HEALTH,
        *_TRAFFIC,
        *_PROCESS,
        _TREND,
    ),
    "parts": (_PART, _PART_NAME, _STATE, _HEALTH, *_TRAFFIC, *_PROCESS),
}
"""The columns of each table, in their order. ``parts`` is the table of the page of one thing."""
