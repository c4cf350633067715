"""Which requests a sidecar tells of: in its access log, and to those who tap it.  Pure.

Both are switched while the mesh runs, by values that listeners look up; the listeners themselves are made once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshctl.spec.telemetry_schema import AccessLog, Telemetry

REPORTED_PER_SECOND = 100
"""How many requests a sidecar reports to taps in a second, and how many it logs where it logs a sample."""

ALL_SAMPLED = 1_000_000
"""A share in millionths: every request."""

LAST_STATUS = 999
"""Above every HTTP status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TapPlan:
    """Which requests a sidecar reports: those that fit the widest of what its taps want.

    ``inbound`` are those to its instances, ``outbound`` those of its service by host name (and what enters the mesh
    by it), ``upstreams`` the services to which those by their own listeners are reported. Statuses are inclusive, 0 is
    that of a request without an answer; ``minimum_ms`` is the shortest duration.
    """

    inbound: bool = False
    outbound: bool = False
    upstreams: tuple[str, ...] = ()
    lowest_status: int = 0
    highest_status: int = LAST_STATUS
    minimum_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryPlan:
    """What one sidecar tells: ``slow_ms`` is the duration from which a request is logged as slow.

    ``sampled`` is of how many of a million requests that bring no trace context it makes spans.
    """

    access_log: AccessLog = "sampled"
    slow_ms: int = 1000
    tap: TapPlan = field(default_factory=TapPlan)
    sampled: int = ALL_SAMPLED


def plan_telemetry(telemetry: Telemetry, tap: TapPlan | None, sampled: int) -> TelemetryPlan:
    """What the mesh's telemetry asks of a sidecar, and those who tap it; ``sampled`` is the share that load allows."""
    shares = {"adaptive": sampled, "all": ALL_SAMPLED, "off": 0}
    return TelemetryPlan(
        access_log=telemetry.access_log,
        slow_ms=round(telemetry.slow_request * 1000),
        tap=tap or TapPlan(),
        sampled=shares[telemetry.tracing],
    )
