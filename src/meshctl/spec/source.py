"""The text of one topology file -> a tree of nodes that know their places.  Pure.

Enters: a SourceFile.  Leaves: a Node tree, with anchors, aliases and merge keys (``<<``) resolved, or problems.
The tree is built from YAML's events rather than by a YAML loader: scalars keep the text as it was written (so that a
version may be named ``1.0`` and ``no`` is not a boolean), duplicate keys are seen, and nothing recurses, so that depth
and size can be bounded (an alias bomb is measured, never expanded). Source of the merge key: https://yaml.org/type/merge.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from meshctl.errors import Where
from meshctl.ports import SourceFile
from meshctl.spec.report import Report, quote

MAX_CHARACTERS = 2_000_000
MAX_DEPTH = 40
MAX_NODES = 50_000
"""Bounds of a topology file; the nodes of an alias count each time it is used."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_STR_TAG = "tag:yaml.org,2002:str"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarNode:
    """A scalar: ``plain`` when it stood without quotes, ``broken`` when its variables could not be filled in."""

    text: str
    where: Where
    plain: bool = True
    broken: bool = False
    interpolated: bool = False
    size: int = 1
    depth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetNode:
    """``!reset``: takes away what an earlier file gave."""

    where: Where
    size: int = 1
    depth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNode:
    """A sequence."""

    items: tuple[Node, ...]
    where: Where
    size: int
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of a mapping: ``where`` is the place of the key."""

    where: Where
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNode:
    """A mapping, in the order of the file."""

    entries: Mapping[str, Entry]
    where: Where
    size: int
    depth: int

    def get(self, key: str) -> Node | None:
        """The node under a key, or None."""
        entry = self.entries.get(key)
        return entry.node if entry else None


Node: TypeAlias = ScalarNode | ResetNode | ListNode | MapNode


def make_list(items: Iterable[Node], where: Where) -> ListNode:
    """A sequence with its measures."""
    nodes = tuple(items)
    size = 1 + sum(node.size for node in nodes)
    return ListNode(items=nodes, where=where, size=size, depth=1 + max((n.depth for n in nodes), default=0))


def make_map(entries: Mapping[str, Entry], where: Where) -> MapNode:
    """A mapping with its measures."""
    nodes = [entry.node for entry in entries.values()]
    size = 1 + sum(node.size for node in nodes)
    return MapNode(entries=entries, where=where, size=size, depth=1 + max((n.depth for n in nodes), default=0))


def is_null(node: Node) -> bool:
    """True for ``null``, ``~``, an empty value and ``!reset``."""
    if isinstance(node, ResetNode):
        return True
    return isinstance(node, ScalarNode) and node.plain and not node.interpolated and node.text in _NULLS


_BEGIN = "begin with `services:`, with one key per service under it"


def parse(file: SourceFile, report: Report, *, begin: str = _BEGIN) -> MapNode | None:
    """The top-level mapping of a file; empty for an empty file, None when it cannot be read (problems say why).

    ``begin`` tells how such a file begins, for one that is no mapping.
    """
    start = Where(file.path, 1, 1)
    if len(file.text) > MAX_CHARACTERS:
        report.add("too-large", f"the file has more than {MAX_CHARACTERS:,} characters", start)
        return None
    forbidden = _FORBIDDEN.search(file.text)
    if forbidden:
        place = _place_of(file, forbidden.start())
        message = f"this is not valid YAML: the character {forbidden[0]!a} is not allowed"
        report.add("yaml-syntax", message, place, "remove it")
        return None
    try:
        root = _Builder(file.path, report).build(yaml.parse(file.text, Loader=_LOADER))
    except _Stop:
        return None
    except yaml.MarkedYAMLError as error:
        _report_syntax(file, error, report)
        return None
    return _check_root(root, start, report, begin)


def _check_root(root: Node | None, start: Where, report: Report, begin: str) -> MapNode | None:
    if root is None or is_null(root):
        return make_map({}, start)
    if not isinstance(root, MapNode):
        report.add("not-a-mapping", f"the file must be a mapping of keys, not {describe(root)}", root.where, begin)
        return None
    return root


def describe(node: Node) -> str:
    """A node in words, for messages."""
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    return "empty" if isinstance(node, ResetNode) or is_null(node) or not node.text else quote(node.text)


class _Stop(Exception):  # noqa: N818 - ends the reading of one file; never leaves this module
    """A problem after which the rest of the file cannot be understood."""


@dataclass(slots=True)
class _Frame:
    """A collection being read."""

    kind: str
    where: Where
    anchor: str | None
    reset: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    key: ScalarNode | None = None


class _Builder:
    """Builds a tree from events with a stack of its own."""

    def __init__(self, path: str, report: Report) -> None:
        self._path = path
        self._report = report
        self._anchors: dict[str, Node | None] = {}
        self._stack: list[_Frame] = []
        self._root: Node | None = None
        self._count = 0

    def build(self, events: Iterable[Any]) -> Node | None:
        """The root of the first document; None when there is none."""
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    hint = "one file holds one mesh: remove `---`, or put the second part into a file of its own"
                    where = self._where(event)
                    self._report.add("multiple-documents", "the file holds more than one YAML document", where, hint)
                    break
            elif isinstance(event, yaml.NodeEvent):
                self._start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        return self._root

    def _start(self, event: Any) -> None:
        where = self._where(event)
        self._count += 1
        if self._count > MAX_NODES:
            self._fail("too-large", f"the file has more than {MAX_NODES:,} values", where)
        if isinstance(event, yaml.AliasEvent):
            self._add(self._resolve(str(event.anchor), where), where)
            return
        reset = self._check_tag(event, where)
        if isinstance(event, yaml.ScalarEvent):
            plain = bool(event.implicit[0]) and not event.style and event.tag != _STR_TAG
            plain = plain or (event.tag in _CORE_TAGS and event.tag != _STR_TAG)
            node: Node = ResetNode(where=where) if reset else ScalarNode(text=event.value, where=where, plain=plain)
            if event.anchor:
                self._anchors[event.anchor] = node
            self._add(node, where)
            return
        if len(self._stack) >= MAX_DEPTH:
            self._fail("too-deep", f"values are nested more than {MAX_DEPTH} levels deep", where)
        if self._stack and self._stack[-1].kind == "map" and self._stack[-1].key is None:
            hint = "a value that begins with `{` or `[` needs quotes"
            self._fail("bad-key", "a key must be a text, not a mapping or a list", where, hint)
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(kind=kind, where=where, anchor=event.anchor, reset=reset))

    def _end(self) -> None:
        frame = self._stack.pop()
        node: Node
        if frame.reset:
            node = ResetNode(where=frame.where)
        elif frame.kind == "list":
            node = make_list(frame.items, frame.where)
        else:
            node = make_map(self._with_merged(frame), frame.where)
        if node.size > MAX_NODES:
            hint = "aliases count with all that they stand for"
            self._fail("too-large", f"the file has more than {MAX_NODES:,} values", frame.where, hint)
        if node.depth > MAX_DEPTH:
            self._fail("too-deep", f"values are nested more than {MAX_DEPTH} levels deep", frame.where)
        if frame.anchor:
            self._anchors[frame.anchor] = node
        self._add(node, frame.where)

    def _add(self, node: Node, where: Where) -> None:
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        if frame.kind == "list":
            frame.items.append(node)
        elif frame.key is None:
            frame.key = self._check_key(frame, node, where)
        else:
            key, frame.key = frame.key, None
            if key.text == "<<" and key.plain:
                frame.merged.extend(node.items if isinstance(node, ListNode) else [node])
            elif key.text:
                frame.entries.setdefault(key.text, Entry(where=key.where, node=node))

    def _check_key(self, frame: _Frame, key: Node, where: Where) -> ScalarNode:
        if not isinstance(key, ScalarNode):
            self._fail("bad-key", f"a key must be a text, not {describe(key)}", where, "give the key a name")
        assert isinstance(key, ScalarNode)
        if not key.text:
            self._report.add("bad-key", "a key is empty", where, "every line of a mapping is `key: value`")
        first = frame.entries.get(key.text)
        if first is not None:
            message = f"the key {quote(key.text)} is there twice; it is first at line {first.where.line}"
            self._report.add("duplicate-key", message, where, "remove one of them, or merge their values")
        return key

    def _with_merged(self, frame: _Frame) -> dict[str, Entry]:
        entries = frame.entries
        for source in frame.merged:
            if not isinstance(source, MapNode):
                hint = "`<<` takes an alias of a mapping, such as `<<: *common`, or a list of such aliases"
                self._report.add("bad-merge", f"`<<` must name a mapping, not {describe(source)}", source.where, hint)
                continue
            for key, entry in source.entries.items():
                entries.setdefault(key, entry)
        return entries

    def _resolve(self, anchor: str, where: Where) -> Node:
        if anchor not in self._anchors:
            names = self._report.suggest(anchor, self._anchors)
            self._fail("unknown-alias", f"the alias `*{anchor}` has no anchor `&{anchor}` before it{names}", where)
        node = self._anchors[anchor]
        if node is None:
            self._fail("recursive-alias", f"the alias `*{anchor}` stands within what it names", where)
        assert node is not None
        return node

    def _check_tag(self, event: Any, where: Where) -> bool:
        tag = event.tag
        if tag in (None, "!") or tag in _CORE_TAGS:
            return False
        if tag == "!reset":
            return True
        self._report.add("unknown-tag", f"the tag {quote(tag)} is not known", where, "the only tag is `!reset`")
        return False

    def _fail(self, code: str, message: str, where: Where, hint: str = "") -> None:
        self._report.add(code, message, where, hint)
        raise _Stop

    def _where(self, event: Any) -> Where:
        mark = event.start_mark
        return Where(self._path, mark.line + 1, mark.column + 1)


def _place_of(file: SourceFile, offset: int) -> Where:
    before = file.text[:offset]
    return Where(file.path, before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


_TOO_DEEP = "exceeded maximum nesting depth"
# Newer parsers have a limit of their own, and look further ahead than the values that they tell of.


def _report_syntax(file: SourceFile, error: yaml.MarkedYAMLError, report: Report) -> None:
    # What is not closed is noticed at the end of the file; it is of more use to show where it begins.
    unclosed = "quoted scalar" in str(error.context or "")
    mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
    where = Where(file.path, mark.line + 1, mark.column + 1) if mark else Where(file.path, 1, 1)
    problem = str(error.problem or error.context or "it cannot be read")
    if problem == _TOO_DEEP:
        report.add("too-deep", f"values are nested more than {MAX_DEPTH} levels deep", where)
        return
    report.add("yaml-syntax", f"this is not valid YAML: {problem}", where, _syntax_hint(file, error, where))


def _syntax_hint(  # noqa: PLR0911 - one line per mistake reads best
    file: SourceFile, error: yaml.MarkedYAMLError, where: Where
) -> str:
    problem, context = str(error.problem or ""), str(error.context or "")
    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", file.text)
    line = lines[where.line - 1] if where.line <= len(lines) else ""
    start = f" at line {error.context_mark.line + 1}" if error.context_mark else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "the line is indented with a tab: YAML takes spaces only"
    if "mapping values" in problem:
        return "check the indentation of this line and the one above; a text that holds `: ` needs quotes"
    if "cannot start any token" in problem:
        return f"a text that begins with {quote(line[where.column - 1 : where.column])} needs quotes"
    if "quoted scalar" in context:
        return "the quote that opens here is not closed"
    if "flow" in context and "${" in line:
        return "within `{ }` and `[ ]` a text with `${...}` needs quotes"
    if "flow" in context:
        return f"the bracket opened{start} is not closed, or a comma is missing"
    return "check the indentation: the keys of one mapping begin in the same column"
