"""What a tap asks for, and whether a request fits.  Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from meshctl.wire.models import Shape
from meshctl.wire.requests import SeenRequest, Side

_CLASS = re.compile(r"[1-5]xx")
_EXACT = re.compile(r"[1-5][0-9][0-9]|0")

HIGHEST_STATUS = 999


class TapQuery(Shape, frozen=True, kw_only=True):
    """Which requests a tap shows; what is empty excludes nothing.

    ``to`` and ``source`` are services; ``path`` is how the path begins, or a pattern if there is a ``*`` in it;
    ``statuses`` are ``503``, ``5xx``, or ``0`` for a request without an answer.
    """

    to: list[str]
    source: list[str]
    side: Side
    path: str
    methods: list[str]
    statuses: list[str]
    minimum_ms: float

    def match(self, request: SeenRequest) -> bool:
        """Whether a request is one of those that are asked for."""
        return (
            request.side == self.side
            and (not self.to or request.destination in self.to)
            and (not self.source or request.source in self.source)
            and request.duration_ms >= self.minimum_ms
            and (not self.methods or request.method in self.methods)
            and (not self.statuses or any(_has_status(request.status, wanted) for wanted in self.statuses))
            and (not self.path or _has_path(request.path, self.path))
        )

    def status_range(self) -> tuple[int, int]:
        """The lowest and the highest status that may fit."""
        if not self.statuses:
            return 0, HIGHEST_STATUS
        bounds = [status_bounds(wanted) for wanted in self.statuses]
        return min(low for low, _ in bounds), max(high for _, high in bounds)


def is_status(text: str) -> bool:
    """Whether a text is a status, or a class of them."""
    return bool(_CLASS.fullmatch(text) or _EXACT.fullmatch(text))


def status_bounds(wanted: str) -> tuple[int, int]:
    """``5xx`` is 500 to 599."""
    if wanted.endswith("xx"):
        first = int(wanted[0]) * 100
        return first, first + 99
    return int(wanted), int(wanted)


def _has_status(status: int, wanted: str) -> bool:
    low, high = status_bounds(wanted)
    return low <= status <= high


def _has_path(path: str, wanted: str) -> bool:
    return fnmatchcase(path, wanted) if "*" in wanted else path.startswith(wanted)
