"""The tab of requests: it taps the mesh while it is looked at, and holds what came.  I/O through the tap it is given.

Enters: requests and summaries of a ``Tap``.  Leaves: a table, and notes of how much of the traffic it is.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

from meshctl.errors import MeshctlError
from meshctl.tui.arrange import Sort, Table, arrange
from meshctl.tui.requests import COLUMNS, Numbered, Requests, Tap, TapRow
from meshctl.wire.requests import TapSummary

_REST = 1.0


class LiveRequests:
    """What the tab shows; ``running`` tells whether the mesh is tapped, ``error`` why it cannot be."""

    def __init__(self, tap: Tap | None) -> None:
        """``tap`` is how to get live requests; None when there is no way."""
        self._tap = tap
        self._requests = Requests()
        self._held: tuple[Numbered, ...] | None = None
        self._summary: TapSummary | None = None
        self._shown: object = None
        self.running = False
        self.error = ""

    @property
    def can_be_tapped(self) -> bool:
        """Whether there is a way to get live requests."""
        return self._tap is not None

    @property
    def seen(self) -> int:
        """How many requests have come."""
        return self._requests.seen

    @property
    def has_news(self) -> bool:
        """Whether there is something that was not shown yet."""
        return self._shown != (self.seen, self._summary, self.error)

    async def read(self) -> None:
        """Tap until that ends or is cancelled; what ends by itself is not begun again at once."""
        assert self._tap is not None
        self.running = True
        try:
            async with aclosing(cast("Any", self._tap())) as items:
                async for item in items:
                    self._take(item)
            await asyncio.sleep(_REST)
        except MeshctlError as error:
            self.error = error.message
            await asyncio.sleep(_REST)
        finally:
            self.running = False

    def _take(self, item: TapRow | TapSummary) -> None:
        self.error = ""
        if isinstance(item, TapSummary):
            self._summary = item
        else:
            self._requests.add(item)

    def hold(self, *, held: bool) -> None:
        """Keep showing what is shown, or go on."""
        self._held = self._requests.rows() if held else None

    def rows(self) -> tuple[Numbered, ...]:
        """The requests that are shown, newest first."""
        return self._requests.rows() if self._held is None else self._held

    def find(self, key: str) -> Numbered | None:
        """A request that is shown, by its key."""
        return next((row for row in self.rows() if row.key == key), None)

    def arrange(self, sort: Sort, filter_text: str, width: int) -> Table:
        """The table of them; they count as shown from now on."""
        self._shown = (self.seen, self._summary, self.error)
        return arrange(COLUMNS, self.rows(), key=lambda row: row.key, sort=sort, filter_text=filter_text, width=width)

    def notes(self) -> list[str]:
        """Where the tap stands, one line each."""
        if self.error:
            return [f"no live requests: {self.error}"]
        told = []
        if not self.seen:
            told.append("waiting for requests: none came since this tab was opened")
        else:
            told.append(f"{self.seen:,} requests seen, the last {len(self._requests.rows()):,} are kept")
        summary = self._summary
        if summary is not None and summary.passed > summary.reported:
            left = summary.passed - summary.reported
            told.append(f"{left:,} more passed: a sidecar reports at most {summary.per_second} a second")
        if summary is not None and summary.silent:
            told.append(f"no reports yet of: {', '.join(summary.silent)} (their sidecars do not answer)")
        return told
