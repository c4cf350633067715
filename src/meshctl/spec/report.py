"""Where problems are collected until all are found.  Pure: a list and its order.

Every code that is reported is described in ``spec.problems``; one that is not is a bug and raises KeyError.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from meshctl.errors import Problem, Where
from meshctl.spec.problems import PROBLEM_KINDS

_SHOWN = 60
_CODES = frozenset(kind.code for kind in PROBLEM_KINDS)
_ENOUGH_SUGGESTIONS = 200
_ESCAPES = {ord("`"): "'"} | {c: f"\\x{c:02x}" for c in [*range(32), *range(127, 160)]}


class Report:
    """Collects problems; the same problem at the same place counts once.

    ``codes`` are those that there can be: of topology files, unless others are given.
    """

    def __init__(self, files: Iterable[str] = (), *, codes: Collection[str] = _CODES) -> None:
        self._codes = codes
        self._order = {path: index for index, path in reversed(list(enumerate(files)))}
        self._problems: dict[tuple[str, Where | None, str], Problem] = {}

    def add(self, code: str, message: str, where: Where | None, hint: str = "") -> None:
        """Note a problem. ``code`` is one of those that there can be."""
        if code not in self._codes:
            raise KeyError(code)
        problem = Problem(code=code, message=message, where=where, hint=hint)
        self._problems.setdefault((code, where, message), problem)

    @property
    def count(self) -> int:
        """How many problems there are so far."""
        return len(self._problems)

    def suggest(self, name: str, known: Iterable[str]) -> str:
        """A clause such as ``; did you mean `orders`?`` for a name near to a known one, or an empty text."""
        if len(name) > _SHOWN or len(self._problems) > _ENOUGH_SUGGESTIONS:
            return ""
        by_lower = {candidate.lower(): candidate for candidate in known}
        near = difflib.get_close_matches(name.lower().replace("-", "_"), by_lower, n=1, cutoff=0.6)
        near = near or difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
        return f"; did you mean {quote(by_lower[near[0]])}?" if near else ""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, in the order of the files and of their lines; those without a place come first."""

        def place(problem: Problem) -> tuple[int, int, int]:
            where = problem.where
            return (self._order.get(where.file, len(self._order)), where.line, where.column) if where else (-1, 0, 0)

        return tuple(sorted(self._problems.values(), key=place))


def quote(text: str) -> str:
    """A user's text for a message: on one line, shortened, between backticks."""
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}\u2026"
    return f"`{shown.translate(_ESCAPES)}`"


def join_names(names: Iterable[str], last: str = "and") -> str:
    """Names in words: ``a, b and c``."""
    items = list(names)
    return ", ".join(items) if len(items) < 2 else f"{', '.join(items[:-1])} {last} {items[-1]}"
