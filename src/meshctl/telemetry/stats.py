"""A sidecar's answer to ``names.STATS_PATH`` -> its counters, gauges and histograms by name.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from meshctl.telemetry.buckets import bucket_of_bin

MOST_STATS = 20_000
"""Stats of one sidecar that are looked at: a mesh on one machine has some hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Everything since the sidecar started: ``numbers`` are counters and gauges, ``histograms`` counts by bucket."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


class _Bin(msgspec.Struct):
    lower_bound: float
    width: float
    count: int


class _Histogram(msgspec.Struct):
    name: str
    totals: list[_Bin] = []


class _Histograms(msgspec.Struct):
    details: list[_Histogram] = []


class _Item(msgspec.Struct):
    name: str = ""
    value: int | float | str | None = None
    histograms: _Histograms | None = None


class _Answer(msgspec.Struct):
    stats: list[_Item]


_DECODER = msgspec.json.Decoder(_Answer)


def read_stats(text: str | bytes) -> Stats:
    """The stats in an answer.

    Raises:
        ValueError: it is no answer of Envoy's.
    """
    items = _DECODER.decode(text).stats[:MOST_STATS]
    numbers = {item.name: item.value for item in items if item.name and isinstance(item.value, int)}
    found = [each for item in items if item.histograms is not None for each in item.histograms.details]
    return Stats(numbers=numbers, histograms={each.name: _count(each.totals) for each in found[:MOST_STATS]})


def _count(bins: list[_Bin]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for each in bins:
        bucket = bucket_of_bin(each.lower_bound, each.width)
        counts[bucket] = counts.get(bucket, 0) + each.count
    return counts
