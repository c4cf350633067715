"""A clock that stands still until a test moves it, and a ``wait`` that sleeps by it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

_TURNS = 40
# Turns of the event loop after which everything that needs no time has happened; no real I/O may be involved.


class FakeClock:
    """Implements ports.Clock. ``now`` and ``monotonic`` move together, and only by ``advance`` and ``until``."""

    def __init__(self, *, now: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def wait(self, seconds: float) -> None:
        """Sleep until the clock has moved on by so much; to be handed in where a runner takes ``wait``."""
        self._count += 1
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + max(0.0, seconds), self._count, sleeper))
        await sleeper

    async def settle(self) -> None:
        """Let everything happen that needs no time to pass."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            self._wake_due()

    async def advance(self, seconds: float) -> None:
        """Let time pass; sleepers wake in order, each at its own time."""
        end = self._monotonic + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._move_to(self._sleepers[0][0])
            await self.settle()
        self._move_to(end)
        await self.settle()

    async def until(self, condition: Callable[[], bool], *, limit: float = 120.0) -> None:
        """Let time pass from one sleeper's end to the next until a condition holds, for ``limit`` seconds at most."""
        end = self._monotonic + limit
        await self.settle()
        while not condition():
            if not self._sleepers or self._sleepers[0][0] > end:
                raise AssertionError("the condition does not come to hold")
            self._move_to(self._sleepers[0][0])
            await self.settle()

    def _move_to(self, monotonic: float) -> None:
        moved = max(0.0, monotonic - self._monotonic)
        self._monotonic += moved
        self._now += moved
        self._wake_due()

    def _wake_due(self) -> None:
        while self._sleepers and (self._sleepers[0][0] <= self._monotonic or self._sleepers[0][2].done()):
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
