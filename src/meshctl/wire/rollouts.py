"""The JSON shapes of rollouts: canaries that are judged and shifted by themselves.  Pure; see ``models``.

Times are seconds since the epoch, durations seconds unless a name ends in ``_ms``, weights whole percent, shares
between 0 and 1.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from meshctl.wire.models import Shape

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
"""How a rollout stands. The last four are its end; ``meshctl.canary.model`` says what each means."""

ENDED: frozenset[str] = frozenset({"promoted", "rolled_back", "failed", "cancelled"})
"""Phases that nothing follows."""


class RolloutSettings(Shape, frozen=True, kw_only=True):
    """How a rollout is done; see ``rollout`` in the reference of the topology file for each."""

    steps: list[int]
    interval: float
    window: float
    max_error_ratio: float
    max_p99_ratio: float
    alpha: float
    min_requests: int
    on_failure: Literal["rollback", "freeze"]
    deadline: float
    count_faults: bool


class StartRequest(Shape, frozen=True, kw_only=True):
    """Begin a rollout. What is null is taken from ``rollout`` of the service in the topology, or is the default.

    ``replace`` takes the place of a rollout that is under way; ``force`` begins although a fault is on.
    """

    service: str
    version: str
    steps: list[int] | None = None
    interval: float | None = None
    window: float | None = None
    max_error_ratio: float | None = None
    max_p99_ratio: float | None = None
    alpha: float | None = None
    min_requests: int | None = None
    on_failure: Literal["rollback", "freeze"] | None = None
    deadline: float | None = None
    count_faults: bool | None = None
    author: str
    reason: str = ""
    replace: bool = False
    force: bool = False


class ChangeRequest(Shape, frozen=True, kw_only=True):
    """Pause, resume, promote, roll back or retry the rollout of a service.

    ``full`` promotes to all of the traffic; ``version`` retries the last rollout of that version.
    """

    service: str
    version: str = ""
    author: str
    reason: str = ""
    full: bool = False


class RolloutFinding(Shape, frozen=True, kw_only=True):
    """One of the two tests: how sure it is that the version is worse (``evidence`` against ``threshold``), and by what
    it is. ``canary``, ``stable`` and ``bound`` are shares of errors, or p99 in milliseconds; null when unknown.
    ``dispersion`` is how many errors count as one because they come in clusters, 1 when each comes by itself.
    """

    evidence: float
    threshold: float
    canary: float | None
    stable: float | None
    bound: float | None
    exceeded: bool
    failed: bool
    dispersion: float = 1.0


class RolloutVerdict(Shape, frozen=True, kw_only=True):
    """What the judge said at a tick: ``requests`` of ``wanted`` at this step, which lasted ``lasted`` of ``needed``."""

    action: Literal["advance", "promote", "hold", "roll_back", "freeze", "pause"]
    why: str
    errors: RolloutFinding
    latency: RolloutFinding
    requests: int
    wanted: int
    stable_requests: int
    lasted: float
    needed: float
    pairing: Literal["paired", "unpaired"]


class RolloutDecision(Shape, frozen=True, kw_only=True):
    """One entry of a rollout's history: what came, and what was decided."""

    number: int
    time: float
    event: str
    phase: Phase
    weight: int
    why: str
    verdict: RolloutVerdict | None = None
    author: str = ""
    reason: str = ""


class VersionFigures(Shape, frozen=True, kw_only=True):
    """One of the two versions now: its weight, and what callers saw of it over the last ``window`` seconds."""

    version: str
    weight: int
    window: float
    requests: int
    rate: float | None
    success: float | None
    p50_ms: float | None
    p99_ms: float | None


class RolloutStatus(Shape, frozen=True, kw_only=True):
    """One rollout as it stands. ``weight`` is decided, ``applied`` acknowledged by every sidecar.

    ``next_weight`` is that of the step after this one, null at the last. ``latest`` is the newest decision, ``verdict``
    the newest of the judge. ``versions`` are the canary and the stable version, in this order; empty once it ended.
    """

    number: int
    service: str
    version: str
    stable: str
    revision: str
    settings: RolloutSettings
    author: str
    reason: str
    started_at: float
    phase: Phase
    pause: Literal["", "by_hand", "inconclusive", "disturbed"]
    why: str
    step: int
    weight: int
    applied: int
    next_weight: int | None
    since: float
    next_at: float | None
    deadline_at: float
    ended_at: float | None
    requests: int
    stable_requests: int
    latest: RolloutDecision | None = None
    verdict: RolloutVerdict | None = None
    versions: list[VersionFigures] = msgspec.field(default_factory=list)


class RolloutList(Shape, frozen=True, kw_only=True):
    """The newest rollout of each service, by service."""

    rollouts: list[RolloutStatus]


class RolloutRecord(Shape, frozen=True, kw_only=True):
    """One rollout with every decision, oldest first."""

    rollout: RolloutStatus
    decisions: list[RolloutDecision]


class RolloutHistory(Shape, frozen=True, kw_only=True):
    """Rollouts, oldest first."""

    rollouts: list[RolloutRecord]
