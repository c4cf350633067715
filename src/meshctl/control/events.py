"""The ordered log of what happened: kept across control planes, followed by any number of readers.  I/O.

An event is stored before anybody reads it, so that a number that was read is never given to another event: who follows
goes on after a control plane that died without loss or repetition.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Literal

import msgspec

from meshctl.errors import MeshctlError
from meshctl.ports import KEPT_EVENTS, Clock, EventStore
from meshctl.wire.models import Event, decode, encode

Level = Literal["info", "warning", "error"]


class EventLog:
    """Events of a mesh, numbered from 1; the oldest go when there are more than are kept.

    Without a store they last as long as the object. ``begun`` is the number of the last event of earlier ones.
    """

    def __init__(self, clock: Clock, store: EventStore | None = None) -> None:
        self._clock = clock
        self._store = store
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        for body in store.events() if store is not None else ():
            with contextlib.suppress(msgspec.DecodeError):  # of another version; the others are worth no less
                self._events.append(decode(body, Event))
        self._last = self.begun = self._events[-1].seq if self._events else 0
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
        if self._store is not None:
            # A disk that is full must not stop what happens, only what is known of it later.
            with contextlib.suppress(MeshctlError):
                self._store.put_event(event.seq, encode(event))
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
