"""Histograms of durations: buckets a factor of the square root of 1.2 apart, and quantiles of them.  Pure.

Bucket ``k`` holds what took at most ``1.2 ** (k / 2)`` milliseconds and longer than bucket ``k - 1``, so two buckets
make the 1.2x that canaries compare by.  They reach from 31 microseconds to a minute; what is longer is in the last.
A histogram is a mapping of buckets to counts, those without counts left out.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

FIRST = -38
LAST = 121
OVERFLOW = LAST + 1
"""The bucket of what took longer than a minute: it has no end."""

_STEP = math.log(1.2) / 2
_ENTRY = struct.Struct("<hI")
_MOST = 2**32 - 1

Histogram = Mapping[int, int]


def upper_bound(bucket: int) -> float:
    """The longest duration of a bucket in milliseconds; infinite for the last."""
    return math.inf if bucket >= OVERFLOW else math.exp(_STEP * bucket)


def lower_bound(bucket: int) -> float:
    """The duration in milliseconds that those of a bucket are longer than; 0 for the first."""
    return 0.0 if bucket <= FIRST else math.exp(_STEP * (bucket - 1))


def bucket_of(milliseconds: float) -> int:
    """The bucket of one duration."""
    if milliseconds <= 0:
        return FIRST
    return min(OVERFLOW, max(FIRST, math.ceil(math.log(milliseconds) / _STEP - 1e-9)))


@lru_cache(maxsize=8192)
def bucket_of_bin(lower: float, width: float) -> int:
    """The bucket of one of Envoy's bins (microseconds): that of its middle, for its bins are finer than ours."""
    return bucket_of((lower + width / 2) / 1000)


def add(histograms: Iterable[Histogram]) -> dict[int, int]:
    """Histograms as one."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def pack(histogram: Histogram) -> bytes:
    """A histogram in few bytes, for keeping many."""
    return b"".join(_ENTRY.pack(bucket, min(count, _MOST)) for bucket, count in sorted(histogram.items()) if count > 0)


def unpack(data: bytes) -> dict[int, int]:
    """A histogram that was packed."""
    return dict(_ENTRY.iter_unpack(data))


def quantile(histogram: Histogram, share: float) -> float | None:
    """Milliseconds that this share (0 to 1) of what is counted took at the most; None when nothing is counted.

    Within its bucket the counted are taken to lie evenly. Of those beyond the last bound, the bound is what is told.
    """
    total = sum(histogram.values())
    if total == 0:
        return None
    wanted = share * total
    below = 0
    for bucket in sorted(histogram):
        count = histogram[bucket]
        if count and below + count >= wanted:
            low, high = lower_bound(bucket), upper_bound(bucket)
            return low if math.isinf(high) else low + (high - low) * max(0.0, wanted - below) / count
        below += count
    raise AssertionError("the counts sum to less than themselves")  # pragma: no cover - wanted is at most the total
