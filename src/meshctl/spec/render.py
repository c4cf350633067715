"""Nodes -> YAML text, JSON values and short texts, and JSON values -> nodes.  Pure.

What is rendered as YAML reads back as the same nodes: scalars keep their quotes where these matter, and a ``${`` that
was filled in before is written so that it is not filled in again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import yaml

from meshctl.errors import Where
from meshctl.spec.policies import EVERY, MESH, Document
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ResetNode, ScalarNode, is_null, make_list, make_map

Value: TypeAlias = "str | int | float | bool | list[Value] | Mapping[str, Value] | None"
"""A value as JSON has it."""

_BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,14})", re.ASCII)
_FRACTION = re.compile(r"-?\d{1,12}\.\d{1,9}", re.ASCII)
_DOLLARS = re.compile(r"\$(?=[{$])")
_RESOLVER: Any = yaml.resolver.Resolver()
_STR = "tag:yaml.org,2002:str"


def to_value(node: Node) -> Value:
    """A node as JSON has it: numbers and booleans where no quotes stood."""
    match node:
        case MapNode():
            return {key: to_value(entry.node) for key, entry in node.entries.items()}
        case ListNode():
            return [to_value(item) for item in node.items]
        case ResetNode():
            return None
        case ScalarNode():
            return None if is_null(node) else _to_scalar(node)


def to_node(value: Value, where: Where) -> Node:
    """A JSON value as a node, every part of it at one place."""
    if isinstance(value, Mapping):
        return make_map({key: Entry(where=where, node=to_node(item, where)) for key, item in value.items()}, where)
    if isinstance(value, list):
        return make_list((to_node(item, where) for item in value), where)
    if isinstance(value, bool):
        return ScalarNode(text="true" if value else "false", where=where)
    if value is None:
        return ScalarNode(text="null", where=where)
    return ScalarNode(text=str(value), where=where, plain=not isinstance(value, str))


def to_words(node: Node | None) -> str:
    """A node on one line as YAML has it in flow style, such as ``{v1: 90, v2: 10}``; ``not set`` for none."""
    if node is None:
        return "not set"
    if isinstance(node, ScalarNode) and not is_null(node):
        return _one_line(node.text) or "''"
    return _one_line(_serialize(_to_yaml(node, flow=True)))


def to_yaml(documents: list[Document]) -> str:
    """Documents as a file that ``meshctl apply`` takes, places left out."""
    root: dict[str, dict[str, Any]] = {}
    top: list[tuple[Any, Any]] = []
    for document in documents:
        if document.node is None:
            continue
        row = (_key(document.kind), _to_yaml(document.node, flow=False))
        if document.owner == MESH:
            top.append(row)
        else:
            root.setdefault(document.owner, {})[document.kind] = row
    if EVERY in root:
        top.append((_key(EVERY), _map(list(root.pop(EVERY).values()))))
    if root:
        services = [(_key(owner), _map(list(rows.values()))) for owner, rows in root.items()]
        top.append((_key("services"), _map(services)))
    return _serialize(_map(top)) if top else "{}\n"


def _to_scalar(node: ScalarNode) -> Value:
    text = node.text
    if not node.plain:
        return text
    if text.lower() in _BOOLEANS and text in (text.lower(), text.title(), text.upper()):
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text


def _to_yaml(node: Node, *, flow: bool) -> Any:
    match node:
        case MapNode():
            rows = [(_key(key), _to_yaml(entry.node, flow=flow)) for key, entry in node.entries.items()]
            return _map(rows, flow=flow)
        case ListNode():
            items = [_to_yaml(item, flow=flow) for item in node.items]
            scalars = all(isinstance(item, ScalarNode) for item in node.items)
            return yaml.SequenceNode("tag:yaml.org,2002:seq", items, flow_style=flow or scalars)
        case ResetNode():
            return yaml.ScalarNode("!reset", "")
        case ScalarNode():
            text = _DOLLARS.sub("$$", node.text)
            # Only what stood without quotes may be read as something else than text. What a variable gave was never
            # null, whatever it looks like.
            plain = node.plain and not node.interpolated
            tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)) if plain else _STR
            return yaml.ScalarNode(tag, text)


def _map(rows: list[tuple[Any, Any]], *, flow: bool = False) -> Any:
    return yaml.MappingNode("tag:yaml.org,2002:map", rows, flow_style=flow or not rows)


def _key(name: str) -> Any:
    return yaml.ScalarNode(_STR, name)


def _serialize(node: Any) -> str:
    text: str = yaml.serialize(node, Dumper=yaml.SafeDumper, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())
