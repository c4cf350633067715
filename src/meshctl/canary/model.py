"""The values of a rollout: what it is told to do, what it has seen, what it decided and why.  Pure.

A rollout takes a *version* of a service from no traffic to all of it, beside the *stable* version.  ``machine.step``
takes a :class:`Rollout` and one of :data:`Event` and gives the next one with commands; the moves that a phase may make
are the table :data:`MOVES`.  Times are seconds since the epoch, weights whole percent, shares between 0 and 1, and
durations of requests milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FULL = 100
"""Percent: all of the traffic."""

Phase = Literal[
    "starting",
    "shifting",
    "running",
    "paused",
    "frozen",
    "rolling_back",
    "promoted",
    "rolled_back",
    "failed",
    "cancelled",
]
"""How a rollout stands:

starting: the version's instances are brought up; it has no traffic yet.
shifting: ``weight`` is decided and written down, and not yet acknowledged by every sidecar.
running: ``weight`` is in effect; each tick judges.
paused: ``weight`` stays as it is until ``resume``; ``pause`` says whether by hand, as inconclusive, or as disturbed.
frozen: the evidence says that the version is worse, and ``on_failure`` is ``freeze``: ``weight`` stays as it is.
rolling_back: weight 0 is decided and written down, and not yet acknowledged by every sidecar.
promoted: the version has all the traffic. The end.
rolled_back: the version has none; this revision of it is not tried again without ``retry``. The end.
failed: the version did not come up, or a sidecar refused it; it has what it had before. The end.
cancelled: the service or the version has left the topology, or another rollout took its place. The end.
"""

ENDED: frozenset[Phase] = frozenset({"promoted", "rolled_back", "failed", "cancelled"})
"""Phases that nothing follows."""

MOVES: Mapping[Phase, frozenset[Phase]] = {
    "starting": frozenset({"running", "shifting", "paused", "rolling_back", "failed", "cancelled"}),
    "shifting": frozenset({"running", "paused", "rolling_back", "promoted", "cancelled"}),
    "running": frozenset({"shifting", "paused", "frozen", "rolling_back", "promoted", "cancelled"}),
    "paused": frozenset({"running", "shifting", "rolling_back", "promoted", "cancelled"}),
    "frozen": frozenset({"running", "shifting", "paused", "rolling_back", "promoted", "cancelled"}),
    "rolling_back": frozenset({"rolled_back", "cancelled"}),
    "promoted": frozenset(),
    "rolled_back": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""Every move between two different phases that one step may make."""

