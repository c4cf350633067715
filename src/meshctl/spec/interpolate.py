"""``${VAR}`` in scalar values.  Pure: the variables are passed in.

Forms, as in a POSIX shell (https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_06_02):
``${VAR}``, ``${VAR:-default}`` (unset or empty), ``${VAR-default}`` (unset), ``${VAR:?message}``, ``${VAR?message}``.
A default may hold further references. ``$$`` is a literal ``$``; a ``$`` before anything else stays as it is, so that
a command may use the variables of its own process (``echo $PORT``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshctl.errors import Where
from meshctl.spec.report import Report, quote
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ResetNode, ScalarNode, make_list, make_map

_MAX_NESTING = 10
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?])(.*))?", re.ASCII | re.DOTALL)
_REFERENCE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_FORMS = "write ${NAME}, ${NAME:-default} or ${NAME:?message}; `$$` is a plain dollar sign"


def find_variables(text: str) -> frozenset[str]:
    """The names that ``${...}`` refers to in a file's text, in comments too: what ``load`` has to be given."""
    return frozenset(match[1] for match in _REFERENCE.finditer(text) if match[1])


def interpolate(node: Node, variables: Mapping[str, str], report: Report) -> Node:
    """The tree with variables filled in; keys are left as they are. What cannot be filled in is reported."""
    if isinstance(node, ScalarNode):
        return _fill_scalar(node, variables, report) if "$" in node.text else node
    if isinstance(node, ResetNode):
        return node
    if isinstance(node, ListNode):
        return make_list((interpolate(item, variables, report) for item in node.items), node.where)
    return interpolate_map(node, variables, report)


def interpolate_map(node: MapNode, variables: Mapping[str, str], report: Report) -> MapNode:
    """Like ``interpolate``, for a mapping."""
    entries = {
        key: Entry(where=entry.where, node=interpolate(entry.node, variables, report))
        for key, entry in node.entries.items()
    }
    return make_map(entries, node.where)


def _fill_scalar(node: ScalarNode, variables: Mapping[str, str], report: Report) -> ScalarNode:
    filler = _Filler(variables, report, node.where)
    text = filler.fill(node.text, 0)
    return replace(node, text=text, broken=filler.failed, interpolated=True)


@dataclass(slots=True)
class _Filler:
    """Fills in one scalar."""

    variables: Mapping[str, str]
    report: Report
    where: Where
    failed: bool = False

    def fill(self, text: str, nesting: int) -> str:
        """The text with its references replaced; ``failed`` is set when one could not be."""
        parts: list[str] = []
        at = 0
        while (dollar := text.find("$", at)) >= 0:
            parts.append(text[at:dollar])
            after = text[dollar + 1 : dollar + 2]
            if after == "$":
                parts.append("$")
                at = dollar + 2
            elif after == "{":
                end = _find_end(text, dollar + 2)
                if end < 0 or nesting >= _MAX_NESTING:
                    self._fail("bad-interpolation", f"`${{` is not closed in {quote(text)}", _FORMS)
                    return ""
                parts.append(self._refer(text[dollar + 2 : end], nesting))
                at = end + 1
            else:
                parts.append("$")
                at = dollar + 1
        parts.append(text[at:])
        return "".join(parts)

    def _refer(self, body: str, nesting: int) -> str:
        match = _BODY.fullmatch(body)
        if match is None:
            self._fail("bad-interpolation", f"{quote(f'${{{body}}}')} is no reference to a variable", _FORMS)
            return ""
        name, operator, word = match[1], match[2] or "", match[3] or ""
        value = self.variables.get(name)
        if value is not None and (value or not operator.startswith(":")):
            return value
        if operator.endswith("-"):
            return self.fill(word, nesting + 1)
        if operator:
            reason = self.fill(word, nesting + 1) or "it must have a value"
            self._fail(
                "unset-variable",
                f"the variable {quote(name)} is not set: {reason}",
                f"set {name} in the environment or in .env",
            )
            return ""
        hint = (
            f"set {name} in the environment or in .env, or give a default: ${{{name}:-value}}; "
            f"for a variable of the service's own process write $${{{name}}}"
        )
        self._fail("unset-variable", f"the variable {quote(name)} is not set", hint)
        return ""

    def _fail(self, code: str, message: str, hint: str) -> None:
        self.failed = True
        self.report.add(code, message, self.where, hint)


def _find_end(text: str, start: int) -> int:
    """The index of the ``}`` that closes a reference whose body begins at ``start``; -1 when there is none."""
    open_braces = 1
    at = start
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
            continue
        if text.startswith("${", at):
            open_braces += 1
            at += 2
            continue
        if text[at] == "}":
            open_braces -= 1
            if open_braces == 0:
                return at
        at += 1
    return -1
