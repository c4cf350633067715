"""Limits, rate limits and outlier detection as frozen values: parts of ``policy_schema.Policies``.  Pure.

Durations are seconds (float), percentages are numbers from 0 to 100.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_RATE_LIMITS = 8
"""Rate limits of one service: each has a filter of its own, and listeners hold so many from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """An instance that fails ``consecutive_failures`` times in a row gets no requests for ``ejection_time``.

    ``interval`` is how often ejected instances are looked at, so that an ejection may last so much longer;
    ``max_ejection`` is the share of the instances that may be out at one time.
    """

    consecutive_failures: int = 5
    interval: float = 1.0
    ejection_time: float = 30.0
    max_ejection: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one caller may have under way at once (None: no limit), and what an instance takes at all.

    The first four hold at each caller and for each version; ``max_request_bytes`` and ``adaptive_concurrency`` at
    each instance.
    """

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None
    max_request_bytes: int | None = None
    adaptive_concurrency: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket at each instance: ``requests`` tokens come in ``per`` seconds, and it holds at most ``burst``.

    It is for requests from ``callers`` (services, or ``gateway``), on ``path`` (``path_exact`` or it is a beginning in
    whole segments) and with one of ``methods``; an empty one of these does not look at it. ``header`` gives every
    value of that header a bucket, ``each_caller`` every caller.
    """

    name: str
    requests: int
    per: float = 1.0
    burst: int
    callers: tuple[str, ...] = ()
    path: str = ""
    path_exact: bool = False
    methods: tuple[str, ...] = ()
    header: str = ""
    each_caller: bool = False
