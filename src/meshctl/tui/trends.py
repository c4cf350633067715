"""How figures went: the history of edges, added up for what a screen is about.  Pure.

Enters: ``History``, whose series are one for each edge and version, all in the same steps.  Leaves: lists of values,
oldest first; None where nobody knows or nothing happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from meshctl.tui.subjects import Subject
from meshctl.wire.metrics import History, Point, Series

Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Figures in equal steps of ``step_s`` seconds. ``p99_ms`` is that of the slowest of its edges and versions."""

    step_s: float
    rps: Values = ()
    success: Values = ()
    p99_ms: Values = ()


def read_trend(history: History | None, subject: Subject) -> Trend:
    """The trend of one thing; empty when nothing is known of it."""
    if history is None:
        return Trend(step_s=0.0)
    return _add_up([series for series in history.series if _concerns(series, subject)], history.step_s)


def read_rates(history: History | None, subjects: Iterable[Subject]) -> dict[str, Values]:
    """The requests per second of many things, by their keys: what a table shows as sparklines."""
    if history is None:
        return {}
    return {subject.key: read_trend(history, subject).rps for subject in subjects}


def _concerns(series: Series, subject: Subject) -> bool:
    if series.destination != subject.service:
        return False
    match subject.kind:
        case "service":
            return True
        case "edge":
            return series.source == subject.source
        case "version":
            return series.version == subject.version
    return False


def _add_up(series: list[Series], step_s: float) -> Trend:
    steps: dict[float, list[Point]] = defaultdict(list)
    for each in series:
        for point in each.points:
            steps[point.time].append(point)
    times = sorted(steps)
    return Trend(
        step_s=step_s,
        rps=tuple(_sum(steps[time]) for time in times),
        success=tuple(_success(steps[time]) for time in times),
        p99_ms=tuple(max((p.p99_ms for p in steps[time] if p.p99_ms is not None), default=None) for time in times),
    )


def _sum(points: list[Point]) -> float | None:
    rates = [point.rate for point in points if point.rate is not None]
    return sum(rates) if rates else None


def _success(points: list[Point]) -> float | None:
    requests = sum(point.requests for point in points)
    return 1 - sum(point.failures for point in points) / requests if requests else None
