"""The keys of the ``service_mesh`` block, the pattern's own notation of policies.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.policy_schema import FallbackStrategy
from meshctl.spec.shapes import COUNT, Boolean, Choice, Duration, Key, Percentage, Table

_THRESHOLDS = Table(
    id="service_mesh_thresholds",
    title="`thresholds`",
    doc="When the circuit breaker opens.",
    keys=(
        Key(name="failure_rate", shape=Percentage(minimum=1), doc="Same as `circuit_breaker.failure_rate`."),
        Key(name="response_time", shape=Duration(), doc="Same as `circuit_breaker.slow_call.threshold`."),
        Key(name="error_count", shape=COUNT, doc="Same as `circuit_breaker.failure_threshold`."),
    ),
)

_TIMEOUTS = Table(
    id="service_mesh_timeouts",
    title="`timeouts`",
    doc="How long calls and recovery take.",
    keys=(
        Key(name="operation", shape=Duration(), doc="Same as `timeout.request`."),
        Key(name="recovery", shape=Duration(), doc="Same as `circuit_breaker.timeout`."),
    ),
)

_BLOCK_FALLBACK = Table(
    id="service_mesh_fallback",
    title="`fallback`",
    doc="What a caller gets when the service fails.",
    keys=(
        Key(name="enabled", shape=Boolean(), doc="Whether there is one.", default=True),
        Key(
            name="strategy",
            shape=Choice(values=get_args(FallbackStrategy)),
            doc="Same as `fallback.strategy`.",
            default="cached_response",
        ),
    ),
)

_BLOCK_MONITORING = Table(
    id="service_mesh_monitoring",
    title="`monitoring`",
    doc="What is measured and checked.",
    keys=(
        Key(name="metrics_enabled", shape=Boolean(), doc="Same as `monitoring.metrics`."),
        Key(
            name="health_check_interval",
            shape=Duration(),
            doc="Same as `load_balancing.health_check.interval`.",
        ),
    ),
)

SERVICE_MESH = Table(
    id="service_mesh",
    title="`service_mesh`",
    doc="The policies in the notation of the service-mesh pattern. Keys written beside the block win over it.",
    keys=(
        Key(
            name="enabled",
            shape=Boolean(),
            doc="`false`: no circuit breaker, one attempt, no fallback.",
            default=True,
        ),
        Key(name="thresholds", shape=_THRESHOLDS, doc="When the circuit breaker opens."),
        Key(name="timeouts", shape=_TIMEOUTS, doc="How long calls and recovery take."),
        Key(name="fallback", shape=_BLOCK_FALLBACK, doc="What a caller gets when the service fails."),
        Key(name="monitoring", shape=_BLOCK_MONITORING, doc="What is measured and checked."),
    ),
)
