"""Trees laid over each other: files over files, a service's policies over the defaults, a version over its service.

Pure.  Mappings are merged deeply; scalars and lists are replaced; a null or ``!reset`` takes away what lies below.
Keys that exclude each other replace each other: ``readiness: {tcp: true}`` over ``{http: /ready}`` is a TCP check.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.spec.source import Entry, MapNode, Node, ScalarNode, is_null, make_map

_CHECKS = frozenset({"http", "tcp", "exec"})
_SHORT_FOR = {"timeout": "request"}
# A duration stands for one key of the mapping: `5s` over `{request: 3s, idle: 1m}` leaves the idle timeout.

_RIVALS = {
    "readiness": _CHECKS,
    "liveness": _CHECKS,
    "hash": frozenset({"header", "cookie", "source"}),
}


def merge(base: MapNode, over: MapNode) -> MapNode:
    """Lay ``over`` on ``base``. Values keep the places they were written at; a merged mapping that of ``base``."""
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        below = entries.get(key)
        if below is None:
            entries[key] = entry
        elif is_null(entry.node):
            del entries[key]
        else:
            entries[key] = _merge_entry(key, below, entry)
    return make_map(entries, base.where if base.entries else over.where)


def _merge_entry(key: str, below: Entry, entry: Entry) -> Entry:
    if key in _SHORT_FOR and isinstance(below.node, MapNode) != isinstance(entry.node, MapNode):
        below, entry = _write_out(below, _SHORT_FOR[key]), _write_out(entry, _SHORT_FOR[key])
    if not isinstance(below.node, MapNode) or not isinstance(entry.node, MapNode):
        return entry
    base = below.node
    rivals = _RIVALS.get(key, frozenset())
    if rivals & entry.node.entries.keys():
        base = pick(base, base.entries.keys() - rivals)
    return Entry(where=below.where, node=merge(base, entry.node))


def _write_out(entry: Entry, name: str) -> Entry:
    node = entry.node
    if not isinstance(node, ScalarNode) or node.broken:
        return entry
    inner = Entry(where=node.where, node=node)
    return Entry(where=entry.where, node=make_map({name: inner}, node.where))


def pick(node: MapNode, keys: Iterable[str]) -> MapNode:
    """The part of a mapping with these keys only, in the mapping's order."""
    wanted = frozenset(keys)
    return make_map({key: entry for key, entry in node.entries.items() if key in wanted}, node.where)


def as_map(node: Node | None, fallback: MapNode) -> MapNode:
    """The node if it is a mapping, else an empty mapping at the place of ``fallback``."""
    return node if isinstance(node, MapNode) else make_map({}, fallback.where)
