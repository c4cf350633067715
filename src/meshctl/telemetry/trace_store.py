"""The traces of late, in bounded memory.  Pure: time is an argument.

Enters: spans in any order, each perhaps more than once.  Leaves: traces, as the spans of each. When there is no room
for more, the oldest ordinary trace goes first: those that failed or were slow stay longer, up to half of the room.

Invariants: no bound is ever exceeded; a span is counted once, however often it comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from meshctl.telemetry.spans import Span

_NS = 1_000_000_000

_LOOK = 1.0
# Seconds from one look for old traces to the next.


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept: spans of one trace, traces, spans of all, bytes, and for how many seconds."""

    spans_per_trace: int = 1_000
    traces: int = 5_000
    spans: int = 50_000
    size: int = 64 << 20
    age: float = 3600.0


@dataclass(slots=True, kw_only=True)
class KeptTrace:
    """One trace as far as it has come: whoever is given one must not change it.

    ``first_at`` and ``last_at`` are when its first and its last span so far came, in seconds since the epoch;
    ``dropped`` counts spans for which there was no room in it.
    """

    trace_id: str
    first_at: float
    last_at: float
    spans: dict[str, Span] = field(default_factory=dict)
    dropped: int = 0
    size: int = 0
    failed: bool = False
    slow: bool = False
    start_ns: int = 0
    end_ns: int = 0
    root: str = ""
    uncounted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a store holds, and what it has let go of or not taken since it began."""

    traces: int
    spans: int
    size: int
    evicted: int
    dropped: int


class TraceStore:
    """Takes spans, gives traces."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._ordinary: OrderedDict[str, KeptTrace] = OrderedDict()
        self._marked: OrderedDict[str, KeptTrace] = OrderedDict()
        self._spans = 0
        self._size = 0
        self._marked_spans = 0
        self._evicted = 0
        self._dropped = 0
        self._credits: dict[str, int] = {}
        self._looked_at = 0.0

    def add(self, spans: Iterable[Span], now: float, *, slow_ns: int = _NS) -> None:
        """Take spans that came at ``now`` (seconds); a trace that takes ``slow_ns`` or longer is slow."""
        for span in spans:
            self._take(span, now, slow_ns)
        self._let_go(now)

    def get(self, trace_id: str) -> KeptTrace | None:
        """A trace by its whole id; None when there is none."""
        return self._marked.get(trace_id) or self._ordinary.get(trace_id)

    def find(self, prefix: str) -> list[str]:
        """The ids that begin so, sorted."""
        return sorted(name for kept in (self._marked, self._ordinary) for name in kept if name.startswith(prefix))

    def newest(self) -> Iterator[KeptTrace]:
        """All traces, the one that began last first."""
        yield from sorted((*self._marked.values(), *self._ordinary.values()), key=lambda kept: -kept.start_ns)

    def kept(self) -> Kept:
        """How much there is."""
        return Kept(
            traces=len(self._marked) + len(self._ordinary),
            spans=self._spans,
            size=self._size,
            evicted=self._evicted,
            dropped=self._dropped,
        )

    def take_counts(self) -> Mapping[str, int]:
        """How many spans came since this was last asked, by the sidecar that began their traces.

        Those of traces that began elsewhere are not among them.
        """
        counts, self._credits = self._credits, {}
        return counts

    def _take(self, span: Span, now: float, slow_ns: int) -> None:
        kept = self.get(span.trace_id)
        if kept is None:
            kept = KeptTrace(
                trace_id=span.trace_id, first_at=now, last_at=now, start_ns=span.start_ns, end_ns=span.end_ns
            )
            self._ordinary[span.trace_id] = kept
        if span.span_id in kept.spans:
            return
        kept.last_at = now
        self._count(kept, span)
        if len(kept.spans) >= self._bounds.spans_per_trace:
            kept.dropped += 1
            self._dropped += 1
            return
        kept.spans[span.span_id] = span
        kept.size += span.size
        kept.start_ns = min(kept.start_ns, span.start_ns)
        kept.end_ns = max(kept.end_ns, span.end_ns)
        self._spans += 1
        self._size += span.size
        was_marked = kept.failed or kept.slow
        kept.failed = kept.failed or span.failed
        kept.slow = kept.slow or kept.end_ns - kept.start_ns >= slow_ns
        if was_marked:
            self._marked_spans += 1
        elif kept.failed or kept.slow:
            del self._ordinary[span.trace_id]
            self._marked[span.trace_id] = kept
            self._marked_spans += len(kept.spans)

    def _count(self, kept: KeptTrace, span: Span) -> None:
        if not kept.root and not span.parent_id and span.kind in ("caller", "callee"):
            kept.root = span.service
            self._credits[kept.root] = self._credits.get(kept.root, 0) + kept.uncounted
            kept.uncounted = 0
        if kept.root:
            self._credits[kept.root] = self._credits.get(kept.root, 0) + 1
        else:
            kept.uncounted += 1

    def _let_go(self, now: float) -> None:
        bounds = self._bounds
        if now >= self._looked_at + _LOOK:
            # Which is oldest is not which stands first: a trace may have begun long before it failed.
            self._looked_at = now
            for group in (self._ordinary, self._marked):
                for name in [name for name, kept in group.items() if kept.first_at < now - bounds.age]:
                    self._drop(group, name)
        while (
            self._spans > bounds.spans
            or self._size > bounds.size
            or len(self._ordinary) + len(self._marked) > bounds.traces
        ):
            too_many = self._marked_spans > bounds.spans // 2 or len(self._marked) > bounds.traces // 2
            self._drop(self._marked if self._marked and (too_many or not self._ordinary) else self._ordinary)

    def _drop(self, group: OrderedDict[str, KeptTrace], name: str = "") -> None:
        gone = group.pop(name or next(iter(group)))
        self._spans -= len(gone.spans)
        self._size -= gone.size
        if group is self._marked:
            self._marked_spans -= len(gone.spans)
        self._evicted += 1
