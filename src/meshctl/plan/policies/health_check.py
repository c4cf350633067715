"""Active health checks: made by each instance's own sidecar, and by callers only of addresses outside the mesh.  Pure.

One check per instance, not one per caller and instance: the result reaches every caller as the health of the endpoint
(see docs/adr/0005-one-health-answer.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshctl.spec.policy_schema import HealthCheck
from meshctl.spec.schema import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckPlan:
    """A check; ``path`` and ``expected`` (half-open status ranges) are for kind ``http``. Seconds."""

    kind: Literal["http", "tcp"]
    path: str = ""
    expected: tuple[tuple[int, int], ...] = ()
    interval: float
    timeout: float
    healthy_threshold: int
    unhealthy_threshold: int


def plan_health_check(service: Service) -> HealthCheckPlan | None:
    """How the instances of a service are checked; None when its health check is off.

    An address outside the mesh is checked only when the file asks for it.
    """
    check: HealthCheck | None = service.policies.load_balancing.health_check
    if check is None or (service.address is not None and not check.explicit):
        return None
    http = service.protocol == "http"
    return HealthCheckPlan(
        kind="http" if http else "tcp",
        path=check.path if http else "",
        expected=check.expected if http else (),
        interval=check.interval,
        timeout=min(check.timeout, check.interval),
        healthy_threshold=check.healthy_threshold,
        unhealthy_threshold=check.unhealthy_threshold,
    )
