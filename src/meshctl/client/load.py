"""Sends a load into a mesh as a service would: open-loop, bounded, each request counted when it ends.  I/O.

A CallTarget, a MeshRequest and Arrivals enter; a LoadTally is filled while it runs. What is due while as many requests
are under way as may be waits for one of them to end, and counts that wait; what is still waiting when the time is up is
never sent, and told.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

import aiohttp
from yarl import URL

from meshctl.client.calls import INSTANCE_HEADER, VERSION_HEADER, MeshRequest, complete_headers
from meshctl.errors import MeshctlError
from meshctl.telemetry.load import Arrivals, LoadTally
from meshctl.wire.models import CallTarget

TIMEOUT = "timeout"
REFUSED = "refused"
BROKEN_OFF = "broken off"
"""What there is instead of an answer: none in time, no connection to the sidecar, or one that it broke off."""

_EARLY = 0.001
"""Seconds that a request may be sent early: timers are as coarse as that, and late is worse. It counts from then."""

_GRACE = 1.0
"""Seconds after the end in which what is overdue is still sent, where it waits for nobody."""

_NOBODY = 20
"""Connections in a row, from the first on, that the sidecar refuses before it is taken to be gone."""

_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The first answer that was a failure, or came from no instance: its status and the beginning of its body."""

    status: int
    text: str


class Load:
    """One load: ``run`` sends it, ``tally`` counts it, ``stop`` ends it before its time."""

    def __init__(self, target: CallTarget, request: MeshRequest, arrivals: Arrivals, *, connections: int) -> None:
        """At most ``connections`` requests are under way at once; ``request.timeout`` bounds each of them."""
        self.tally = LoadTally()
        self.sample: Sample | None = None
        self._target = target
        self._request = request
        self.arrivals = arrivals
        self._connections = connections
        self._headers = complete_headers(request)
        self._url = URL(f"http://{target.host or 'localhost'}:{target.port or 80}{request.path}", encoded=True)
        self._under_way: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._is_stopped = False
        self._left: int | None = None
        self.was_full = False
        """Whether a request ever had to wait, because as many as may be were under way."""
        self._start = time.monotonic()
        self._end: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start, or from the start to the end once it is over."""
        return (time.monotonic() if self._end is None else self._end) - self._start

    @property
    def unsent(self) -> int:
        """Requests that were due and have not been sent, because others had to end first or time was up."""
        if self._left is not None:
            return self._left
        return self._count_waiting() if self._is_full else 0

    def stop(self) -> None:
        """Send no more, and give up what is under way: it is counted as nothing."""
        self._is_stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Send all that is due in its time and wait for what is under way.

        Raises MeshctlError when the sidecar takes no connection from the beginning.
        """
        connector: aiohttp.BaseConnector = (
            aiohttp.UnixConnector(self._target.socket, limit=self._connections)
            if self._target.socket
            else aiohttp.TCPConnector(limit=self._connections)
        )
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._request.timeout),
            # Every request is a user's of its own: a cookie that one is given is not sent with the next.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
        ) as session:
            self._start = time.monotonic()
            try:
                await self._send_all(session)
                self._left = self._count_waiting() if self._is_full or not self._is_stopped else 0
                while self._under_way and not self._is_stopped:
                    await self._pause()
            finally:
                for task in self._under_way:
                    task.cancel()
                await asyncio.gather(*self._under_way, return_exceptions=True)
                self._end = time.monotonic()

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        arrivals, number = self.arrivals, 0
        waited = False
        while number < arrivals.count and not self._is_stopped:
            now = time.monotonic() - self._start
            if now >= arrivals.duration + (0.0 if self._is_full else _GRACE):
                self.was_full = self.was_full or self._is_full
                return
            if number >= arrivals.due(now + _EARLY):
                # Woken a little early rather than late, see _EARLY.
                await self._pause(arrivals.time_of(number) - now - _EARLY)
                continue
            if self._is_full:
                waited = self.was_full = True
                await self._pause(arrivals.duration - now)
                continue
            due = min(arrivals.time_of(number), now)
            self.tally.note_sent(due=due, now=now, waited=waited)
            task = asyncio.ensure_future(self._send(session, due))
            self._under_way.add(task)
            task.add_done_callback(self._forget)
            number += 1
            # Those that were due meanwhile had to wait too.
            waited = waited and number < arrivals.due(now)
            if self._refuses():
                raise MeshctlError(
                    f"the sidecar of {self._target.source} takes no connections",
                    hint="`meshctl status` shows its state, `meshctl logs --sidecars` what it wrote",
                )

    async def _send(self, session: aiohttp.ClientSession, due: float) -> None:
        request, status, error, version = self._request, 0, "", ""
        try:
            async with session.request(
                request.method, self._url, headers=self._headers, data=request.body, allow_redirects=False
            ) as response:
                body = await response.read()
                status, version = response.status, response.headers.get(VERSION_HEADER, "")
                if self.sample is None and (status >= 400 or INSTANCE_HEADER not in response.headers):
                    self.sample = Sample(status=status, text=body[:_SHOWN].decode(errors="replace").strip())
        except TimeoutError:
            error = TIMEOUT
        except aiohttp.ClientConnectorError:
            error = REFUSED
        except (aiohttp.ClientError, OSError):
            error = BROKEN_OFF
        now = time.monotonic() - self._start
        self.tally.note_ended(due=due, now=now, status=status, error=error, version=version)

    @property
    def _is_full(self) -> bool:
        return len(self._under_way) >= self._connections

    def _count_waiting(self) -> int:
        return max(0, self.arrivals.due(min(self.elapsed, self.arrivals.duration)) - self.tally.sent)

    def _refuses(self) -> bool:
        total = self.tally.total
        return total.requests >= _NOBODY and total.errors.get(REFUSED, 0) == total.requests

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._wake.set()

    async def _pause(self, seconds: float | None = None) -> None:
        """Return when so many seconds have passed, a request has ended, or the load is stopped."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
