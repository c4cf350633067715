"""What ``top`` shows, as it comes from the control plane; it outlives control planes.  I/O.

Enters: a way to connect.  Leaves: calls of ``changed`` after every new set of figures and every change of the link.
When the control plane ends, or does not answer, the feed tries again every second until there is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Literal, cast

from meshctl.errors import MeshctlError, NotRunningError
from meshctl.tui.reader import Connect, MeshReader
from meshctl.wire.metrics import History, Metrics
from meshctl.wire.models import MeshStatus

Link = Literal["connecting", "live", "reconnecting", "down"]
"""``reconnecting``: no control plane answers, but what it ran may go on; ``down``: nothing runs."""

INTERVAL = 1.0
"""Seconds from one set of figures to the next."""

TREND_WINDOW = 300.0
TREND_STEP = 5.0
"""How far back sparklines go, and how much one of their blocks stands for, in seconds."""

ORPHANED = "the control plane is gone, services and sidecars go on; `meshctl up` brings it back"
"""What there is to know when no control plane answers, but its processes run."""

RETRY = 1.0
PATIENCE = 10.0
"""Seconds without figures after which a control plane counts as one that hangs."""


class Feed:
    """The newest figures and the state of the link; ``run`` keeps both up to date until it is cancelled.

    Args:
        connect: how to reach the control plane.
        changed: called in the event loop after every change.
        orphans: whether what a control plane ran may go on without one; asked when there is none.
        window: seconds that figures are of.
        clock: monotonic seconds.
        retry: seconds between two attempts to connect.
        patience: see ``PATIENCE``.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        changed: Callable[[], None],
        orphans: Callable[[], bool],
        window: float,
        clock: Callable[[], float] = time.monotonic,
        retry: float = RETRY,
        patience: float = PATIENCE,
    ) -> None:
        self.link: Link = "connecting"
        self.message = ""
        self.status: MeshStatus | None = None
        self.metrics: Metrics | None = None
        self.history: History | None = None
        self.received_at = 0.0
        self._connect = connect
        self._changed = changed
        self._orphans = orphans
        self._window = window
        self._clock = clock
        self._retry = retry
        self._patience = patience
        self._reader: MeshReader | None = None
        self._history_at = float("-inf")

    @property
    def silence(self) -> float:
        """Seconds since the last figures came; 0 when none ever did."""
        return 0.0 if self.metrics is None else max(0.0, self._clock() - self.received_at)

    @property
    def reader(self) -> MeshReader:
        """The control plane, while it answers. Raises NotRunningError."""
        if self._reader is None:
            raise NotRunningError("the control plane does not answer", hint="top goes on when it does")
        return self._reader

    async def run(self) -> None:
        """Keep up to date until cancelled."""
        while True:
            try:
                async with self._connect() as reader:
                    self._reader = reader
                    await self._follow(reader)
                self._lose("the control plane ended")
            except NotRunningError as error:
                self._lose(error.message)
            except (MeshctlError, TimeoutError) as error:
                # It answers, but not with figures: a mesh that is just coming up, or one that hangs.
                message = error.message if isinstance(error, MeshctlError) else "the control plane does not answer"
                self._set_link("reconnecting", message)
            finally:
                self._reader = None
            await asyncio.sleep(self._retry)

    async def _follow(self, reader: MeshReader) -> None:
        self._history_at = float("-inf")
        async with _closing(reader.watch(self._window, INTERVAL)) as stream:
            while True:
                async with asyncio.timeout(self._patience):
                    metrics = await anext(stream, None)
                    if metrics is None:
                        return
                    status = await reader.status()
                    if self._clock() - self._history_at >= TREND_STEP:
                        self._history_at = self._clock()
                        self.history = await reader.history(TREND_WINDOW, TREND_STEP)
                self.metrics, self.status = metrics, status
                self.received_at = self._clock()
                self._set_link("live", "")

    def _lose(self, message: str) -> None:
        if self._orphans():
            self._set_link("reconnecting", ORPHANED)
        else:
            self._set_link("down", message)

    def _set_link(self, link: Link, message: str) -> None:
        self.link, self.message = link, message
        self._changed()


def _closing(stream: AsyncIterator[Metrics]) -> AbstractAsyncContextManager[AsyncIterator[Metrics]]:
    """Close a stream that is left half-way, where it can be closed: streams of the client are generators."""
    return aclosing(cast("AsyncGenerator[Metrics, Any]", stream))
