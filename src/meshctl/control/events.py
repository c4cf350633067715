"""The ordered log of what happened: bounded in memory, followed by any number of readers.  I/O (asyncio)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Literal

from meshctl.ports import Clock
from meshctl.wire.models import Event

_KEPT = 5000

Level = Literal["info", "warning", "error"]


class EventLog:
    """Events of this control plane, numbered from 1; the oldest go when there are more than are kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._last = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def last(self) -> int:
        """The number of the newest event, 0 when there is none."""
        return self._last

    def add(self, kind: str, subject: str, message: str, level: Level = "info") -> Event:
        """Record something that happened and wake those who follow."""
        self._last += 1
        event = Event(seq=self._last, time=self._clock.now(), kind=kind, subject=subject, message=message, level=level)
        self._events.append(event)
        self._wake()
        return event

    def close(self) -> None:
        """End every follower after what it has not seen yet."""
        self._closed = True
        self._wake()

    async def read(self, since: int | None, *, follow: bool) -> AsyncIterator[Event]:
        """Events after number ``since`` (None: all that are kept), then new ones while ``follow``."""
        seen = since or 0
        while True:
            for event in tuple(self._events):
                if event.seq > seen:
                    seen = event.seq
                    yield event
            if not follow or (self._closed and seen >= self._last):
                return
            if seen >= self._last:
                await self._wait_beyond(seen)

    async def _wait_beyond(self, seen: int) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            if self._last <= seen and not self._closed:
                await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
