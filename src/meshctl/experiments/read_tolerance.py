"""How a tolerance is written -> the Tolerance that it is.  Pure; see ``load``."""

from __future__ import annotations

import math
import re

from meshctl.experiments import keys
from meshctl.experiments.jsonpath import parse_path
from meshctl.experiments.model import AtPath, Between, Equal, Matches, OneOf, Tolerance
from meshctl.experiments.tolerances import to_number
from meshctl.spec.reader import Fields
from meshctl.spec.render import to_value
from meshctl.spec.report import Report, quote
from meshctl.spec.source import ListNode, MapNode, Node, ScalarNode, describe, is_null


def read_tolerance(fields: Fields) -> Tolerance | None:
    """The tolerance of an activity; None when it has none, or one that cannot be read (reported)."""
    node = fields.node("tolerance")
    if isinstance(node, ListNode):
        return _read_values(node, fields.report)
    if isinstance(node, MapNode):
        return _read_mapping(node, fields.report)
    return Equal(value=_to_scalar(node)) if isinstance(node, ScalarNode) and not node.broken else None


def text_of(node: MapNode, name: str) -> str:
    """The scalar under a key as it is written; empty when there is none."""
    found = node.get(name)
    return found.text if isinstance(found, ScalarNode) and not is_null(found) else ""


def _read_mapping(node: MapNode, report: Report) -> Tolerance | None:
    name = text_of(node, "type")
    if name == "probe":
        hint = "put the check into the probe itself, or run the file with `chaos run`"
        report.add("not-supported", "a tolerance that is a probe is not supported", node.where, hint)
        return None
    if name not in keys.TOLERANCES:
        hint = f"types are {', '.join(f'`{each}`' for each in keys.TOLERANCES)}"
        report.add("bad-tolerance", f"there is no tolerance of the type {quote(name)}", node.where, hint)
        return None
    fields = Fields(keys.TOLERANCES[name], node, report, where=node.where)
    match name:
        case "range":
            return _read_range(fields)
        case "regex":
            return _read_regex(fields)
        case _:
            return _read_path(fields)


def _read_values(node: ListNode, report: Report) -> Tolerance | None:
    values = [_to_scalar(item) for item in node.items]
    numbers = [to_number(value) for value in values]
    if len(values) == 2 and numbers[0] is not None and numbers[1] is not None:
        return Between(low=numbers[0], high=numbers[1])
    if not values:
        report.add("bad-tolerance", "a tolerance that is a list must not be empty", node.where)
        return None
    return OneOf(values=tuple(values))


def _read_range(fields: Fields) -> Tolerance | None:
    items = fields.items("range")
    if len(items) != 2:
        if fields.has("range"):
            message = f"a range has two bounds, not {len(items)}"
            fields.report.add("bad-tolerance", message, fields.place("range"), "write `range: [0.99, 1]`")
        return None
    bounds = [
        edge if is_null(item) else to_number(to_value(item))
        for item, edge in zip(items, (-math.inf, math.inf), strict=True)
    ]
    if bounds[0] is None or bounds[1] is None or bounds[0] > bounds[1]:
        message = f"{describe(items[0])} and {describe(items[1])} are no range"
        fields.report.add("bad-tolerance", message, fields.place("range"), "write the lower number first")
        return None
    return Between(low=bounds[0], high=bounds[1], target=fields.text("target", ""))


def _read_regex(fields: Fields) -> Tolerance | None:
    text = fields.text("pattern", "")
    try:
        return Matches(pattern=re.compile(text), target=fields.text("target", ""))
    except re.error as error:
        message = f"{quote(text)} is no regular expression: {error}"
        fields.report.add("bad-tolerance", message, fields.place("pattern"))
        return None


def _read_path(fields: Fields) -> Tolerance | None:
    text = fields.text("path", "")
    try:
        parse_path(text)
    except ValueError as error:
        if text:
            hint = "`$.a.b`, `$['a']`, `[0]`, `[-1]` and `[*]` are known"
            fields.report.add("bad-tolerance", f"the path {quote(text)}: {error}", fields.place("path"), hint)
        return None
    node = fields.node("expect")
    wanted = None if node is None else to_value(node)
    return AtPath(
        path=text,
        expect=None if node is None else tuple(wanted) if isinstance(wanted, list) else (wanted,),
        count=fields.integer("count", None),
        target=fields.text("target", ""),
    )


def _to_scalar(node: Node) -> str | int | float | bool:
    value = to_value(node)
    return value if isinstance(value, str | int | float | bool) else str(value)
