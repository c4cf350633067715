"""The keys of the policies, under ``defaults`` and under each service.  Pure declarations; see ``keys``."""

from __future__ import annotations

from meshctl.spec.balancing_keys import LOAD_BALANCING
from meshctl.spec.circuit_breaker_keys import CIRCUIT_BREAKER
from meshctl.spec.fallback_keys import FALLBACK
from meshctl.spec.limits_keys import LIMITS_KEY, OUTLIER_KEY, RATE_LIMITS_KEY
from meshctl.spec.policy_schema import Policies
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
    Table,
)
from meshctl.spec.values import format_duration

_BUILT_IN = Policies()
_RETRY = _BUILT_IN.retry_policy
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
