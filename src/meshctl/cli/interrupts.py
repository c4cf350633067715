"""Ctrl+C, SIGTERM and hang-up as things to wait for: the first asks for a graceful end, the second for force.  I/O."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OUTPUTS = (1, 2)
"""The descriptors of stdout and stderr."""


class Interrupted(Exception):  # noqa: N818 - no error: somebody asked to end
    """The user asked to end before the work was done."""


class Interrupts:
    """Counts signals while it is entered; ``first`` and ``second`` are set by them."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._terminals = tuple(descriptor for descriptor in _OUTPUTS if os.isatty(descriptor))

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for signum in _SIGNALS:
            loop.add_signal_handler(signum, self.hang_up if signum == signal.SIGHUP else self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for signum in _SIGNALS:
            loop.remove_signal_handler(signum)

    def hang_up(self) -> None:
        """The terminal is gone: go on as after a signal, with output that goes nowhere.

        Otherwise the first message would fail, and what was to be stopped would run on. The write that finds out may
        come before the signal: whoever gets its error calls this.
        """
        if self._terminals:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for descriptor in self._terminals:
                os.dup2(nowhere, descriptor)
            os.close(nowhere)
            self._terminals = ()
        self.first.set()

    def _note(self) -> None:
        (self.second if self.first.is_set() else self.first).set()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work unless the first signal comes; then it is cancelled and Interrupted raised."""
        return await self._race(work, self.first)

    async def guard_twice(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work unless the second signal comes."""
        return await self._race(work, self.second)

    async def _race(self, work: Coroutine[Any, Any, T], event: asyncio.Event) -> T:
        task = asyncio.ensure_future(work)
        alarm = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait([task, alarm], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Interrupted
        finally:
            for each in (task, alarm):
                each.cancel()
            await asyncio.gather(task, alarm, return_exceptions=True)
