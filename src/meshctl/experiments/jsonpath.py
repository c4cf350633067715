"""The small part of JSON path that tolerances use.  Pure.

``$``, ``.name``, ``['name']``, ``[0]``, ``[-1]``, ``[*]`` and ``.*`` (https://www.rfc-editor.org/rfc/rfc9535). The
leading ``$.`` may be left out, as Chaos Toolkit's own documents do. Filters, slices, unions and ``..`` are refused by
name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Part = str | int | None
"""A name, an index, or None for every item."""

_PART = re.compile(
    r"\.?\[\s*(?:(?P<index>-?\d+)|(?P<star>\*)|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\")\s*\]"
    r"|\.(?:(?P<every>\*)|(?P<name>[A-Za-z_][\w-]*))"
)
_REFUSED = (
    ("..", "the descent `..`"),
    ("?", "a filter `?(...)`"),
    (":", "a slice `[a:b]`"),
    (",", "a union `[a,b]`"),
    ("(", "an expression `(...)`"),
)


def parse_path(text: str) -> tuple[Part, ...]:
    """The parts of a path. Raises ValueError in plain words."""
    rest = text.strip()
    if not rest:
        raise ValueError("a path cannot be empty")
    if rest.startswith("$"):
        rest = rest[1:]
    elif not rest.startswith((".", "[")):
        rest = f".{rest}"
    parts: list[Part] = []
    position = 0
    while position < len(rest):
        found = _PART.match(rest, position)
        if found is None:
            refused = next((what for sign, what in _REFUSED if sign in rest[position:]), "")
            raise ValueError(f"{refused} is not supported" if refused else f"`{rest[position:]}` cannot be read")
        parts.append(_to_part(found))
        position = found.end()
    return tuple(parts)


def find_all(parts: tuple[Part, ...], value: Any) -> list[Any]:
    """Every value that a path leads to, in the order of the document."""
    found = [value]
    for part in parts:
        found = [item for each in found for item in _step(part, each)]
    return found


def _to_part(found: re.Match[str]) -> Part:
    if found["index"] is not None:
        return int(found["index"])
    if found["star"] or found["every"]:
        return None
    return next(found[name] for name in ("name", "single", "double") if found[name] is not None)


def _step(part: Part, value: Any) -> list[Any]:
    if part is None:
        return list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, list) else []
    if isinstance(part, int):
        return [value[part]] if isinstance(value, list) and -len(value) <= part < len(value) else []
    return [value[part]] if isinstance(value, Mapping) and part in value else []
