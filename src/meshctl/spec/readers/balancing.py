"""Load balancing and health checks, read from their mappings.  Pure."""

from __future__ import annotations

from meshctl.spec.balancing_keys import HEALTH_CHECK
from meshctl.spec.policy_schema import HealthCheck, LoadBalancing
from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.shapes import Statuses
from meshctl.spec.source import ListNode, ScalarNode

_WRITTEN_CHECK = HealthCheck(expected=((200, 400),), explicit=True)
"""What a health check is whose path was written: then an answer such as 404 is a failure."""


def read_statuses(fields: Fields, name: str) -> tuple[tuple[int, int], ...]:
    """Status ranges from one scalar or a list of them, sorted; empty when there is none to be read."""
    node = fields.alternative(name)
    if node is None:
        return ()
    nodes = fields.items(name) if isinstance(node, ListNode) else (node,)
    ranges = [read_scalar(Statuses(), item, f"`{name}`", fields.report) for item in nodes]
    return tuple(sorted({found for found in ranges if isinstance(found, tuple)}))


def read_load_balancing(fields: Fields) -> LoadBalancing:
    """How a caller chooses among the instances of a version."""
    return LoadBalancing(
        algorithm=fields.choice("algorithm", LoadBalancing().algorithm), health_check=_read_health_check(fields)
    )


def _read_health_check(owner: Fields) -> HealthCheck | None:
    node = owner.alternative("health_check")
    if node is None:
        return HealthCheck()
    if isinstance(node, ScalarNode):
        return HealthCheck() if owner.boolean("health_check", True) else None
    fields = Fields(HEALTH_CHECK, node, owner.report, where=node.where)
    base = _WRITTEN_CHECK if fields.has("path") else HealthCheck()
    expected = base.expected
    if fields.has("expected_statuses"):
        expected = read_statuses(fields, "expected_statuses") or base.expected
    return HealthCheck(
        path=fields.text("path", base.path),
        interval=fields.duration("interval", base.interval),
        timeout=fields.duration("timeout", base.timeout),
        healthy_threshold=fields.integer("healthy_threshold", base.healthy_threshold),
        unhealthy_threshold=fields.integer("unhealthy_threshold", base.unhealthy_threshold),
        expected=expected,
        explicit=base.explicit,
    )
