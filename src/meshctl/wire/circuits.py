"""The JSON shapes of the calls about circuit breakers.  Pure; see ``models``."""

from __future__ import annotations

from typing import Literal

from meshctl.wire.models import Shape

CircuitState = Literal["closed", "open", "half_open"]


class CircuitShape(Shape, frozen=True, kw_only=True):
    """The breaker of one caller and one service.

    ``failures`` count in a row while it is closed, ``successes`` while it is half-open. ``window_failed`` of the last
    ``window_calls`` calls failed, where a failure rate is looked at. ``retry_in`` is in how many seconds an open one
    lets calls try again, null for others. ``failed`` and ``rejected`` count calls since the mesh was started.
    ``reason`` says why it last changed, at ``changed_at``: null when it never did.
    """

    caller: str
    service: str
    state: CircuitState
    forced: Literal["auto", "open", "closed"]
    failures: int
    failure_threshold: int
    successes: int
    success_threshold: int
    window_calls: int
    window_failed: int
    retry_in: float | None
    failed: int
    rejected: int
    changed_at: float | None
    reason: str


class CircuitList(Shape, frozen=True, kw_only=True):
    """The breakers of the mesh, by caller and service."""

    circuits: list[CircuitShape]


class ForceRequest(Shape, frozen=True, kw_only=True):
    """Hold the circuits to a service open or closed at all callers, or let them work; ``author`` is user@command."""

    service: str
    forced: Literal["auto", "open", "closed"]
    author: str
    reason: str
