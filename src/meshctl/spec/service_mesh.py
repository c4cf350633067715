"""The ``service_mesh`` block of the pattern's own notation -> the policy keys it stands for.  Pure.

Nodes keep their places, so that whatever is wrong is shown where it was written. Values that do not fit are reported
here and left out, so that nobody is told of them twice under another name.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.errors import Where
from meshctl.spec.merge import as_map, merge, pick
from meshctl.spec.policy_keys import POLICY_KEYS
from meshctl.spec.reader import Fields
from meshctl.spec.report import Report
from meshctl.spec.service_mesh_keys import SERVICE_MESH
from meshctl.spec.shapes import Table
from meshctl.spec.source import Entry, MapNode, Node, ScalarNode, make_map

BLOCK = "service_mesh"
_POLICY_NAMES = tuple(key.name for key in POLICY_KEYS)


def lay_policies(root: MapNode, service: MapNode | None, report: Report) -> MapNode:
    """The policy keys in force for a service (or for the defaults alone, with None), as one mapping.

    From below: the block at the top of the file and in ``defaults``, the keys of ``defaults``, the service's block,
    the service's keys. A block's ``enabled: false`` counts as keys of that block, and a service's
    ``enabled: true`` undoes that of the defaults.
    """
    defaults = as_map(root.get("defaults"), root)
    outer = merge(as_map(root.get(BLOCK), root), as_map(defaults.get(BLOCK), defaults))
    inner = as_map(service.get(BLOCK) if service else None, service or root)
    outer_fields = _open(outer, report)
    inner_fields = _open(inner, report)
    inner_enabled = inner_fields.boolean("enabled", None)
    enabled = outer_fields.boolean("enabled", True) or inner_enabled is True
    below = merge(_expand(outer_fields, report, enabled=enabled), pick(defaults, _POLICY_NAMES))
    if service is None:
        return below
    above = merge(_expand(inner_fields, report, enabled=inner_enabled is not False), pick(service, _POLICY_NAMES))
    return merge(below, above)


def check_block(owner: MapNode, report: Report) -> None:
    """Report a ``service_mesh`` that is no mapping at all; the rest is checked when it is read."""
    node = owner.get(BLOCK)
    if node is not None and not isinstance(node, MapNode):
        Fields(SERVICE_MESH, node, report, where=node.where)


def _open(block: MapNode, report: Report) -> Fields:
    return Fields(SERVICE_MESH, block, report, where=block.where)


def _expand(fields: Fields, report: Report, *, enabled: bool) -> MapNode:
    where = fields.place("enabled")
    parts: list[MapNode] = []
    if not enabled:
        parts += [
            _nest(("circuit_breaker", "enabled"), _scalar("false", where)),
            _nest(("retry_policy", "max_attempts"), _scalar("1", where)),
            _nest(("fallback",), _scalar("false", where)),
        ]
    thresholds = _part(fields, "thresholds", report)
    timeouts = _part(fields, "timeouts", report)
    monitoring = _part(fields, "monitoring", report)
    rows: tuple[tuple[Fields, str, object, tuple[str, ...]], ...] = (
        (thresholds, "failure_rate", thresholds.percentage("failure_rate", None), ("circuit_breaker", "failure_rate")),
        (
            thresholds,
            "response_time",
            thresholds.duration("response_time", None),
            ("circuit_breaker", "slow_call", "threshold"),
        ),
        (thresholds, "error_count", thresholds.integer("error_count", None), ("circuit_breaker", "failure_threshold")),
        (timeouts, "operation", timeouts.duration("operation", None), ("timeout", "request")),
        (timeouts, "recovery", timeouts.duration("recovery", None), ("circuit_breaker", "timeout")),
        (
            monitoring,
            "metrics_enabled",
            monitoring.boolean("metrics_enabled", None),
            ("monitoring", "metrics"),
        ),
        (
            monitoring,
            "health_check_interval",
            monitoring.duration("health_check_interval", None),
            ("load_balancing", "health_check", "interval"),
        ),
    )
    for part, name, value, path in rows:
        node = part.node(name)
        if value is not None and node is not None:
            parts.append(_nest(path, node))
    if enabled:
        parts += _expand_fallback(fields, report)
    result = make_map({}, fields.where)
    for tree in parts:
        result = merge(result, tree)
    return result


def _expand_fallback(fields: Fields, report: Report) -> list[MapNode]:
    if not fields.has("fallback"):
        return []
    part = _part(fields, "fallback", report)
    default = part.table.find("strategy")
    assert default is not None
    strategy = part.choice("strategy", str(default.default))
    if not part.boolean("enabled", True):
        return [_nest(("fallback",), _scalar("false", part.place("enabled")))]
    return [_nest(("fallback", "strategy"), _scalar(strategy, part.place("strategy")))]


def _part(fields: Fields, name: str, report: Report) -> Fields:
    key = SERVICE_MESH.find(name)
    assert key is not None
    assert isinstance(key.shape, Table)
    return Fields(key.shape, fields.node(name), report, where=fields.place(name))


def _scalar(text: str, where: Where) -> ScalarNode:
    return ScalarNode(text=text, where=where)


def _nest(path: tuple[str, ...], node: Node) -> MapNode:
    tree: Node = node
    for name in reversed(path):
        entries: Mapping[str, Entry] = {name: Entry(where=tree.where, node=tree)}
        tree = make_map(entries, tree.where)
    assert isinstance(tree, MapNode)
    return tree
