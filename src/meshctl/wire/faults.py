"""The JSON shapes of the calls about faults.  Pure; see ``models``."""

from __future__ import annotations

import msgspec

from meshctl.wire.models import FaultShape, Shape

FAULT_DURATION = "5m"
"""How long a fault lasts unless something else is asked for."""


class FaultList(Shape, frozen=True, kw_only=True):
    """The faults that are on, oldest first."""

    faults: list[FaultShape]


class InjectRequest(Shape, frozen=True, kw_only=True):
    """Make a fault on requests to ``service``; the fields are the keys of a fault in the topology, as texts.

    What is empty, 0 or false is left out. ``callers`` stands for the key ``from``; ``headers`` are values by name, null
    for any value. ``duration`` is how long it lasts, ``name`` what it is to be called (chosen when it is empty).
    ``force`` makes it although a rollout of the service is under way, ``confirmed`` although nothing would be left of
    what comes in from outside. With ``dry_run`` only the forecast is made. ``author`` is user@command.
    """

    service: str
    delay: str = ""
    jitter: str = ""
    abort: int = 0
    grpc_status: str = ""
    rate: str = ""
    reset: bool = False
    blackhole: bool = False
    percent: float = 100.0
    exclusive: bool = False
    side: str = "callee"
    callers: list[str] = msgspec.field(default_factory=list)
    version: str = ""
    instance: str = ""
    path: str = ""
    methods: list[str] = msgspec.field(default_factory=list)
    headers: dict[str, str | None] = msgspec.field(default_factory=dict)
    health_checks: bool = False
    duration: str = FAULT_DURATION
    name: str = ""
    force: bool = False
    confirmed: bool = False
    dry_run: bool = False
    author: str
    reason: str = ""


class FaultOutcome(Shape, frozen=True, kw_only=True):
    """One thing that may happen to an attempt; ``share`` of them, from 0 to 1."""

    what: str
    share: float


class FaultedCalls(Shape, frozen=True, kw_only=True):
    """One kind of requests: tried at most ``attempts`` times, and ``fails`` of them fail in the end, from 0 to 1."""

    which: str
    attempts: int
    fails: float


class FaultForecast(Shape, frozen=True, kw_only=True):
    """What callers will see of a fault: ``outcomes`` of an attempt, what fails after retries, and notes in words.

    ``danger`` says why it wants a confirmation, empty for no reason.
    """

    outcomes: list[FaultOutcome]
    calls: list[FaultedCalls]
    notes: list[str]
    danger: str


class InjectResult(Shape, frozen=True, kw_only=True):
    """A fault that is in effect at ``acked`` sidecars, the connected ones that it concerns; null after a dry run.

    ``subject`` and ``summary`` are those that it has, or would have.
    """

    fault: FaultShape | None
    subject: str
    summary: str
    forecast: FaultForecast
    acked: int
    duration_ms: float


class ClearRequest(Shape, frozen=True, kw_only=True):
    """End these faults, or all of them when ``ids`` is empty; ``author`` is user@command."""

    ids: list[str] = msgspec.field(default_factory=list)
    author: str


class ClearResult(Shape, frozen=True, kw_only=True):
    """The faults that are over; ``acked`` sidecars have acknowledged that."""

    faults: list[FaultShape]
    acked: int
    duration_ms: float
