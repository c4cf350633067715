"""The policies of a service as frozen values: what ``Service.policies`` holds.  Pure.

Durations are seconds (float), percentages are numbers from 0 to 100; defaults have been filled in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from meshctl.errors import Where
from meshctl.spec.limits_schema import Limits, OutlierDetection, RateLimit

Algorithm = Literal["round_robin", "least_request", "random", "ring_hash", "maglev"]
FallbackStrategy = Literal["cached_response", "static"]
MtlsMode = Literal["strict", "permissive", "off"]
Verdict = Literal["allow", "deny"]
Forced = Literal["auto", "open", "closed"]
RetriableCondition = Literal["connect-failure", "reset", "refused-stream"]
RetriableGrpcCode = Literal["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"]


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
class Hash:
    """What ring_hash and maglev choose by: a header's value, a cookie's, or the source of the request.

    ``name`` is that of the header or the cookie. A client without the cookie is given one that lives for ``ttl``
    seconds, or as long as its session when that is None.
    """

    by: Literal["header", "cookie", "source"]
    name: str = ""
    ttl: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing:
    """How a caller chooses among the instances of a version.

    ``weights`` are by instance id, 1 for others; new instances get their full share after ``slow_start`` seconds;
    with less than ``panic_threshold`` percent of the instances healthy, callers send to all of them.
    """

    algorithm: Algorithm = "round_robin"
    hash: Hash | None = None
    weights: tuple[tuple[str, int], ...] = ()
    slow_start: float = 0.0
    panic_threshold: float = 0.0
    health_check: HealthCheck | None = field(default_factory=HealthCheck)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long callers wait. ``request`` is for a whole answer, retries included, and 0 for no bound of the mesh's own.

    ``idle`` bounds the silence on a stream (0 for none), ``connect`` the making of a connection; None stands for the
    built-in value, which depends on what is called.
    """

    request: float = 5.0
    idle: float | None = None
    connect: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """Retries under way are at most ``percent`` of the requests under way, or ``min_concurrency`` if that is more."""

    percent: float = 20.0
    min_concurrency: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """``max_attempts`` counts attempts in all (3 = two retries).

    ``other_instance`` sends a retry to an instance that has not been tried, where there is one.
    """

    max_attempts: int = 3
    backoff: Literal["exponential"] = "exponential"
    base_interval: float = 0.1
    max_interval: float = 1.0
    per_try_timeout: float | None = None
    retriable_status_codes: tuple[int, ...] = (502, 503, 504)
    retriable_conditions: tuple[RetriableCondition, ...] = get_args(RetriableCondition)
    retriable_grpc_codes: tuple[RetriableGrpcCode, ...] = ()
    other_instance: bool = True
    budget: RetryBudget = field(default_factory=RetryBudget)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowCall:
    """Calls slower than ``threshold`` seconds count as failures of the circuit breaker."""

    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """Closed -> open after ``failure_threshold`` failures in a row, or ``failure_rate`` percent of the last
    ``minimum_requests``; half-open after ``timeout`` seconds; closed after ``success_threshold`` successes.

    ``probe_timeout`` None goes by the service's own timeout; ``forced`` holds it open or closed, whatever happens.
    """

    enabled: bool = True
    failure_threshold: int = 5
    success_threshold: int = 2
    timeout: float = 30.0
    failure_rate: float | None = None
    minimum_requests: int = 100
    slow_call: SlowCall | None = None
    probe_timeout: float | None = None
    forced: Forced = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What a caller gets when the upstream fails after all retries. The bounds hold for each listener of a caller."""

    strategy: FallbackStrategy
    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"
    max_age: float = 300.0
    max_entries: int = 1000
    max_bytes: int = 4_194_304
    max_body_bytes: int = 262_144
    share_credentials: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRule:
    """What a header must be like; exactly one of the three is given.

    ``exact`` is its whole value; ``regex`` (of RE2) must match the whole value; ``present`` asks only whether it is
    there. ``name`` is in lower case.
    """

    name: str
    exact: str | None = None
    regex: str | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthzRule:
    """Whom a service admits or refuses, and for what; a condition that is empty holds for every request.

    ``sources`` are names of services, ``gateway`` or ``anonymous``; ``paths`` are exact, or prefixes that end with
    ``*``. All given conditions hold at once, and of each one of its values.
    """

    name: str
    action: Verdict
    sources: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    headers: tuple[HeaderRule, ...] = ()
    where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """mTLS between sidecars and authorization by identity.

    ``default`` decides where no rule allows anything; with ``audit`` nobody is refused, and who would be is logged.
    """

    mtls: MtlsMode = "strict"
    authz_policy: Literal["rbac", "none"] = "rbac"
    default: Verdict = "allow"
    audit: bool = False
    rules: tuple[AuthzRule, ...] = ()
    default_where: Where | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """Whether metrics of the service are collected."""

    metrics: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies of one service: those of ``defaults`` with the service's own laid over them, key by key."""

    timeout: Timeouts = field(default_factory=Timeouts)
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    circuit_breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    load_balancing: LoadBalancing = field(default_factory=LoadBalancing)
    outlier_detection: OutlierDetection | None = None
    limits: Limits = field(default_factory=Limits)
    rate_limits: tuple[RateLimit, ...] = ()
    security: Security = field(default_factory=Security)
    fallback: Fallback | None = None
    monitoring: Monitoring = field(default_factory=Monitoring)