OnFailure = Literal["rollback", "freeze"]
PauseKind = Literal["", "by_hand", "inconclusive", "disturbed"]
Action = Literal["advance", "promote", "hold", "roll_back", "freeze", "pause"]
Pairing = Literal["paired", "unpaired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a rollout is to be done.

    Args:
        steps: weights of the version, rising, the last one 100.
        interval: seconds from one tick to the next, at least 1.
        window: seconds over which the two versions are compared; also how long each step lasts at least.
        max_error_ratio: how many times the stable version's share of errors the version may have.
        max_p99_ratio: how many times the stable version's p99 the version's may be.
        alpha: the probability with which a version that keeps within both bounds may be rolled back at all, however
            long the rollout is and however often it is looked at.
        min_requests: the version must have answered so many requests at a step before it goes on to the next.
        on_failure: take the version's traffic away, or leave it as it is for somebody to look at.
        deadline: seconds after which a rollout that has not ended is paused as inconclusive; 0 for never.
        count_faults: let errors and delays that were injected count as evidence.
    """

    steps: tuple[int, ...] = (5, 10, 25, 50, 100)
    interval: float = 10.0
    window: float = 300.0
    max_error_ratio: float = 1.1
    max_p99_ratio: float = 1.2
    alpha: float = 0.01
    min_requests: int = 100
    on_failure: OnFailure = "rollback"
    deadline: float = 3600.0
    count_faults: bool = False

    @property
    def threshold(self) -> float:
        """The evidence at which a version is taken to be worse: 2 / alpha, for there are two tests."""
        return 2 / self.alpha

    @property
    def doubt(self) -> float:
        """The evidence from which on a version is held at its step though it is not enough to roll it back."""
        return float(self.threshold**0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests that ended, each once, after its last try, as callers saw them.

    ``errors`` got no answer, one from 500, or a gRPC status that is the server's fault. ``rejected`` are requests that
    callers' own sidecars turned away because a circuit was open: they reached no version, and are in neither of the
    others. ``injected`` are those of ``requests`` that a fault was injected into. ``durations`` are by bucket (see
    telemetry.buckets); a request without an answer has none.
    """

    requests: int = 0
    errors: int = 0
    rejected: int = 0
    injected: int = 0
    durations: Mapping[int, int] = field(default_factory=dict)

    @property
    def error_share(self) -> float | None:
        """The share of errors; None without requests."""
        return self.errors / self.requests if self.requests else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What happened to both versions since the tick before (``canary``, ``stable``), and over the window at this step
    (``window_canary``, ``window_stable``), which are ``seconds`` and ``window_seconds`` long.

    ``stale`` are callers whose sidecars did not answer of late; ``active`` are the version's requests under way;
    ``fault`` says in words which fault is on, if one is.
    """

    until: float
    seconds: float
    window_seconds: float
    canary: Counts = field(default_factory=Counts)
    stable: Counts = field(default_factory=Counts)
    window_canary: Counts = field(default_factory=Counts)
    window_stable: Counts = field(default_factory=Counts)
    active: int | None = None
    stale: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One sequential test under way: for each of its starts the logarithms of the likelihood ratios of the grid.

    What it comes to is ``statistics.weigh``; it never grows beyond MAX_STARTS rows.
    """

    rows: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How unevenly the bad requests of one version come: what ``statistics.dispersion`` is measured by.

    ``bad`` of ``requests`` in all; ``squares`` is the sum of squared differences of the shares of ticks that follow
    one another, each over what independent requests with a variance of 1 would differ by, and ``pairs`` how many
    there are; ``last`` is the newest tick with requests, as (bad, requests).
    """

    requests: int = 0
    bad: int = 0
    pairs: int = 0
    squares: float = 0.0
    last: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known against a version since its rollout began.

    ``slow_bucket`` is the bucket of the stable version's p99 before the next tick: what takes longer is slow there;
    None until enough was seen. ``begun_at`` is when the newest start of the tests was made. ``reference`` are errors
    and requests of the stable version so far: what the version is held to once it has all the traffic. ``spread`` and
    ``stable_spread`` are how unevenly each version's errors came.
    """

    errors: Process = field(default_factory=Process)
    latency: Process = field(default_factory=Process)
    slow_bucket: int | None = None
    begun_at: float | None = None
    reference_requests: int = 0
    reference_errors: int = 0
    spread: Spread = field(default_factory=Spread)
    stable_spread: Spread = field(default_factory=Spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One of the two tests at one tick.

    ``evidence`` (1 at the start) and ``threshold`` say how sure it is that the version is worse; ``canary``,
    ``stable`` and ``bound`` what the difference is: shares of errors, or p99 in milliseconds, None when unknown, the
    bound being what the version's should not exceed. ``exceeded`` is whether it does. It takes both to fail.
    ``dispersion`` is how many errors count as one, for they come in clusters: 1 when each comes by itself.
    """

    evidence: float
    threshold: float
    canary: float | None
    stable: float | None
    bound: float | None
    exceeded: bool
    dispersion: float = 1.0

    @property
    def failed(self) -> bool:
        """Whether this is enough to take the version back."""
        return self.exceeded and self.evidence >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge says at a tick, with every number that it rests on.

    ``why`` is a sentence. ``requests`` of ``wanted`` were answered by the version at this step, ``stable_requests`` by
    the stable one; the step has lasted ``lasted`` of ``needed`` seconds. ``pairing`` says whether there is a stable
    version at work beside it; ``unpaired`` its errors are held to a fixed share, and its latency to nothing.
    """

    action: Action
    why: str
    errors: Finding
    latency: Finding
    requests: int
    wanted: int
    stable_requests: int
    lasted: float
    needed: float
    pairing: Pairing = "paired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One entry of a rollout's history: what came (``event``, its kind), and what the rollout did about it.

    ``weight`` is what was decided, in force or about to be; ``verdict`` is there for ticks that were judged; ``author``
    and ``reason`` for what people asked for.
    """

    number: int
    time: float
    event: str
    phase: Phase
    weight: int
    why: str
    verdict: Verdict | None = None
    author: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One rollout.

    What it is:
        number (within the mesh, from 1), service, version, stable, revision (hash of what the topology says of the
        version), settings, author, reason, started_at.
    How it stands:
        phase, pause (why it is paused), why (a sentence), step (index in ``settings.steps`` of ``weight``), weight
        (decided), applied (in effect: acknowledged by every sidecar, or set by somebody else), pushing
        (``weight`` is being brought into effect, so that ``applied`` is what was before), full (somebody
        wants it to end with all the traffic at once), since (when ``applied`` took effect, or was looked at afresh),
        next_at (when the next tick is due, None for never), deadline_at (0: never), ended_at.
    What it has seen:
        requests and stable_requests (at this step since ``since``), evidence, counted_until (what ended later is not
        counted yet), decision (the newest; its number is how many there are).
    """

    number: int
    service: str
    version: str
    stable: str
    revision: str
    settings: Settings
    author: str
    reason: str = ""
    started_at: float
    phase: Phase = "starting"
    pause: PauseKind = ""
    why: str = ""
    step: int = 0
    weight: int = 0
    applied: int = 0
    pushing: bool = False
    full: bool = False
    since: float
    next_at: float | None = None
    deadline_at: float = 0.0
    ended_at: float | None = None
    requests: int = 0
    stable_requests: int = 0
    evidence: Evidence = field(default_factory=Evidence)
    counted_until: float = 0.0
    decision: Decision | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.phase in ENDED

    @property
    def next_weight(self) -> int | None:
        """The weight of the step after this one; None at the last."""
        steps = self.settings.steps
        return steps[self.step + 1] if self.step + 1 < len(steps) else None


# ---------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Every sidecar concerned has acknowledged a weight."""

    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A weight could not be brought into effect: the version did not come up, or a sidecar refused it."""

    weight: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time to judge."""

    sample: Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseAsked:
    """Somebody wants the weight to stay as it is."""

    author: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeAsked:
    """Somebody wants a paused or frozen rollout to go on."""

    author: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteAsked:
    """Somebody wants the next step now, or all of the traffic (``full``)."""

    author: str
    reason: str = ""
    full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBackAsked:
    """Somebody wants the version to have no traffic."""

    author: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The control plane was away, and is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """The topology says something else of the version now."""

    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbed:
    """Something else than this rollout has changed where the traffic goes; the version has ``weight`` percent now."""

    message: str
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The rollout has lost its object: the version has left the topology, or another rollout took its place."""

    message: str


Event = (
    Applied
    | Refused
    | Tick
    | PauseAsked
    | ResumeAsked
    | PromoteAsked
    | RollBackAsked
    | Restarted
    | Revised
    | Disturbed
    | Cancelled
)
"""What may come to a rollout."""


# ---------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWeight:
    """Give the version this share of the traffic, and the stable version the rest; answer with Applied or Refused.

    ``wait`` says whether instances that do not run are started and waited for first: never on the way back to 0.
    """

    weight: int
    wait: bool
    reason: str


Command = SetWeight
"""What a rollout wants done. What it has decided is written down before."""
