"""Nodes -> typed values, by the shapes of the key tables.  Pure.

Every function reports what does not fit and then answers with the default, so that reading goes on and all problems
are found at once. ``label`` names the value in messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar, cast

from meshctl.errors import Where
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.shapes import (
    AnyOf,
    Boolean,
    Choice,
    Duration,
    Integer,
    Key,
    ListOf,
    MapOf,
    Number,
    Percentage,
    Scalar,
    Shape,
    Statuses,
    Table,
    Text,
    describe_shape,
)
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ResetNode, ScalarNode, describe, is_null
from meshctl.spec.values import INTEGER, NUMBER, parse_duration, parse_percentage, parse_statuses

L = TypeVar("L", bound=str)
D = TypeVar("D")

_MILLISECOND = 0.001
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_DURATION_HINT = "write `5s`, `300ms`, `2m`, `1h30m`, or seconds as a number"


class Fields:
    """A mapping read by its table: unknown keys and missing ones are reported when it is made.

    Args:
        table: what the mapping may hold.
        node: the mapping; None or an empty value count as an empty mapping.
        where: the place to name for a missing key when there is no mapping.
        label: what to call the mapping in messages.
        elsewhere: key -> where it belongs, for hints on keys that are known in another table.
    """

    def __init__(
        self,
        table: Table,
        node: Node | None,
        report: Report,
        *,
        where: Where,
        label: str = "",
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.table = table
        self.report = report
        self.where = where
        self._entries: Mapping[str, Entry] = {}
        if isinstance(node, MapNode):
            self._entries = node.entries
            self._check_keys(elsewhere or {})
            self._check_required()
        elif node is None or is_null(node):
            self._check_required()
        elif not (isinstance(node, ScalarNode) and node.broken):
            message = f"{label or table.title} must be a mapping, not {describe(node)}"
            report.add("wrong-type", message, node.where, _mapping_hint(table))

    def has(self, name: str) -> bool:
        """Whether a key is written, with a value."""
        return self.node(name) is not None

    def node(self, name: str) -> Node | None:
        """The node of a key; None when it is absent or empty."""
        assert self.table.find(name) is not None, name
        entry = self._entries.get(name)
        return None if entry is None or is_null(entry.node) else entry.node

    def place(self, name: str) -> Where:
        """The place of a key's value, or of the mapping when the key is absent."""
        node = self.node(name)
        return self.where if node is None else node.where

    def key_place(self, name: str) -> Where:
        """The place of a key itself, or of the mapping when the key is absent."""
        entry = self._entries.get(name)
        return self.where if entry is None else entry.where

    def text(self, name: str, default: D) -> str | D:
        """A text."""
        value = self._scalar(name, Text)
        return default if value is None else cast("str", value)

    def choice(self, name: str, default: L) -> L:
        """One of a few words; ``default`` gives the type."""
        value = self._scalar(name, Choice)
        return default if value is None else cast("L", value)

    def boolean(self, name: str, default: D) -> bool | D:
        """True or false."""
        value = self._scalar(name, Boolean)
        return default if value is None else cast("bool", value)

    def integer(self, name: str, default: D) -> int | D:
        """A whole number."""
        value = self._scalar(name, Integer)
        return default if value is None else cast("int", value)

    def number(self, name: str, default: D) -> float | D:
        """A number."""
        value = self._scalar(name, Number)
        return default if value is None else cast("float", value)

    def duration(self, name: str, default: D) -> float | D:
        """A duration in seconds."""
        value = self._scalar(name, Duration)
        return default if value is None else cast("float", value)

    def percentage(self, name: str, default: D) -> float | D:
        """A percentage."""
        value = self._scalar(name, Percentage)
        return default if value is None else cast("float", value)

    def alternative(self, name: str) -> Node | None:
        """The node of a key of several forms; None when it is absent or has none of these forms."""
        node = self.node(name)
        if node is None or (isinstance(node, ScalarNode) and node.broken):
            return None
        shape = self._shape(name)
        if not fits(shape, node):
            report_type(shape, node, quote(name), self.report)
            return None
        return node

    def items(self, name: str) -> tuple[Node, ...]:
        """The items of a list."""
        node = self.node(name)
        return () if node is None else read_items(list_shape(self._shape(name)), node, quote(name), self.report)

    def named(self, name: str) -> Mapping[str, Entry]:
        """The entries of a mapping whose keys are names; bad names are reported and kept."""
        node = self.node(name)
        return {} if node is None else read_named(map_shape(self._shape(name)), node, quote(name), self.report)

    def _shape(self, name: str) -> Shape:
        key = self.table.find(name)
        assert key is not None, name
        return key.shape

    def _scalar(self, name: str, kind: type[Scalar]) -> object | None:
        shape = self._shape(name)
        if isinstance(shape, AnyOf):
            shape = next(form for form in shape.shapes if isinstance(form, kind))
        assert isinstance(shape, kind), name
        node = self.node(name)
        return None if node is None else read_scalar(shape, node, quote(name), self.report)

    def _check_keys(self, elsewhere: Mapping[str, str]) -> None:
        known = self.table.names
        for name, entry in self._entries.items():
            if name in known or (self.table.extensible and name.startswith("x-")):
                continue
            suggestion = "" if name in elsewhere else self.report.suggest(name, known)
            hint = "" if suggestion else f"the keys of {self.table.title} are {join_names(known)}"
            if name in elsewhere:
                hint = f"{quote(name)} belongs under {elsewhere[name]}"
            self.report.add("unknown-key", f"unknown key {quote(name)}{suggestion}", entry.where, hint)

    def _check_required(self) -> None:
        for key in self.table.keys:
            if key.required and not self.has(key.name):
                self._report_missing(key)

    def _report_missing(self, key: Key) -> None:
        message = f"{self.table.title} needs the key {quote(key.name)}"
        if key.name == "services":
            hint = "add `services:`, under it a name, and under that a `command`"
            self.report.add("no-services", message, self.where, hint)
            return
        purpose = key.doc[0].lower() + key.doc[1:].rstrip(".")
        self.report.add("missing-key", message, self.where, f"add {quote(key.name)}: {purpose}")


