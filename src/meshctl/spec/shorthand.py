"""Short notations -> long ones, before files are merged, so that a list in one and a mapping in another merge by name.

Pure. ``env`` lists of ``NAME=value`` and ``depends_on`` lists become mappings, ``restart: {policy: ...}`` becomes
``{mode: ...}``; everything else stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshctl.spec.report import Report, quote
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ScalarNode, make_map

Rewrite = Callable[[Node, Report], Node]


def expand_shorthand(root: MapNode, report: Report) -> MapNode:
    """One file's tree with the short notations written out."""
    return _at(root, "services", lambda node, _: _each(node, lambda item: _expand_service(item, report)), report)


def _expand_service(node: Node, report: Report) -> Node:
    if not isinstance(node, MapNode):
        return node
    node = _at(node, "env", _expand_env, report)
    node = _at(node, "restart", _rename_policy, report)
    node = _at(node, "depends_on", _expand_depends_on, report)
    return _at(
        node, "versions", lambda versions, _: _each(versions, lambda item: _expand_version(item, report)), report
    )


def _expand_version(node: Node, report: Report) -> Node:
    if not isinstance(node, MapNode):
        return node
    return _at(_at(node, "env", _expand_env, report), "restart", _rename_policy, report)


def _rename_policy(node: Node, _: Report) -> Node:
    if not isinstance(node, MapNode) or "policy" not in node.entries or "mode" in node.entries:
        return node
    return make_map({"mode" if key == "policy" else key: entry for key, entry in node.entries.items()}, node.where)


def _expand_env(node: Node, report: Report) -> Node:
    if not isinstance(node, ListNode):
        return node
    entries: dict[str, Entry] = {}
    for item in node.items:
        if isinstance(item, ScalarNode) and item.broken:
            continue
        if not isinstance(item, ScalarNode) or "=" not in item.text.lstrip("="):
            hint = "write `NAME=value`; to hand on a variable, `NAME=${NAME}`"
            report.add("bad-env", "an item of `env` must be `NAME=value`", item.where, hint)
            continue
        name, _, value = item.text.partition("=")
        if name in entries:
            message = f"the variable {quote(name)} is there twice"
            report.add("duplicate-key", message, item.where, "remove one of them")
        entries[name] = Entry(where=item.where, node=replace(item, text=value, plain=False))
    return make_map(entries, node.where)


def _expand_depends_on(node: Node, report: Report) -> Node:
    if not isinstance(node, ListNode):
        return node
    entries: dict[str, Entry] = {}
    for item in node.items:
        if not isinstance(item, ScalarNode):
            report.add("wrong-type", "an item of `depends_on` must be the name of a service", item.where)
        elif not item.broken:
            started = ScalarNode(text="started", where=item.where)
            entries[item.text] = Entry(where=item.where, node=started)
    return make_map(entries, node.where)


def _at(node: MapNode, key: str, rewrite: Rewrite, report: Report) -> MapNode:
    entry = node.entries.get(key)
    if entry is None:
        return node
    changed = Entry(where=entry.where, node=rewrite(entry.node, report))
    return make_map({**node.entries, key: changed}, node.where)


def _each(node: Node, rewrite: Callable[[Node], Node]) -> Node:
    if not isinstance(node, MapNode):
        return node
    entries = {name: Entry(where=entry.where, node=rewrite(entry.node)) for name, entry in node.entries.items()}
    return make_map(entries, node.where)
