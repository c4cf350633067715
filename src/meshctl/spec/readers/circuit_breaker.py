"""Circuit breakers, read from their mapping.  Pure."""

from __future__ import annotations

from meshctl.spec.circuit_breaker_keys import SLOW_CALL
from meshctl.spec.policy_schema import CircuitBreaker, SlowCall
from meshctl.spec.reader import Fields


def read_circuit_breaker(fields: Fields) -> CircuitBreaker:
    """When callers stop calling for a while."""
    base = CircuitBreaker()
    slow = None
    if fields.has("slow_call"):
        part = Fields(SLOW_CALL, fields.node("slow_call"), fields.report, where=fields.key_place("slow_call"))
        threshold = part.duration("threshold", None)
        slow = None if threshold is None else SlowCall(threshold=threshold)
    return CircuitBreaker(
        enabled=fields.boolean("enabled", base.enabled),
        failure_threshold=fields.integer("failure_threshold", base.failure_threshold),
        success_threshold=fields.integer("success_threshold", base.success_threshold),
        timeout=fields.duration("timeout", base.timeout),
        failure_rate=fields.percentage("failure_rate", base.failure_rate),
        minimum_requests=fields.integer("minimum_requests", base.minimum_requests),
        slow_call=slow,
        probe_timeout=fields.duration("probe_timeout", base.probe_timeout),
        forced=fields.choice("forced", base.forced),
    )
