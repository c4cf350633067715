"""The policies of a service or of the defaults, read from one mapping in which all layers are merged.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from meshctl.spec.balancing_keys import LOAD_BALANCING
from meshctl.spec.circuit_breaker_keys import CIRCUIT_BREAKER
from meshctl.spec.limits_keys import LIMITS
from meshctl.spec.policy_keys import (
    MONITORING,
    POLICY_KEYS,
    RETRY_POLICY,
)
from meshctl.spec.policy_schema import (
    Monitoring,
    Policies,
    RetryPolicy,
)
from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.readers.balancing import read_load_balancing
from meshctl.spec.readers.circuit_breaker import read_circuit_breaker
from meshctl.spec.readers.fallback import read_fallback
from meshctl.spec.readers.limits import read_limits, read_outlier_detection, read_rate_limits
from meshctl.spec.readers.security import read_security
from meshctl.spec.report import Report
from meshctl.spec.security_keys import SECURITY
from meshctl.spec.shapes import Integer, Table
from meshctl.spec.source import MapNode

T = TypeVar("T")

_POLICIES = Table(id="policies", title="the policies", doc="", keys=POLICY_KEYS)


def read_policies(node: MapNode, report: Report) -> Policies:
    """The policies that a merged mapping of policy keys stands for; built-in values for what it does not hold."""
    fields = Fields(_POLICIES, node, report, where=node.where)
    base = Policies()
    return Policies(
        timeout=fields.duration("timeout", base.timeout),
        retry_policy=_read_part(fields, "retry_policy", RETRY_POLICY, _read_retry),
        circuit_breaker=_read_part(fields, "circuit_breaker", CIRCUIT_BREAKER, read_circuit_breaker),
        load_balancing=_read_part(fields, "load_balancing", LOAD_BALANCING, read_load_balancing),
        outlier_detection=read_outlier_detection(fields),
        limits=_read_part(fields, "limits", LIMITS, read_limits),
        rate_limits=read_rate_limits(fields),
        security=_read_part(fields, "security", SECURITY, read_security),
        fallback=read_fallback(fields, report),
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


def _read_monitoring(fields: Fields) -> Monitoring:
    return Monitoring(metrics=fields.boolean("metrics", Monitoring().metrics))
