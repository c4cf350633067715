"""The policies of a service or of the defaults, read from one mapping in which all layers are merged.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from meshctl.spec.balancing_keys import LOAD_BALANCING
from meshctl.spec.limits_keys import LIMITS
from meshctl.spec.policy_keys import (
    CIRCUIT_BREAKER,
    FALLBACK,
    MONITORING,
    POLICY_KEYS,
    RETRY_POLICY,
    SLOW_CALL,
)
from meshctl.spec.policy_schema import (
    CircuitBreaker,
    Fallback,
    FallbackStrategy,
    Monitoring,
    Policies,
    RetryPolicy,
    SlowCall,
)
from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.readers.balancing import read_load_balancing
from meshctl.spec.readers.limits import read_limits, read_outlier_detection, read_rate_limits
from meshctl.spec.readers.security import read_security
from meshctl.spec.report import Report
from meshctl.spec.security_keys import SECURITY
from meshctl.spec.shapes import Integer, Table
from meshctl.spec.source import MapNode, ScalarNode

T = TypeVar("T")

_POLICIES = Table(id="policies", title="the policies", doc="", keys=POLICY_KEYS)


def read_policies(node: MapNode, report: Report) -> Policies:
    """The policies that a merged mapping of policy keys stands for; built-in values for what it does not hold."""
    fields = Fields(_POLICIES, node, report, where=node.where)
    base = Policies()
    return Policies(
        timeout=fields.duration("timeout", base.timeout),
        retry_policy=_read_part(fields, "retry_policy", RETRY_POLICY, _read_retry),
        circuit_breaker=_read_part(fields, "circuit_breaker", CIRCUIT_BREAKER, _read_breaker),
        load_balancing=_read_part(fields, "load_balancing", LOAD_BALANCING, read_load_balancing),
        outlier_detection=read_outlier_detection(fields),
        limits=_read_part(fields, "limits", LIMITS, read_limits),
        rate_limits=read_rate_limits(fields),
        security=_read_part(fields, "security", SECURITY, read_security),
        fallback=_read_fallback(fields, report),
        monitoring=_read_part(fields, "monitoring", MONITORING, _read_monitoring),
    )


def _read_part(fields: Fields, name: str, table: Table, read: Callable[[Fields], T]) -> T:
    return read(Fields(table, fields.node(name), fields.report, where=fields.place(name), label=f"`{name}`"))


def _read_retry(fields: Fields) -> RetryPolicy:
    base = RetryPolicy()
    codes = base.retriable_status_codes
    if fields.has("retriable_status_codes"):
        shape = Integer(minimum=100, maximum=599)
        label = "an item of `retriable_status_codes`"
        found = [read_scalar(shape, item, label, fields.report) for item in fields.items("retriable_status_codes")]
        codes = tuple(dict.fromkeys(code for code in found if isinstance(code, int)))
    policy = RetryPolicy(
        max_attempts=fields.integer("max_attempts", base.max_attempts),
        backoff=fields.choice("backoff", base.backoff),
        base_interval=fields.duration("base_interval", base.base_interval),
        max_interval=fields.duration("max_interval", base.max_interval),
        per_try_timeout=fields.duration("per_try_timeout", None),
        retriable_status_codes=codes,
    )
    if policy.max_interval < policy.base_interval:
        if fields.has("max_interval"):
            message = "`max_interval` is shorter than `base_interval`"
            fields.report.add("interval-order", message, fields.place("max_interval"), "make it at least as long")
        # A base longer than the built-in maximum lifts the maximum.
        return replace(policy, max_interval=policy.base_interval)
    return policy


def _read_breaker(fields: Fields) -> CircuitBreaker:
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
    )


def _read_fallback(owner: Fields, report: Report) -> Fallback | None:
    node = owner.alternative("fallback")
    if node is None:
        return None
    if isinstance(node, ScalarNode):
        owner.boolean("fallback", False)
        return None
    fields = Fields(FALLBACK, node, report, where=owner.key_place("fallback"))
    strategy: FallbackStrategy = "static"
    base = Fallback(strategy=fields.choice("strategy", strategy))
    return Fallback(
        strategy=base.strategy,
        status=fields.integer("status", base.status),
        body=fields.text("body", base.body),
        max_age=fields.duration("max_age", base.max_age),
    )


def _read_monitoring(fields: Fields) -> Monitoring:
    return Monitoring(metrics=fields.boolean("metrics", Monitoring().metrics))
