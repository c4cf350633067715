"""``configuration``: values by name, from file, environment or command line, filled in for ``${name}``.  Pure.

The rules are those of Chaos Toolkit, whose template is Python's: a text that is nothing but ``${name}`` becomes the
value with its type, ``$$`` a dollar sign, and ``$name`` is left alone unless there is such a value. Unlike there, a
``${name}`` that stands for nothing is a problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from meshctl.experiments.keys import VARIABLE
from meshctl.spec.reader import Fields
from meshctl.spec.render import Value, to_node, to_value
from meshctl.spec.report import Report, quote
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ScalarNode, make_list, make_map

_REFERENCE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))"
)


def read_variables(
    entries: Mapping[str, Entry], environ: Mapping[str, str], given: Mapping[str, Value], report: Report
) -> dict[str, Value]:
    """The values by name; ``given`` are those of the command line, which hold before all others."""
    found: dict[str, Value] = {}
    for name, entry in entries.items():
        if name in given:
            found[name] = given[name]
        elif isinstance(entry.node, MapNode) and "type" in entry.node.entries:
            value = _read_environment(entry.node, environ, report)
            if value is not None:
                found[name] = value
        else:
            found[name] = to_value(entry.node)
    return found | dict(given)


def fill_in(node: Node, values: Mapping[str, Value], known: frozenset[str], report: Report) -> Node:
    """A node with its references replaced. ``known`` are names that exist, even where their value has a problem."""
    if isinstance(node, MapNode):
        filled = {key: replace(e, node=fill_in(e.node, values, known, report)) for key, e in node.entries.items()}
        return make_map(filled, node.where)
    if isinstance(node, ListNode):
        return make_list((fill_in(item, values, known, report) for item in node.items), node.where)
    if not isinstance(node, ScalarNode) or "$" not in node.text:
        return node
    whole = _REFERENCE.fullmatch(node.text)
    if whole is not None and whole["braced"] in values:
        return to_node(values[whole["braced"]], node.where)

    broken = False

    def put(found: re.Match[str]) -> str:
        nonlocal broken
        if found["escaped"]:
            return "$"
        name = found["braced"] or found["bare"]
        if name in values:
            value = values[name]
            return value if isinstance(value, str) else json.dumps(value)
        if found["braced"]:
            broken = True
            if name not in known:
                hint = "write it under `configuration`, or `$$` for a plain dollar sign"
                message = f"nothing is called {quote(name)}{report.suggest(name, known)}"
                report.add("unknown-variable", message, node.where, hint)
        return found[0]

    text = _REFERENCE.sub(put, node.text)
    return replace(node, text=text, broken=broken, plain=node.plain and text == node.text)


def parse_value(text: str) -> Value:
    """A value of the command line: JSON where it is, else the text."""
    try:
        value: Value = json.loads(text)
    except ValueError:
        return text
    return value


def _read_environment(node: MapNode, environ: Mapping[str, str], report: Report) -> Value:
    kind = node.get("type")
    if isinstance(kind, ScalarNode) and kind.text == "probe":
        hint = "name the value itself, or give it with --var"
        report.add(
            "not-supported", "a value of `configuration` that comes from a probe is not supported", kind.where, hint
        )
        return None
    fields = Fields(VARIABLE, node, report, where=node.where)
    fields.choice("type", "env")
    key = fields.text("key", "")
    text = environ.get(key)
    if text is None:
        default = fields.node("default")
        if default is None and key:
            hint = "set it, give it a `default`, or give the value with --var"
            report.add("bad-variable", f"the environment has no variable {quote(key)}", fields.place("key"), hint)
        return None if default is None else to_value(default)
    try:
        return _convert(text, fields.choice("env_var_type", "str"))
    except ValueError:
        wanted = fields.choice("env_var_type", "str")
        report.add("bad-variable", f"{quote(key)} is {quote(text)}, which is no {wanted}", fields.place("key"))
        return None


def _convert(text: str, kind: str) -> Value:
    match kind:
        case "int":
            return int(text)
        case "float":
            return float(text)
        case "bool":
            return text.lower() in ("true", "1", "yes", "on")
        case "json":
            return parse_value(text)
        case _:
            return text
