"""Load balancing and health checks, read from their mappings.  Pure."""

from __future__ import annotations

from meshctl.spec.balancing_keys import HASH, HASH_COOKIE, HEALTH_CHECK
from meshctl.spec.policy_schema import Algorithm, Hash, HealthCheck, LoadBalancing
from meshctl.spec.reader import Fields, map_shape, read_scalar
from meshctl.spec.report import join_names, quote
from meshctl.spec.shapes import Integer, Shape, Statuses
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


HASHING: frozenset[Algorithm] = frozenset({"ring_hash", "maglev"})
"""The algorithms that choose by a hash."""

SLOW_STARTING: frozenset[Algorithm] = frozenset({"round_robin", "least_request"})
"""The algorithms that let new instances start slowly."""


def read_load_balancing(fields: Fields) -> LoadBalancing:
    """How a caller chooses among the instances of a version."""
    base = LoadBalancing()
    found = LoadBalancing(
        algorithm=fields.choice("algorithm", base.algorithm),
        hash=_read_hash(fields),
        weights=_read_weights(fields),
        slow_start=fields.duration("slow_start", base.slow_start),
        panic_threshold=fields.percentage("panic_threshold", base.panic_threshold),
        health_check=_read_health_check(fields),
    )
    _check_algorithm(found, fields)
    return found


def _read_hash(owner: Fields) -> Hash | None:
    if not owner.has("hash"):
        return None
    where = owner.key_place("hash")
    fields = Fields(HASH, owner.node("hash"), owner.report, where=where, label="`hash`")
    written = [name for name in HASH.names if fields.has(name)]
    if len(written) > 1 or not written:
        message = f"`hash` takes one of {', '.join(HASH.names)}, not {' and '.join(written) or 'none'}"
        owner.report.add("conflicting-keys", message, where, "write one of them, such as `hash: {header: x-user}`")
    if fields.has("cookie"):
        cookie = Fields(HASH_COOKIE, fields.node("cookie"), owner.report, where=fields.key_place("cookie"))
        return Hash(by="cookie", name=cookie.text("name", ""), ttl=cookie.duration("ttl", None))
    if fields.boolean("source", False):
        return Hash(by="source")
    return Hash(by="header", name=fields.text("header", "").lower())


def _read_weights(fields: Fields) -> tuple[tuple[str, int], ...]:
    weights: dict[str, int] = {}
    for name, entry in fields.named("weights").items():
        shape = map_shape(_shape_of(fields, "weights")).value
        assert isinstance(shape, Integer)
        weight = read_scalar(shape, entry.node, f"the weight of {quote(name)}", fields.report)
        if isinstance(weight, int):
            weights[name] = weight
    return tuple(sorted(weights.items()))


def _shape_of(fields: Fields, name: str) -> Shape:
    key = fields.table.find(name)
    assert key is not None
    return key.shape


def _check_algorithm(found: LoadBalancing, fields: Fields) -> None:
    """Report what the algorithm lacks, and what has no effect beside it."""
    if found.algorithm in HASHING:
        if found.hash is None:
            message = f"`{found.algorithm}` needs the key `hash`, which says what it chooses by"
            hint = "add `hash: {header: x-user}`, `hash: {cookie: {name: session}}` or `hash: {source: true}`"
            fields.report.add("missing-key", message, fields.place("algorithm"), hint)
    elif fields.has("hash"):
        _report_no_effect(fields, "hash", found.algorithm, HASHING)
    if found.slow_start and found.algorithm not in SLOW_STARTING:
        _report_no_effect(fields, "slow_start", found.algorithm, SLOW_STARTING)
    if found.weights and found.algorithm == "random":
        _report_no_effect(fields, "weights", found.algorithm, HASHING | SLOW_STARTING)


def _report_no_effect(fields: Fields, name: str, algorithm: Algorithm, others: frozenset[Algorithm]) -> None:
    message = f"{quote(name)} has no effect with the algorithm `{algorithm}`"
    choices = join_names((f"`{other}`" for other in sorted(others)), "or")
    hint = f"choose {choices}, or write an empty `{name}:` to take away that of the defaults"
    fields.report.add("no-effect", message, fields.key_place(name), hint)


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
