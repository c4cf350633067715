"""The JSON shapes of faults that are not made of requests: of processes, certificates, ways between services.  Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshctl.wire.models import Shape

DisturbanceKind = Literal["kill", "exit", "pause", "cpu", "partition", "cert-expired", "latency"]

DEFAULT_DURATION = 300.0
"""Seconds that one lasts unless something else is asked for."""


class DisturbRequest(Shape, frozen=True, kw_only=True):
    """Disturb a service, or one of its instances.

    ``source`` is the other service of a ``partition``, the caller that ``latency`` is for. ``percent`` is the share of
    its time that ``cpu`` takes. ``delay_ms`` is that of ``latency``, each way, and spreads evenly over plus and minus
    ``jitter_ms``. ``duration`` is in seconds and means nothing to ``kill`` and ``exit``, which are over at once.
    ``name`` is the id that the fault is to have.
    """

    kind: DisturbanceKind
    target: str
    source: str = ""
    one_way: bool = False
    percent: float = 100.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    duration: float = DEFAULT_DURATION
    name: str = ""
    author: str
    reason: str = ""
    force: bool = False


class DisturbResult(Shape, frozen=True, kw_only=True):
    """A disturbance that is in effect, or is over: ``id`` is empty and ``ends_at`` null for what needs no ending.

    ``instances`` are those that it was made on; ``acked`` is how many sidecars acknowledged it; ``note`` says what
    comes of it.
    """

    id: str
    kind: DisturbanceKind
    subject: str
    message: str
    instances: list[str] = msgspec.field(default_factory=list)
    ends_at: float | None = None
    acked: int = 0
    note: str = ""
    duration_ms: float = 0.0
