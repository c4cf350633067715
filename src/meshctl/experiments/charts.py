"""Charts of a run as SVG text.  Pure.

Enters: series as the journal holds them (seconds since the epoch, requests, failures, milliseconds).  Leaves: SVG that
stands in a page by itself: no script, no file beside it; what a mark is can be read under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH = 640
HEIGHT = 96
_LEFT = 66
_TOP = 8
_BOTTOM = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time with a name: a part of the run, or an activity."""

    name: str
    start: float
    end: float
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What one caller sent one service: (second, requests, failures, p50 ms, p99 ms), oldest first."""

    source: str
    destination: str
    points: tuple[tuple[int, int, int, float | None, float | None], ...]

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return sum(point[1] for point in self.points)

    @property
    def failures(self) -> int:
        """How many of them failed."""
        return sum(point[2] for point in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The time that charts show, and where a moment stands in them."""

    start: float
    end: float

    def x(self, at: float) -> float:
        """Pixels from the left."""
        share = (at - self.start) / max(self.end - self.start, 1.0)
        return round(_LEFT + min(max(share, 0.0), 1.0) * (WIDTH - _LEFT), 1)


def merge_edges(series: Sequence[Any]) -> list[Edge]:
    """The series of a journal by edge, over versions: counts are summed, of quantiles the worst is taken."""
    found: dict[tuple[str, str], dict[int, tuple[int, int, float | None, float | None]]] = {}
    for each in series:
        points = found.setdefault((str(each["source"]), str(each["destination"])), {})
        for at, requests, failures, p50, p99 in each["points"]:
            before = points.get(at, (0, 0, None, None))
            points[at] = (before[0] + requests, before[1] + failures, _worst(before[2], p50), _worst(before[3], p99))
    edges = [
        Edge(source=key[0], destination=key[1], points=tuple((at, *points[at]) for at in sorted(points)))
        for key, points in found.items()
    ]
    # What customers see first, then whatever carries most.
    return sorted(edges, key=lambda edge: (edge.source != "gateway", -edge.requests, edge.source, edge.destination))


def draw_requests(edge: Edge, scale: Scale, parts: Sequence[Span], marks: Sequence[Span]) -> str:
    """Requests a second as bars, those that failed on top in another colour."""
    top = _round_up(max((point[1] for point in edge.points), default=1))
    width = max(1.0, (WIDTH - _LEFT) / max(scale.end - scale.start, 1.0) - 1)
    bars = []
    for at, requests, failures, *_ in edge.points:
        if not requests:
            continue
        # A point counts the second that ends at its time.
        x, title = scale.x(at - 1), f"{requests} requests, {failures} failed"
        good = (requests - failures) / top * (HEIGHT - _TOP)
        bad = failures / top * (HEIGHT - _TOP)
        bars.append(_bar(x, HEIGHT - good, width, good, "good", title))
        bars.append(_bar(x, HEIGHT - good - bad, width, bad, "bad", title))
    return _frame(f"requests a second, {edge.source} to {edge.destination}", bars, scale, parts, marks, f"{top:g}/s")


def draw_latency(edge: Edge, scale: Scale, parts: Sequence[Span], marks: Sequence[Span]) -> str:
    """The median and the 99th percentile as lines."""
    top = _round_up(max((point[4] or 0 for point in edge.points), default=1))
    shapes = []
    for place, name in ((4, "p99"), (3, "p50")):
        for run in _runs(edge, place):
            spots = [(scale.x(at - 0.5), HEIGHT - value / top * (HEIGHT - _TOP), value) for at, value in run]
            path = " ".join(f"{x:g},{y:.1f}" for x, y, _ in spots)
            shapes.append(f'<polyline class="{name}" points="{path}"/>')
            shapes += [
                f'<circle class="{name}" cx="{x:g}" cy="{y:.1f}" r="1.6"><title>{name} {value:.0f} ms</title></circle>'
                for x, y, value in spots
            ]
    return _frame(f"latency, {edge.source} to {edge.destination}", shapes, scale, parts, marks, f"{top:g} ms")


