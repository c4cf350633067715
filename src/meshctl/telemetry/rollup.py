"""Samples of sidecars' stats -> what happened when: ``reduce(rollup, samples, now)``.  Pure.

Counters since the start of a sidecar become what was added to them between two samples, put into the second in which
the later one was taken.  Kept are slots of 1 s for 5 minutes and of 10 s for an hour; a slot holds only what happened,
so that a mesh at rest takes next to no memory.

Invariants: a rollup is never changed, a new one shares what stays the same; no delta is negative, and what a counter
had before its sidecar was restarted is neither lost nor counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from meshctl.telemetry.buckets import Histogram, add, pack, unpack
from meshctl.telemetry.names import Durations, Flow, OfCluster, Outcome, Requests, read_name
from meshctl.telemetry.stats import Stats

FINE_STEP = 1
FINE_KEPT = 300
COARSE_STEP = 10
COARSE_KEPT = 3600
"""Seconds."""

MOST_FLOWS = 1000
"""Flows of one slot of one sidecar; those beyond are left out."""

_FRESH = 3.0
# Seconds since its start in which all that a sidecar counted is taken for what happened since.

_COUNTED = frozenset({"retries", "sent", "received"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one sidecar had counted at ``time``; ``incarnation`` is another one after each of its starts."""

    time: float
    started_at: float
    incarnation: str
    stats: Stats


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowDelta:
    """What was added to one flow: requests by outcome, and their durations (packed)."""

    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    durations: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDelta:
    """What was added to the counters of one cluster: retries, and bytes sent and received."""

    retries: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What happened up to the end of second ``at``, in ``seconds`` (those since the sample before, all together)."""

    at: int
    seconds: float
    flows: Mapping[Flow, FlowDelta] = field(default_factory=dict)
    clusters: Mapping[str, ClusterDelta] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One sidecar's past, oldest first; ``resets`` is how often its counters began anew."""

    last: Sample
    fine: tuple[Slot, ...] = ()
    coarse: tuple[Slot, ...] = ()
    resets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """The histories of all sidecars by name."""

    sidecars: Mapping[str, History] = field(default_factory=dict)


def reduce(rollup: Rollup, samples: Mapping[str, Sample], now: float) -> Rollup:
    """The rollup with these samples taken in; ``now`` lets go of what is too old."""
    taken = {name: _take(rollup.sidecars.get(name), sample) for name, sample in samples.items()}
    kept = {
        name: history for name, history in rollup.sidecars.items() if history.last.time > now - COARSE_KEPT - FINE_KEPT
    }
    return Rollup(sidecars={**kept, **taken})


def forget(rollup: Rollup, known: Iterable[str]) -> Rollup:
    """The rollup without sidecars that are no longer known."""
    names = frozenset(known)
    if names.issuperset(rollup.sidecars):
        return rollup
    return Rollup(sidecars={name: history for name, history in rollup.sidecars.items() if name in names})


def merge(slots: Iterable[Slot], at: int) -> Slot:
    """Slots as one that ends at ``at``."""
    parts = list(slots)
    flows: dict[Flow, list[FlowDelta]] = {}
    clusters: dict[str, list[ClusterDelta]] = {}
    for slot in parts:
        for flow, delta in slot.flows.items():
            flows.setdefault(flow, []).append(delta)
        for name, change in slot.clusters.items():
            clusters.setdefault(name, []).append(change)
    return Slot(
        at=at,
        seconds=sum(slot.seconds for slot in parts),
        flows={flow: _add_flows(deltas) for flow, deltas in flows.items()},
        clusters={name: _add_clusters(changes) for name, changes in clusters.items()},
    )


def _take(history: History | None, sample: Sample) -> History:
    if history is None:
        if sample.time - sample.started_at > _FRESH:
            # Of one that has run for long it is not known when what it counted happened.
            return History(last=sample)
        history = History(last=replace(sample, time=sample.started_at, stats=Stats()))
    if sample.time <= history.last.time:
        return history
    if sample.incarnation != history.last.incarnation:
        # Counted since its start, which lies after the sample before; in between there was nobody to count.
        history = replace(history, last=replace(history.last, stats=Stats()), resets=history.resets + 1)
    return replace(_append(history, sample), last=sample)


def _append(history: History, sample: Sample) -> History:
    slot = _difference(history.last, sample)
    fine, coarse = history.fine, history.coarse
    if fine and fine[-1].at == slot.at:
        return replace(history, fine=(*fine[:-1], merge((fine[-1], slot), slot.at)))
    decade = _decade(slot.at)
    if fine and _decade(fine[-1].at) != decade:
        done = _decade(fine[-1].at)
        whole = merge((each for each in fine if _decade(each.at) == done), done)
        coarse = (*(each for each in coarse if each.at > slot.at - COARSE_KEPT), whole)
    if fine and fine[0].at <= slot.at - FINE_KEPT:
        fine = tuple(each for each in fine if each.at > slot.at - FINE_KEPT)
    return replace(history, fine=(*fine, slot), coarse=coarse)


def _decade(at: int) -> int:
    """The end of the coarse slot that a second belongs to."""
    return math.ceil(at / COARSE_STEP) * COARSE_STEP


def _difference(before: Sample, after: Sample) -> Slot:
    outcomes: dict[Flow, dict[Outcome, int]] = {}
    durations: dict[Flow, bytes] = {}
    clusters: dict[str, dict[str, int]] = {}
    if after.stats is not before.stats:
        old = before.stats.numbers
        for name, value in after.stats.numbers.items():
            was = old.get(name, 0)
            if value == was or (meaning := read_name(name)) is None:
                continue
            # A single counter that is smaller than before was removed and came again.
            added = value - was if value > was else value
            if isinstance(meaning, Requests):
                outcomes.setdefault(meaning.flow, {})[meaning.outcome] = added
            elif isinstance(meaning, OfCluster) and meaning.stat in _COUNTED:
                clusters.setdefault(meaning.cluster, {})[meaning.stat] = added
        for name, histogram in after.stats.histograms.items():
            meaning = read_name(name)
            if isinstance(meaning, Durations):
                added_to = _subtract(histogram, before.stats.histograms.get(name, {}))
                if added_to:
                    durations[meaning.flow] = pack(added_to)
    flows = sorted({*outcomes, *durations})[:MOST_FLOWS]
    return Slot(
        at=math.floor(after.time),
        seconds=after.time - before.time,
        flows={f: FlowDelta(outcomes=outcomes.get(f, {}), durations=durations.get(f, b"")) for f in flows},
        clusters={name: ClusterDelta(**changes) for name, changes in sorted(clusters.items())[:MOST_FLOWS]},
    )


def _subtract(after: Histogram, before: Histogram) -> Histogram:
    if after == before:
        return {}
    if any(after.get(bucket, 0) < count for bucket, count in before.items()):
        return after
    added = {bucket: count - before.get(bucket, 0) for bucket, count in after.items()}
    return {bucket: count for bucket, count in added.items() if count}


def _add_flows(deltas: list[FlowDelta]) -> FlowDelta:
    if len(deltas) == 1:
        return deltas[0]
    outcomes: dict[Outcome, int] = {}
    for delta in deltas:
        for outcome, count in delta.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    durations = pack(add(unpack(delta.durations) for delta in deltas if delta.durations))
    return FlowDelta(outcomes=outcomes, durations=durations)


def _add_clusters(changes: list[ClusterDelta]) -> ClusterDelta:
    return ClusterDelta(
        retries=sum(change.retries for change in changes),
        sent=sum(change.sent for change in changes),
        received=sum(change.received for change in changes),
    )
