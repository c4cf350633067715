"""An open-loop load: when each request is due, and what came of them.  Pure.

Requests are due at fixed times, whatever became of those before, and the time of each counts from when it was due. A
closed loop, which sends the next request when an answer has come, asks less of a service that has become slow, and
leaves out just those requests that would have had to wait: "coordinated omission"
(Gil Tene, "How NOT to Measure Latency", 2013; https://github.com/giltene/wrk2).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshctl.telemetry.buckets import Histogram, bucket_of, quantile, upper_bound
from meshctl.telemetry.names import Outcome
from meshctl.telemetry.tally import is_failure

RECENT = 60
"""Seconds of which each has figures of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """``rate`` requests a second for ``duration`` seconds, evenly spaced, the first at once."""

    rate: float
    duration: float

    @property
    def count(self) -> int:
        """How many there are in all: one at least."""
        # Rounded first: 0.1 * 30 is a little more than 3.
        return max(1, math.ceil(round(self.rate * self.duration, 9)))

    def time_of(self, number: int) -> float:
        """When a request is due, in seconds from the start; the first has the number 0."""
        return number / self.rate

    def due(self, elapsed: float) -> int:
        """How many are due once so many seconds have passed."""
        if elapsed < 0:
            return 0
        number = min(self.count, math.floor(elapsed * self.rate) + 1)
        # What the division above rounds is decided by the times themselves.
        while number < self.count and self.time_of(number) <= elapsed:
            number += 1
        while number > 0 and self.time_of(number - 1) > elapsed:
            number -= 1
        return number


@dataclass(slots=True, kw_only=True)
class Ended:
    """What became of some requests: counts by status, by the kind of failure where no answer came, and durations."""

    statuses: dict[int, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    durations: dict[int, int] = field(default_factory=dict)
    longest_ms: float = 0.0

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.statuses.values()) + sum(self.errors.values())

    @property
    def failures(self) -> int:
        """Those without an answer, and those with a status that counts as a failure (from 500)."""
        failed = sum(count for status, count in self.statuses.items() if is_failure(Outcome(status, -1, "")))
        return failed + sum(self.errors.values())

    @property
    def success(self) -> float | None:
        """The share that did not fail; None when there was none."""
        requests = self.requests
        return 1 - self.failures / requests if requests else None

    def quantile(self, share: float) -> float | None:
        """Milliseconds that this share took at the most; None when there was none. Never above the longest."""
        found = quantile(self.durations, share)
        return None if found is None else min(found, self.longest_ms)

    def add(self, status: int, error: str, milliseconds: float) -> None:
        """Count one: by its status, or by the kind of failure."""
        if error:
            self.errors[error] = self.errors.get(error, 0) + 1
        else:
            self.statuses[status] = self.statuses.get(status, 0) + 1
        bucket = bucket_of(milliseconds)
        self.durations[bucket] = self.durations.get(bucket, 0) + 1
        self.longest_ms = max(self.longest_ms, milliseconds)


class LoadTally:
    """Counts a load while it runs. Times are seconds from its start."""

    def __init__(self) -> None:
        self.total = Ended()
        self.versions: dict[str, Ended] = {}
        self.sent = 0
        self.late_ms = 0.0
        """How late a request was sent that had to wait for nobody: how far the sender itself was behind."""
        self._seconds: deque[tuple[int, Ended]] = deque(maxlen=RECENT)

    @property
    def under_way(self) -> int:
        """Requests that were sent and have not ended."""
        return self.sent - self.total.requests

    def note_sent(self, *, due: float, now: float, waited: bool) -> None:
        """A request is sent; ``waited`` when it had to wait for another one to end first."""
        self.sent += 1
        if not waited:
            self.late_ms = max(self.late_ms, (now - due) * 1000)

    def note_ended(self, *, due: float, now: float, status: int = 0, error: str = "", version: str = "") -> None:
        """A request that was due (or sent, if that was before) at ``due`` ended: with a status, or with an error."""
        milliseconds = (now - due) * 1000
        second = math.floor(now)
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, Ended()))
        for ended in (self.total, self.versions.setdefault(version, Ended()), self._seconds[-1][1]):
            ended.add(status, error, milliseconds)

    def recent(self, elapsed: float, seconds: int) -> tuple[Ended, ...]:
        """The last whole seconds, the latest last; those before the start are left out."""
        known = dict(self._seconds)
        last = math.floor(elapsed)
        return tuple(known.get(second, Ended()) for second in range(max(0, last - seconds), last))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """``count`` requests took at most ``upper_ms`` and longer than the bar before; the last bar may have no end."""

    upper_ms: float
    count: int


def make_bars(histogram: Histogram, most: int) -> tuple[Bar, ...]:
    """A histogram in at most so many bars, each as many buckets wide, without a gap from the first to the last."""
    filled = sorted(bucket for bucket, count in histogram.items() if count)
    if not filled:
        return ()
    first, last = filled[0], filled[-1]
    width = math.ceil((last - first + 1) / most)
    bars = []
    for start in range(first, last + 1, width):
        end = min(start + width - 1, last)
        bars.append(Bar(upper_ms=upper_bound(end), count=sum(histogram.get(b, 0) for b in range(start, end + 1))))
    return tuple(bars)


def order_versions(versions: Iterable[str]) -> tuple[str, ...]:
    """The versions of answers, by name; last the empty one, of those that came from no instance."""
    return tuple(sorted(versions, key=lambda version: (not version, version)))


def shares(versions: Mapping[str, Ended]) -> dict[str, float]:
    """The share of each version among all requests."""
    total = sum(ended.requests for ended in versions.values())
    return {version: ended.requests / total for version, ended in versions.items()} if total else {}
