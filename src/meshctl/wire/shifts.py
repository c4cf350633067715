"""The JSON shapes of shifting traffic between versions by hand, and of mirroring.  Pure; see ``models``."""

from __future__ import annotations

import msgspec

from meshctl.wire.models import Shape
from meshctl.wire.policies import PolicyChangeShape

SHIFT_TIMEOUT = 60.0
"""Seconds that instances which are started may take to be healthy."""


class ShiftRequest(Shape, frozen=True, kw_only=True):
    """Give versions of a service these weights in percent; what is not named goes to the stable version.

    With ``header`` the weights are those of requests that carry it (with ``value``, unless that is null), and no others
    reach the versions named. ``sticky`` is ``cookie``, ``cookie:NAME``, ``header:NAME``, ``off``, or empty to leave it.
    Versions that do not run are started; ``timeout`` is how long they may take to be healthy. ``force`` shifts even
    while a rollout of the service is under way. ``base``, ``author``, ``reason`` and ``dry_run`` as in ApplyRequest.
    """

    service: str
    weights: dict[str, int]
    header: str = ""
    value: str | None = None
    sticky: str = ""
    timeout: float = SHIFT_TIMEOUT
    force: bool = False
    author: str
    reason: str = ""
    base: int | None = None
    dry_run: bool = False


class MirrorRequest(Shape, frozen=True, kw_only=True):
    """Send copies of ``percent`` percent of a service's requests to ``version`` too; to none when it is empty.

    The rest as in ShiftRequest.
    """

    service: str
    version: str = ""
    percent: float = 10.0
    timeout: float = SHIFT_TIMEOUT
    force: bool = False
    author: str
    reason: str = ""
    base: int | None = None
    dry_run: bool = False


class HeaderTraffic(Shape, frozen=True, kw_only=True):
    """What requests with a header get: weights in percent by version; ``value`` null is any value."""

    header: str
    value: str | None
    weights: dict[str, int]


class MirrorTraffic(Shape, frozen=True, kw_only=True):
    """Copies of ``percent`` percent of the requests go to ``version``."""

    version: str
    percent: float


class Traffic(Shape, frozen=True, kw_only=True):
    """Where the requests to a service go: ``weights`` in percent of every version; ``sticky`` as in ShiftRequest."""

    weights: dict[str, int]
    header: HeaderTraffic | None = None
    sticky: str = ""
    mirror: MirrorTraffic | None = None


class TrafficResult(Shape, frozen=True, kw_only=True):
    """A shift that is in effect everywhere, or after a dry run one that could be.

    ``before`` and ``after`` say where requests go. ``started`` are the instances that were started for it, which took
    ``waited_ms`` to be healthy; ``idle`` are versions whose instances run and get nothing. ``notes`` are in words.
    ``duration_ms`` is the time from the change to the last of ``total`` acknowledgements; the rest as in PolicyResult.
    """

    service: str
    stable: str
    before: Traffic
    after: Traffic
    started: list[str] = msgspec.field(default_factory=list)
    waited_ms: float = 0.0
    idle: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    revision: int
    changes: list[PolicyChangeShape]
    acked: int
    total: int
    duration_ms: float