def _mapping_hint(table: Table) -> str:
    if table.find("command"):
        return "write its keys under it, such as `command: python app.py`"
    return f"its keys are {join_names(table.names)}"


def read_scalar(shape: Scalar, node: Node, label: str, report: Report) -> object | None:
    """A scalar as str, bool, int, float or a status range; None when it does not fit (reported)."""
    if not isinstance(node, ScalarNode):
        report_type(shape, node, label, report)
        return None
    if node.broken:
        return None
    if is_null(node):
        report_type(shape, node, label, report)
        return None
    return _read_value(shape, node, label, report)


def _read_value(  # noqa: PLR0911 - one case per shape reads best
    shape: Scalar, node: ScalarNode, label: str, report: Report
) -> object | None:
    match shape:
        case Text():
            return _read_text(shape, node, label, report)
        case Choice():
            return _read_choice(shape, node, label, report)
        case Boolean():
            return _read_boolean(shape, node, label, report)
        case Integer():
            return _read_integer(shape, node, label, report)
        case Number():
            return _read_number(shape, node, label, report)
        case Duration():
            return _read_duration(shape, node, label, report)
        case Percentage():
            return _read_percentage(shape, node, label, report)
        case Statuses():
            return _read_statuses(node, label, report)


def read_items(shape: ListOf, node: Node, label: str, report: Report) -> tuple[Node, ...]:
    """The items of a list of the right length."""
    if isinstance(node, ScalarNode) and node.broken:
        return ()
    if not isinstance(node, ListNode):
        hint = f"write `[{node.text}]`" if isinstance(node, ScalarNode) and node.text.isascii() else ""
        report.add("wrong-type", f"{label} must be a list, not {describe(node)}", node.where, hint)
        return ()
    if len(node.items) < shape.minimum:
        report.add("empty-list", f"{label} must not be empty", node.where)
    if len(node.items) > shape.maximum:
        report.add("too-large", f"{label} has more than {shape.maximum} items", node.where)
        return ()
    return node.items


def read_named(shape: MapOf, node: Node, label: str, report: Report) -> Mapping[str, Entry]:
    """The entries of a mapping with names as keys."""
    if isinstance(node, ScalarNode) and node.broken:
        return {}
    if not isinstance(node, MapNode):
        report.add("wrong-type", f"{label} must be a mapping of names, not {describe(node)}", node.where)
        return {}
    for name, entry in node.entries.items():
        if not matches(shape.name, name):
            message = f"{quote(name)} cannot be the name of {shape.name.what}"
            if shape.name.what.endswith("name"):
                message = f"{quote(name)} cannot be {shape.name.what}"
            report.add(shape.name.code, message, entry.where, shape.name.hint)
    return node.entries


def matches(shape: Text, text: str) -> bool:
    """Whether a text matches the whole of a shape's pattern."""
    return not shape.pattern or re.fullmatch(shape.pattern, text) is not None


