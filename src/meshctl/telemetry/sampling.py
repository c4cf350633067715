"""Of how many requests spans are made, so that tracing costs no more than a stated share.  Pure.

A trace is decided where it begins, at the first sidecar that a request comes by, and everyone after it follows. So each
sidecar has a share of its own, which it applies to requests that bring no trace context. The shares are such that all
together make about ``budget`` spans a second: a sidecar that begins few traces records them all, and what is left is
divided evenly among those that would make more.

How many spans a sidecar's traces would make is told by those that came (spans for each request it saw, at the share
that held), times the requests that it sees now: so a load that suddenly grows is answered as soon as it is counted.

Enters: what was counted in one step.  Leaves: a new state. A share falls at once and rises when it could have been
higher for ``RAISE_AFTER`` steps, so that sidecars are not told something new each second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

BUDGET = 500.0
"""Spans a second, of the whole mesh: about 2% of one core for whoever takes them, and 1% for the sidecars that
make them."""

RAISE_AFTER = 5
"""Steps."""

FULL = 1_000_000
LEAST = 100
"""A share is in millionths: all requests, and one of ten thousand."""

_RUNGS_PER_OCTAVE = 2
# A share is one of a ladder, 2 ** (-1/2) apart, so that small changes of load change nothing.

_MEMORY = 0.7
# What is left after a step of what was counted before: spans come up to a second after their requests.

_FIRST_REQUESTS = 10.0
_FIRST_SPANS = 20.0
_LEAST_RECORDED = 1.0
# What is taken for counted at first: two spans of a request, both sides of a hop.


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSampling:
    """What is held of one sidecar: ``share`` in millionths, of now and of the step before; the spans that came of late
    and the requests that were recorded for them; for how many steps a higher share would have done, and the least of
    these shares.
    """

    share: int = FULL
    before: int = FULL
    spans: float = _FIRST_SPANS
    recorded: float = _FIRST_REQUESTS
    higher_for: int = 0
    higher: int = FULL

    @property
    def spans_per_request(self) -> float:
        """How many spans each request would make, were all recorded."""
        return self.spans / self.recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The state by sidecar."""

    sidecars: Mapping[str, SidecarSampling] = field(default_factory=dict)

    def shares(self) -> dict[str, int]:
        """The share of each sidecar that does not record all its requests, in millionths."""
        return {name: held.share for name, held in sorted(self.sidecars.items()) if held.share < FULL}


def step(
    state: Sampling,
    *,
    spans: Mapping[str, int],
    requests: Mapping[str, float],
    budget: float = BUDGET,
    seconds: float = 1.0,
) -> Sampling:
    """The state after ``seconds`` in which so many spans came, by the sidecar that began their traces, and so many
    requests a second passed each sidecar (``requests`` names every sidecar there is).
    """
    learned = {
        name: _learn(state.sidecars.get(name, SidecarSampling()), spans.get(name, 0), rate * seconds)
        for name, rate in requests.items()
    }
    demands = {name: held.spans_per_request * requests[name] for name, held in learned.items()}
    level = find_level(demands.values(), budget)
    return Sampling(
        sidecars={name: _settle(held, _share_of(demands[name], level)) for name, held in sorted(learned.items())}
    )


def find_level(demands: Iterable[float], budget: float) -> float:
    """The level up to which each demand is met, so that all that is met makes ``budget``; infinite if all can be.

    This is max-min fairness (water-filling): Bertsekas and Gallager, Data Networks, 6.5.2.
    """
    left, waiting = budget, sorted(demands)
    for index, demand in enumerate(waiting):
        even = left / (len(waiting) - index)
        if demand > even:
            return even
        left -= demand
    return math.inf


def _learn(held: SidecarSampling, spans: float, requests: float) -> SidecarSampling:
    if requests <= 0.0 and spans <= 0.0:
        return held
    # Half of what comes was decided at the share of the step before.
    share = (held.share + held.before) / 2 / FULL
    return replace(
        held,
        spans=held.spans * _MEMORY + spans,
        recorded=max(held.recorded * _MEMORY + requests * share, _LEAST_RECORDED),
    )


def _share_of(demand: float, level: float) -> int:
    """The highest share on the ladder that keeps a demand at the level."""
    if demand <= level:
        return FULL
    rung = math.ceil(math.log2(demand / level) * _RUNGS_PER_OCTAVE - 1e-9)
    return max(LEAST, round(FULL * math.pow(2.0, -rung / _RUNGS_PER_OCTAVE)))


def _settle(held: SidecarSampling, wanted: int) -> SidecarSampling:
    share, higher_for, higher = held.share, 0, FULL
    if wanted < share:
        share = wanted
    elif wanted > share:
        higher_for, higher = held.higher_for + 1, min(held.higher, wanted)
        if higher_for >= RAISE_AFTER:
            share, higher_for, higher = higher, 0, FULL
    return replace(held, share=share, before=held.share, higher_for=higher_for, higher=higher)
