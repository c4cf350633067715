"""The policies of a service as frozen values: what ``Service.policies`` holds.  Pure.

Durations are seconds (float), percentages are numbers from 0 to 100; defaults have been filled in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Algorithm = Literal["round_robin", "least_request", "random", "ring_hash", "maglev"]
FallbackStrategy = Literal["cached_response", "static"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Active health check made by Envoy. ``explicit`` is False for the built-in one, which no file asked for."""

    path: str = "/health"
    interval: float = 10.0
    timeout: float = 3.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 2
    expected: tuple[tuple[int, int], ...] = ((200, 500),)
    explicit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing:
    """How a caller chooses among the instances of a version."""

    algorithm: Algorithm = "round_robin"
    health_check: HealthCheck | None = field(default_factory=HealthCheck)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """``max_attempts`` counts attempts in all (3 = two retries)."""

    max_attempts: int = 3
    backoff: Literal["exponential"] = "exponential"
    base_interval: float = 0.1
    max_interval: float = 1.0
    per_try_timeout: float | None = None
    retriable_status_codes: tuple[int, ...] = (502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowCall:
    """Calls slower than ``threshold`` seconds count as failures of the circuit breaker."""

    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """Closed -> open after ``failure_threshold`` failures in a row, or ``failure_rate`` percent of
    ``minimum_requests``; half-open after ``timeout`` seconds; closed after ``success_threshold`` successes.
    """

    enabled: bool = True
    failure_threshold: int = 5
    success_threshold: int = 2
    timeout: float = 30.0
    failure_rate: float | None = None
    minimum_requests: int = 100
    slow_call: SlowCall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What a caller gets when the upstream fails after all retries."""

    strategy: FallbackStrategy
    status: int = 200
    body: str = ""
    max_age: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """mTLS between sidecars and authorization by identity."""

    mtls: bool = True
    authz_policy: Literal["rbac", "none"] = "rbac"


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """Whether metrics of the service are collected."""

    metrics: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies of one service: those of ``defaults`` with the service's own laid over them, key by key."""

    timeout: float = 5.0
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    circuit_breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    load_balancing: LoadBalancing = field(default_factory=LoadBalancing)
    security: Security = field(default_factory=Security)
    fallback: Fallback | None = None
    monitoring: Monitoring = field(default_factory=Monitoring)
