"""The policies of a service or of the defaults, read from one mapping in which all layers are merged.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from meshctl.spec.balancing_keys import LOAD_BALANCING
from meshctl.spec.call_keys import RETRY_POLICY
from meshctl.spec.circuit_breaker_keys import CIRCUIT_BREAKER
from meshctl.spec.limits_keys import LIMITS
from meshctl.spec.policy_keys import (
    MONITORING,
    POLICY_KEYS,
)
from meshctl.spec.policy_schema import (
    Monitoring,
    Policies,
)
from meshctl.spec.reader import Fields
from meshctl.spec.readers.balancing import read_load_balancing
from meshctl.spec.readers.calls import read_retry, read_timeouts
from meshctl.spec.readers.circuit_breaker import read_circuit_breaker
from meshctl.spec.readers.fallback import read_fallback
from meshctl.spec.readers.limits import read_limits, read_outlier_detection, read_rate_limits
from meshctl.spec.readers.security import read_security
from meshctl.spec.report import Report
from meshctl.spec.security_keys import SECURITY
from meshctl.spec.shapes import Table
from meshctl.spec.source import MapNode

T = TypeVar("T")

_POLICIES = Table(id="policies", title="the policies", doc="", keys=POLICY_KEYS)


def read_policies(node: MapNode, report: Report) -> Policies:
    """The policies that a merged mapping of policy keys stands for; built-in values for what it does not hold."""
    fields = Fields(_POLICIES, node, report, where=node.where)
    return Policies(
        timeout=read_timeouts(fields),
        retry_policy=_read_part(fields, "retry_policy", RETRY_POLICY, read_retry),
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


def _read_monitoring(fields: Fields) -> Monitoring:
    return Monitoring(metrics=fields.boolean("metrics", Monitoring().metrics))
