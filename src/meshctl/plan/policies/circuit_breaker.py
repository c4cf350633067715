"""Circuit breakers: when a caller stops calling a service for a while.  Pure.

This is the pattern's own machine, one for each caller and target; what Envoy calls circuit breakers are limits. It
stands before retries, so that a request counts once, whatever it took.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.policy_schema import CircuitBreaker, Forced
from meshctl.spec.schema import Service

PROBE_MARGIN = 1.0
"""Seconds that a probe may take beyond the service's own timeout, which is to be its answer first."""

_PROBE_TIMEOUT = 10.0
# Where the mesh sets no timeout (gRPC, `timeout: 0s`).


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerPlan:
    """The machine of one target. Seconds; ``failure_rate`` in percent and ``slow_call`` are 0 where not looked at.

    ``probe_timeout`` is how long a request that was let through while half-open keeps its place.
    """

    target: str
    failure_threshold: int
    success_threshold: int
    timeout: float
    failure_rate: float = 0.0
    minimum_requests: int = 100
    slow_call: float = 0.0
    probe_timeout: float
    grpc: bool = False
    forced: Forced = "auto"


def plan_circuit_breaker(service: Service) -> CircuitBreakerPlan | None:
    """The breaker that every caller of a service has; None where it is off, or where there are no requests to count."""
    policy: CircuitBreaker = service.policies.circuit_breaker
    if service.protocol == "tcp" or not (policy.enabled or policy.forced != "auto"):
        return None
    own = service.policies.timeout.request if service.protocol == "http" else 0.0
    return CircuitBreakerPlan(
        target=service.name,
        failure_threshold=policy.failure_threshold,
        success_threshold=policy.success_threshold,
        timeout=policy.timeout,
        failure_rate=policy.failure_rate or 0.0,
        minimum_requests=policy.minimum_requests,
        slow_call=0.0 if policy.slow_call is None else policy.slow_call.threshold,
        probe_timeout=policy.probe_timeout or (own + PROBE_MARGIN if own else _PROBE_TIMEOUT),
        grpc=service.protocol == "grpc",
        forced=policy.forced,
    )
