"""The keys of the policies, under ``defaults`` and under each service.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.balancing_keys import LOAD_BALANCING
from meshctl.spec.limits_keys import LIMITS_KEY, OUTLIER_KEY, RATE_LIMITS_KEY
from meshctl.spec.policy_schema import Fallback, FallbackStrategy, Policies
from meshctl.spec.security_keys import SECURITY
from meshctl.spec.shapes import (
    UNBOUNDED,
    AnyOf,
    Boolean,
    Choice,
    Duration,
    Integer,
    Key,
    ListOf,
    Percentage,
    Table,
    Text,
)
from meshctl.spec.values import format_duration

_BUILT_IN = Policies()
_RETRY = _BUILT_IN.retry_policy
_BREAKER = _BUILT_IN.circuit_breaker
_FALLBACK = Fallback(strategy="static")
_COUNT = Integer(minimum=1, maximum=UNBOUNDED)
_STATUS = Integer(minimum=100, maximum=599)

RETRY_POLICY = Table(
    id="retry_policy",
    title="a retry policy",
    doc=(
        "How failed calls are tried again. A request that may not be repeated safely (POST, PATCH) is retried only "
        "when it never reached the service, unless it carries an `Idempotency-Key`."
    ),
    keys=(
        Key(
            name="max_attempts",
            shape=Integer(minimum=1, maximum=100),
            doc="Attempts in all: 3 means two retries, 1 means none.",
            default=_RETRY.max_attempts,
        ),
        Key(name="backoff", shape=Choice(values=("exponential",)), doc="How delays grow.", default=_RETRY.backoff),
        Key(
            name="base_interval",
            shape=Duration(),
            doc="The delay before the first retry.",
            default=format_duration(_RETRY.base_interval),
        ),
        Key(
            name="max_interval",
            shape=Duration(),
            doc="The longest delay.",
            default=format_duration(_RETRY.max_interval),
        ),
        Key(
            name="per_try_timeout",
            shape=Duration(),
            doc="How long each attempt may take. Default: no bound of its own.",
        ),
        Key(
            name="retriable_status_codes",
            shape=ListOf(item=_STATUS, maximum=50),
            doc="Answers that are tried again.",
            default=list(_RETRY.retriable_status_codes),
        ),
    ),
)

SLOW_CALL = Table(
    id="slow_call",
    title="`slow_call`",
    doc="Slow calls count as failures of the circuit breaker.",
    keys=(Key(name="threshold", shape=Duration(), doc="A call that takes longer is slow.", required=True),),
)

CIRCUIT_BREAKER = Table(
    id="circuit_breaker",
    title="a circuit breaker",
    doc="Closed, open after failures, half-open after `timeout`, closed again after successes.",
    keys=(
        Key(name="enabled", shape=Boolean(), doc="Whether there is one.", default=_BREAKER.enabled),
        Key(
            name="failure_threshold",
            shape=_COUNT,
            doc="Failures in a row that open it.",
            default=_BREAKER.failure_threshold,
        ),
        Key(
            name="success_threshold",
            shape=_COUNT,
            doc="Successes in a row that close it again.",
            default=_BREAKER.success_threshold,
        ),
        Key(
            name="timeout",
            shape=Duration(),
            doc="How long it stays open before it lets calls try again.",
            default=format_duration(_BREAKER.timeout),
        ),
        Key(
            name="failure_rate",
            shape=Percentage(minimum=1),
            doc="The share of failed calls that opens it, once there were `minimum_requests`. Default: not looked at.",
        ),
        Key(
            name="minimum_requests",
            shape=_COUNT,
            doc="The calls it takes before `failure_rate` is looked at.",
            default=_BREAKER.minimum_requests,
        ),
        Key(name="slow_call", shape=SLOW_CALL, doc="Slow calls as failures. Default: not looked at."),
    ),
)

FALLBACK = Table(
    id="fallback",
    title="a fallback",
    doc="What a caller gets when the service fails after all retries.",
    keys=(
        Key(
            name="strategy",
            shape=Choice(values=get_args(FallbackStrategy)),
            doc="`cached_response` repeats the last good answer to the same GET, `static` gives `status` and `body`.",
            required=True,
        ),
        Key(
            name="status",
            shape=Integer(minimum=200, maximum=599),
            doc="The status of the static answer.",
            default=_FALLBACK.status,
        ),
        Key(name="body", shape=Text(), doc="The body of the static answer.", default=_FALLBACK.body),
        Key(
            name="max_age",
            shape=Duration(),
            doc="How old a cached answer may be.",
            default=format_duration(_FALLBACK.max_age),
        ),
    ),
)

MONITORING = Table(
    id="monitoring",
    title="`monitoring`",
    doc="What is measured.",
    keys=(
        Key(
            name="metrics",
            shape=Boolean(),
            doc="Whether metrics are collected.",
            default=_BUILT_IN.monitoring.metrics,
        ),
    ),
)

POLICY_KEYS = (
    Key(
        name="timeout",
        shape=Duration(),
        doc="How long callers wait for a whole answer, retries included. Not for gRPC, whose clients send deadlines.",
        default=format_duration(_BUILT_IN.timeout),
    ),
    Key(name="retry_policy", shape=RETRY_POLICY, doc="How failed calls are tried again."),
    Key(name="circuit_breaker", shape=CIRCUIT_BREAKER, doc="When callers stop calling for a while."),
    Key(name="load_balancing", shape=LOAD_BALANCING, doc="How a caller chooses among the instances."),
    OUTLIER_KEY,
    LIMITS_KEY,
    RATE_LIMITS_KEY,
    Key(name="security", shape=SECURITY, doc="Encryption and authorization."),
    Key(
        name="fallback",
        shape=AnyOf(shapes=(Boolean(only=False), FALLBACK)),
        doc="What a caller gets when the service fails after all retries; `false` for none. Default: none.",
    ),
    Key(name="monitoring", shape=MONITORING, doc="What is measured."),
)
