"""Live requests as rows of a table.  Pure; whoever taps them gives an async iterator of ``TapRow``.

Bounded: a tap keeps the last requests and forgets the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from meshctl.figures import NOTHING, format_ms
from meshctl.tui.cells import Span, Tone, clean
from meshctl.tui.columns import Column
from meshctl.wire.requests import SeenRequest, TapSummary

KEPT = 1000
"""How many requests the tab holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TapRow:
    """One request as the sidecar of its caller saw it.

    ``status`` is 0 for one that got no answer; ``reason`` says in words what came of it, or is empty; ``time`` is when
    it began, in seconds since the epoch.
    """

    time: float
    source: str
    destination: str
    version: str = ""
    instance: str = ""
    method: str
    path: str
    status: int
    duration_ms: float
    reason: str = ""
    trace: str = ""


def make_row(request: SeenRequest) -> TapRow:
    """The row of a request that a sidecar reported."""
    return TapRow(
        time=request.time,
        source=request.source,
        destination=request.destination,
        version=request.version,
        instance=request.instance,
        method=request.method,
        path=request.path,
        status=request.status,
        duration_ms=request.duration_ms,
        reason=request.describe(),
        trace=request.trace_id,
    )


Tap = Callable[[], AsyncIterator[TapRow | TapSummary]]
"""Starts to tap: requests, and how much of the traffic they are; ends when the iterator is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """A request and its number, which is its key and grows."""

    number: int
    row: TapRow

    @property
    def key(self) -> str:
        """What it is known by."""
        return f"{self.number:012d}"


class Requests:
    """The last requests, newest first; the only thing here that changes, and only through ``add``."""

    def __init__(self, kept: int = KEPT) -> None:
        self._rows: deque[Numbered] = deque(maxlen=kept)
        self.seen = 0

    def add(self, row: TapRow) -> None:
        """Take one more."""
        self.seen += 1
        self._rows.appendleft(Numbered(number=self.seen, row=row))

    def rows(self) -> tuple[Numbered, ...]:
        """Those that are kept, newest first."""
        return tuple(self._rows)


def _status_tone(status: int) -> Tone:
    if status == 0 or status >= 500:
        return "bad"
    return "warn" if status >= 400 else "plain"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S.%f")[:-3]


COLUMNS: tuple[Column[Numbered], ...] = (
    Column(
        key="time",
        title="TIME (UTC)",
        show=lambda r: Span(_time(r.row.time), "dim"),
        value=lambda r: r.row.time,
        drop=3,
        width=12,
        right=True,
    ),
    Column(
        key="source", title="SOURCE", show=lambda r: Span(clean(r.row.source)), value=lambda r: r.row.source, width=8
    ),
    Column(
        key="destination",
        title="DESTINATION",
        show=lambda r: Span(clean(r.row.destination)),
        value=lambda r: r.row.destination,
        width=11,
    ),
    Column(
        key="version",
        title="VERSION",
        show=lambda r: Span(r.row.version or NOTHING, "plain" if r.row.version else "dim"),
        value=lambda r: r.row.version or None,
        drop=4,
        width=7,
    ),
    Column(
        key="method",
        title="METHOD",
        show=lambda r: Span(clean(r.row.method)),
        value=lambda r: r.row.method,
        drop=2,
        width=6,
    ),
    Column(key="path", title="PATH", show=lambda r: Span(clean(r.row.path)), value=lambda r: r.row.path, width=12),
    Column(
        key="status",
        title="STATUS",
        show=lambda r: Span(str(r.row.status) if r.row.status else NOTHING, _status_tone(r.row.status)),
        value=lambda r: r.row.status,
        width=6,
        right=True,
    ),
    Column(
        key="duration",
        title="DURATION",
        show=lambda r: Span(format_ms(r.row.duration_ms)),
        value=lambda r: r.row.duration_ms,
        width=8,
        right=True,
    ),
    Column(
        key="reason",
        title="REASON",
        show=lambda r: Span(clean(r.row.reason), "warn" if r.row.reason else "plain"),
        value=lambda r: r.row.reason or None,
        # The most telling of all where there is any: other columns are narrowed for it.
        when=lambda r: bool(r.row.reason),
        width=10,
    ),
)
"""The columns of the tab of requests."""


def describe_request(row: TapRow) -> list[tuple[str, str]]:
    """Everything known of one request, as labels and texts."""
    facts = [
        ("time", datetime.fromtimestamp(row.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")),
        ("from", row.source),
        ("to", " ".join(part for part in (row.destination, row.version, row.instance) if part)),
        ("request", f"{row.method} {row.path}"),
        ("status", str(row.status) if row.status else "no answer"),
        ("duration", format_ms(row.duration_ms)),
        ("reason", row.reason),
        ("trace", row.trace),
    ]
    return [(label, clean(text)) for label, text in facts if text]