def fits(shape: Shape, node: Node) -> bool:
    """Whether a node has the form (scalar, list, mapping) of a shape, whatever its value."""
    if isinstance(shape, AnyOf):
        return any(fits(inner, node) for inner in shape.shapes)
    if isinstance(node, MapNode):
        return isinstance(shape, Table | MapOf)
    if isinstance(node, ListNode):
        return isinstance(shape, ListOf)
    return isinstance(shape, Scalar) and not isinstance(node, ResetNode)


def report_type(shape: Shape, node: Node, label: str, report: Report) -> None:
    """Report that a node has not the form of a shape."""
    report.add("wrong-type", f"{label} must be {describe_shape(shape)}, not {describe(node)}", node.where)


def list_shape(shape: Shape) -> ListOf:
    """The list among the forms of a shape."""
    found = [inner for inner in (shape.shapes if isinstance(shape, AnyOf) else (shape,)) if isinstance(inner, ListOf)]
    return found[0]


def map_shape(shape: Shape) -> MapOf:
    """The mapping of names among the forms of a shape."""
    found = [inner for inner in (shape.shapes if isinstance(shape, AnyOf) else (shape,)) if isinstance(inner, MapOf)]
    return found[0]


def _read_text(shape: Text, node: ScalarNode, label: str, report: Report) -> str | None:
    if "\x00" in node.text:
        report.add("bad-text", f"{label} holds a NUL character, which no process can be given", node.where)
        return None
    if not matches(shape, node.text):
        message = f"{label} must be {shape.what}, not {describe(node)}"
        report.add(shape.code, message, node.where, shape.hint)
        return None
    return node.text


def _read_choice(shape: Choice, node: ScalarNode, label: str, report: Report) -> str | None:
    if node.text in shape.values:
        return node.text
    if shape.false_is and node.plain and node.text.lower() in ("no", "off", "false"):
        return shape.false_is
    suggestion = report.suggest(node.text, shape.values)
    message = f"{label} must be {describe_shape(shape)}, not {describe(node)}{suggestion}"
    report.add("bad-choice", message, node.where)
    return None


def _read_boolean(shape: Boolean, node: ScalarNode, label: str, report: Report) -> bool | None:
    value = _BOOLEANS.get(node.text)
    if value is not None and shape.only in (None, value):
        return value
    word = _YAML_1_1.get(node.text.lower())
    hint = f"write `{word}`" if word else ""
    report.add("bad-boolean", f"{label} must be {describe_shape(shape)}, not {describe(node)}", node.where, hint)
    return None


def _read_integer(shape: Integer, node: ScalarNode, label: str, report: Report) -> int | None:
    if INTEGER.fullmatch(node.text) and shape.minimum <= int(node.text) <= shape.maximum:
        return int(node.text)
    report.add("bad-number", f"{label} must be {describe_shape(shape)}, not {describe(node)}", node.where)
    return None


def _read_number(shape: Number, node: ScalarNode, label: str, report: Report) -> float | None:
    if NUMBER.fullmatch(node.text) and shape.minimum <= float(node.text) <= shape.maximum:
        return float(node.text)
    report.add("bad-number", f"{label} must be {describe_shape(shape)}, not {describe(node)}", node.where)
    return None


def _read_duration(shape: Duration, node: ScalarNode, label: str, report: Report) -> float | None:
    try:
        seconds = parse_duration(node.text)
    except ValueError as error:
        detail = "" if str(error) == "not a duration" else f": {error}"
        message = f"{label} must be a duration, not {describe(node)}{detail}"
        report.add("bad-duration", message, node.where, _DURATION_HINT)
        return None
    if seconds < _MILLISECOND and not (shape.zero and seconds == 0):
        message = f"{label} must be at least 1ms, not {describe(node)}"
        report.add("bad-duration", message, node.where, _DURATION_HINT)
        return None
    return seconds


def _read_percentage(shape: Percentage, node: ScalarNode, label: str, report: Report) -> float | None:
    try:
        value = parse_percentage(node.text)
    except ValueError:
        value = -1.0
    if value >= shape.minimum and not (shape.whole and value % 1):
        return value
    hint = "write `50%` or `50`"
    if NUMBER.fullmatch(node.text) and 0 < value < 1:
        hint = f"a share of {node.text} is {value * 100:g}%"
    report.add("bad-percentage", f"{label} must be {describe_shape(shape)}, not {describe(node)}", node.where, hint)
    return None


def _read_statuses(node: ScalarNode, label: str, report: Report) -> tuple[int, int] | None:
    try:
        return parse_statuses(node.text)
    except ValueError:
        message = f"{label} must hold statuses from 100 to 599, not {describe(node)}"
        report.add("bad-status", message, node.where, "write `200`, `200-299` or `2xx`, or a list of these")
        return None
