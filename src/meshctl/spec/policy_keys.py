"""The keys of the policies, under ``defaults`` and under each service.  Pure declarations; see ``keys``."""

from __future__ import annotations

from meshctl.spec.balancing_keys import LOAD_BALANCING
from meshctl.spec.call_keys import RETRY_POLICY, TIMEOUTS
from meshctl.spec.circuit_breaker_keys import CIRCUIT_BREAKER
from meshctl.spec.fallback_keys import FALLBACK
from meshctl.spec.limits_keys import LIMITS_KEY, OUTLIER_KEY, RATE_LIMITS_KEY
from meshctl.spec.policy_schema import Policies
from meshctl.spec.security_keys import SECURITY
from meshctl.spec.shapes import (
    AnyOf,
    Boolean,
    Duration,
    Key,
    Table,
)
from meshctl.spec.values import format_duration

_BUILT_IN = Policies()

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
        shape=AnyOf(shapes=(Duration(zero=True), TIMEOUTS)),
        doc="How long callers wait. A duration is short for `request`.",
        default=format_duration(_BUILT_IN.timeout.request),
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
