"""A window of a rollup: what each sidecar counted between two moments.  Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.telemetry.names import Flow, OfCluster, OfInstance, read_name
from meshctl.telemetry.rollup import FINE_KEPT, ClusterDelta, History, Slot, merge
from meshctl.telemetry.tally import Tally, count_deltas

STALE_AFTER = 3.0
"""Seconds without an answer after which a sidecar's figures are old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """How something is now: requests under way, open connections, ejected instances."""

    active: int = 0
    connections: int = 0
    ejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One sidecar's figures; ``seconds`` is how long of the window it was watched, 0 for not at all."""

    seconds: float
    age: float
    resets: int
    flows: Mapping[Flow, Tally] = field(default_factory=dict)
    clusters: Mapping[str, ClusterDelta] = field(default_factory=dict)
    cluster_gauges: Mapping[str, Gauges] = field(default_factory=dict)
    instance_gauges: Mapping[str, Gauges] = field(default_factory=dict)

    @property
    def stale(self) -> bool:
        """Whether the sidecar has not answered of late."""
        return self.age > STALE_AFTER


def read_window(history: History, *, until: float, seconds: float, now: float) -> Window:
    """What happened in the slots that end within ``seconds`` before ``until``; gauges are the newest there are."""
    chosen = select_slots(history, until=until, seconds=seconds)
    whole = merge(chosen, math.floor(until))
    clusters: dict[str, dict[str, int]] = {}
    instances: dict[str, dict[str, int]] = {}
    for name, value in history.last.stats.numbers.items():
        meaning = read_name(name)
        if isinstance(meaning, OfCluster) and meaning.stat in ("active", "connections", "ejected"):
            clusters.setdefault(meaning.cluster, {})[meaning.stat] = value
        elif isinstance(meaning, OfInstance):
            instances.setdefault(meaning.instance, {})[meaning.stat] = value
    return Window(
        seconds=whole.seconds,
        age=max(0.0, now - history.last.time),
        resets=history.resets,
        flows={flow: count_deltas((delta,), whole.seconds) for flow, delta in whole.flows.items()},
        clusters=whole.clusters,
        cluster_gauges={name: Gauges(**found) for name, found in clusters.items()},
        instance_gauges={name: Gauges(**found) for name, found in instances.items()},
    )


def select_slots(history: History, *, until: float, seconds: float) -> tuple[Slot, ...]:
    """The slots of a window: those of a second where they are still kept and few enough, else those of ten."""
    end = math.floor(until)
    begin = end - max(1, round(seconds))
    newest = history.fine[-1].at if history.fine else end
    if begin >= newest - FINE_KEPT:
        return tuple(slot for slot in history.fine if begin < slot.at <= end)
    done = history.coarse[-1].at if history.coarse else -math.inf
    old = [slot for slot in history.coarse if begin < slot.at <= end]
    return (*old, *(slot for slot in history.fine if max(begin, done) < slot.at <= end))
