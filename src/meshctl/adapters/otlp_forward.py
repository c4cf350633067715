"""Passes bodies of OTLP on to another receiver, without ever waiting for it.  I/O; implements
control.tracing.SpanForwarder.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

import aiohttp

MAX_WAITING = 8 << 20
"""Bytes that wait to be passed on; of what comes on top the oldest are dropped."""

_MAX_BODIES = 1000
_TIMEOUT = 5.0
_TRIES = 3
_PAUSE = 0.5
_TRY_LATER = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# Source: https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes


class _Waiting(NamedTuple):
    path: str
    body: bytes
    headers: Mapping[str, str]


class HttpForwarder:
    """Posts what it is offered to ``url``, one after the other; drops what is not taken."""

    def __init__(self, url: str, told: Callable[[str], None]) -> None:
        """``told`` is called with why when something is dropped for the first time, and with nothing once it goes on
        after that.
        """
        self.url = url
        self._told = told
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._is_failing = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many bodies were not passed on."""
        return self._dropped

    def offer(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Take a body to pass on; never waits."""
        self._waiting.append(_Waiting(path, body, headers))
        self._size += len(body)
        while self._size > MAX_WAITING or len(self._waiting) > _MAX_BODIES:
            self._size -= len(self._waiting.popleft().body)
            self._drop("it does not take them as fast as they come")
        self._arrived.set()

    async def run(self) -> None:
        """Pass on until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            while True:
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
                item = self._waiting.popleft()
                self._size -= len(item.body)
                why = await self._send(session, item)
                if why:
                    self._drop(why)
                elif self._is_failing:
                    self._is_failing = False
                    self._told("")

    async def _send(self, session: aiohttp.ClientSession, item: _Waiting) -> str:
        """Why it was not taken; empty when it was."""
        why = ""
        # While it is known to fail, nobody is waited for: what comes next is the next try.
        for attempt in range(1 if self._is_failing else _TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE * 2**attempt)
            try:
                async with session.post(
                    self.url + item.path, data=io.BytesIO(item.body), headers=dict(item.headers)
                ) as answer:
                    await answer.read()
            except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
                cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
                why = getattr(cause, "strerror", None) or str(cause) or "it does not answer"
                why = f"it cannot be reached ({why})" if isinstance(error, aiohttp.ClientConnectorError) else why
                continue
            if answer.status < HTTPStatus.BAD_REQUEST:
                return ""
            why = f"it answers {answer.status}"
            if answer.status not in _TRY_LATER:
                return why
        if self._is_failing:
            await asyncio.sleep(_PAUSE)
        return why

    def _drop(self, why: str) -> None:
        self._dropped += 1
        if not self._is_failing:
            self._is_failing = True
            self._told(why)