def draw_timeline(spans: Sequence[Span], scale: Scale, parts: Sequence[Span]) -> str:
    """When each activity ran, one line each."""
    row = 20
    height = row * len(spans) + _BOTTOM
    shapes = [_band(part, scale, height - _BOTTOM) for part in parts]
    for number, span in enumerate(spans):
        y, x = number * row, scale.x(span.start)
        width = max(3.0, scale.x(span.end) - x)
        title = escape(f"{span.name}: {span.end - span.start:.1f} s")
        shapes.append(
            f'<rect class="{span.kind}" x="{x:g}" y="{y + 4}" width="{width:.1f}" height="12" rx="2">'
            f"<title>{title}</title></rect>"
        )
        at_end = x + width + 4 > WIDTH * 0.6
        place = f'x="{x - 4:g}" text-anchor="end"' if at_end else f'x="{x + width + 4:.1f}"'
        shapes.append(f'<text {place} y="{y + 14}">{escape(span.name)}</text>')
    shapes += _ticks(scale, height)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="when what ran">{"".join(shapes)}</svg>'


def _frame(  # noqa: PLR0917 - a private one, with one caller for each chart
    label: str, shapes: Sequence[str], scale: Scale, parts: Sequence[Span], marks: Sequence[Span], top: str
) -> str:
    height = HEIGHT + _BOTTOM
    bands = "".join(_band(part, scale, HEIGHT) for part in parts)
    lines = "".join(
        f'<line class="mark" x1="{scale.x(m.start):g}" x2="{scale.x(m.start):g}" y1="0" y2="{HEIGHT}">'
        f"<title>{escape(m.name)}</title></line>"
        for m in marks
    )
    axis = (
        f'<text class="axis" x="{_LEFT - 4}" y="{_TOP + 4}" text-anchor="end">{escape(top)}</text>'
        f'<text class="axis" x="{_LEFT - 4}" y="{HEIGHT}" text-anchor="end">0</text>'
        f'<line class="base" x1="{_LEFT}" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
    )
    inside = f"{bands}{''.join(shapes)}{lines}{axis}{''.join(_ticks(scale, height))}"
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{inside}</svg>'


def _band(part: Span, scale: Scale, height: float) -> str:
    x = scale.x(part.start)
    width = max(0.0, scale.x(part.end) - x)
    return (
        f'<rect class="band {escape(part.kind)}" x="{x:g}" y="0" width="{width:.1f}" height="{height:g}">'
        f"<title>{escape(part.name)}</title></rect>"
    )


def _ticks(scale: Scale, height: float) -> list[str]:
    """Seconds since the start, about six of them."""
    length = max(scale.end - scale.start, 1.0)
    step = next((each for each in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if length / each <= 8), 1800)
    return [
        f'<text class="axis" x="{scale.x(scale.start + at):g}" y="{height - 3:g}" text-anchor="middle">{at} s</text>'
        for at in range(0, int(length) + 1, step)
        if at
    ]


def _bar(  # noqa: PLR0917 - as above
    x: float, y: float, width: float, height: float, kind: str, title: str
) -> str:
    if height <= 0:
        return ""
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _runs(edge: Edge, place: int) -> list[list[tuple[int, float]]]:
    """The values at a place of the points, in runs without a gap."""
    runs: list[list[tuple[int, float]]] = []
    last = -10
    for point in edge.points:
        value = point[place]
        if value is None:
            continue
        if point[0] - last > 1:
            runs.append([])
        runs[-1].append((point[0], float(value)))
        last = point[0]
    return runs


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, …: the top of an axis."""
    if value <= 0:
        return 1.0
    base = 10.0 ** math.floor(math.log10(value))
    return next(step * base for step in (1, 2, 5, 10) if step * base >= value)


def _worst(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)
