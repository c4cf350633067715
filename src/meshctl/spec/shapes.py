"""What a value of the topology file may be: the vocabulary that the key tables are written in.  Pure declarations.

The loader reads values by these shapes and the JSON Schema and the reference are made from them, so that the three
cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

UNBOUNDED = 1_000_000
"""A maximum that no one reaches in earnest; it keeps numbers within what Envoy can hold."""

Documented: TypeAlias = "str | int | float | bool | list[int] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text. ``what`` names it in messages; ``pattern`` must match all of it, else problem ``code`` is reported."""

    what: str = "a text"
    pattern: str = ""
    code: str = "bad-text"
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of a few words. ``false_is`` is the word that YAML 1.1 readers turn into false when it has no quotes."""

    values: tuple[str, ...]
    false_is: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boolean:
    """``true`` or ``false``; ``only`` restricts it to one of them."""

    only: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """A whole number within bounds (inclusive)."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number, with decimals or without, within bounds (inclusive)."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A duration in seconds; ``zero`` allows 0, else it is at least a millisecond."""

    zero: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentage:
    """A percentage from ``minimum`` to 100; ``whole`` for whole numbers only."""

    minimum: int = 0
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses:
    """HTTP statuses: ``200``, ``200-299`` or ``2xx``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """A list of one kind of item."""

    item: Shape
    minimum: int = 0
    maximum: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf:
    """A mapping whose keys are names of the user's choice; ``nullable`` lets a name stand without a value."""

    name: Text
    value: Shape
    nullable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a table. ``default`` is the built-in value, as it is written in a file; None when there is none."""

    name: str
    shape: Shape
    doc: str
    default: Documented = None
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A mapping with known keys. ``title`` names it in messages; ``extensible`` also takes ``x-`` keys, unread."""

    id: str
    title: str
    doc: str
    keys: tuple[Key, ...]
    extensible: bool = False

    def find(self, name: str) -> Key | None:
        """The key of that name, or None."""
        return next((key for key in self.keys if key.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys, in the order of the table."""
        return tuple(key.name for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """One of several shapes, told apart by their form (scalar, list, mapping)."""

    shapes: tuple[Shape, ...]


Scalar: TypeAlias = Text | Choice | Boolean | Integer | Number | Duration | Percentage | Statuses
Shape: TypeAlias = Scalar | ListOf | MapOf | Table | AnyOf

COUNT = Integer(minimum=1, maximum=UNBOUNDED)
"""A whole number of things, one at least."""


def iterate_tables(root: Table) -> Iterator[Table]:
    """Every table reachable from a root, each once, outer ones first."""
    seen: dict[str, Table] = {}
    waiting: list[Shape] = [root]
    while waiting:
        shape = waiting.pop(0)
        if isinstance(shape, Table):
            if shape.id not in seen:
                seen[shape.id] = shape
                waiting.extend(key.shape for key in shape.keys)
                yield shape
        elif isinstance(shape, ListOf):
            waiting.append(shape.item)
        elif isinstance(shape, MapOf):
            waiting.append(shape.value)
        elif isinstance(shape, AnyOf):
            waiting.extend(shape.shapes)


def describe_shape(shape: Shape) -> str:  # noqa: C901, PLR0911 - one case per shape reads best
    """A shape in words, for messages and the reference."""
    match shape:
        case Text():
            return shape.what
        case Choice():
            words = [f"`{value}`" for value in shape.values]
            return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
        case Boolean():
            return "`true` or `false`" if shape.only is None else f"`{str(shape.only).lower()}`"
        case Integer(maximum=maximum) if maximum >= UNBOUNDED:
            return f"a whole number, at least {shape.minimum}"
        case Integer():
            return f"a whole number from {shape.minimum} to {shape.maximum}"
        case Number():
            return f"a number from {shape.minimum:.7g} to {shape.maximum:.7g}"
        case Duration():
            return "a duration"
        case Percentage():
            return f"a {'whole ' if shape.whole else ''}percentage from {shape.minimum} to 100"
        case Statuses():
            return "a status such as 200, 200-299 or 2xx"
        case ListOf():
            return "a list"
        case MapOf() | Table():
            return "a mapping"
        case AnyOf():
            return " or ".join(dict.fromkeys(describe_shape(inner) for inner in shape.shapes))
