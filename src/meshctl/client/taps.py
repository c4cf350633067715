"""The client's call about live requests.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from meshctl.wire.models import S
from meshctl.wire.requests import TapItem
from meshctl.wire.taps import TapQuery


class Stream(Protocol):
    """Reads a stream of the API."""

    def __call__(self, path: str, kind: type[S], query: list[tuple[str, str]]) -> AsyncIterator[S]:
        """The items of one kind, as they come."""
        ...


class TapClient:
    """Live requests of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def tap(self, query: TapQuery, *, count: int | None = None, seconds: float | None = None) -> AsyncIterator[TapItem]:
        """Requests that fit as they end, and summaries; ends after ``count`` requests or ``seconds``."""
        asked: list[tuple[str, str]] = [("side", query.side)]
        asked += [("to", name) for name in query.to] + [("from", name) for name in query.source]
        asked += [("method", name) for name in query.methods] + [("status", text) for text in query.statuses]
        given = {
            "path": query.path,
            "minimum_ms": f"{query.minimum_ms:g}" if query.minimum_ms else "",
            "count": "" if count is None else str(count),
            "seconds": "" if seconds is None else f"{seconds:g}",
        }
        asked += [(name, text) for name, text in given.items() if text]
        return self._stream("/tap", TapItem, asked)
