"""What ``top`` asks of a control plane, and how a ``MeshClient`` answers it.  I/O; fakes stand in for it in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from meshctl.tui.requests import Tap, TapRow, make_row
from meshctl.wire.metrics import History, Metrics
from meshctl.wire.models import LogLine, MeshStatus
from meshctl.wire.policies import PolicyList
from meshctl.wire.requests import TapSummary
from meshctl.wire.taps import TapQuery

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

LOG_TAIL = 200
"""How many of the past lines of each log are shown."""


class MeshReader(Protocol):
    """A control plane that answers; every method raises the MeshctlError leaves that those of MeshClient raise."""

    async def status(self) -> MeshStatus:
        """The mesh as it is now."""
        ...

    async def figures(self, window: float) -> Metrics:
        """The golden signals of a window of so many seconds that ends now."""
        ...

    def watch(self, window: float, interval: float) -> AsyncIterator[Metrics]:
        """The same again and again, every ``interval`` seconds, until the control plane ends in good order."""
        ...

    async def history(self, window: float, step: float) -> History:
        """Figures of every edge and version in steps of so many seconds."""
        ...

    async def policies(self, owner: str) -> PolicyList:
        """The policies of a service as they are written."""
        ...

    def logs(self, sources: Sequence[str], *, sidecars: bool) -> AsyncIterator[LogLine]:
        """The last lines of services or instances, and those to come."""
        ...


Connect = Callable[[], AbstractAsyncContextManager[MeshReader]]
"""How to reach a control plane; entering raises NotRunningError, or the first call does."""


class ClientReader:
    """A MeshReader that asks a MeshClient."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client

    async def status(self) -> MeshStatus:
        """See MeshReader."""
        return await self._client.status()

    async def figures(self, window: float) -> Metrics:
        """See MeshReader."""
        return await self._client.metrics.get(window=window)

    def watch(self, window: float, interval: float) -> AsyncIterator[Metrics]:
        """See MeshReader."""
        return self._client.metrics.stream(window=window, interval=interval)

    async def history(self, window: float, step: float) -> History:
        """See MeshReader."""
        return await self._client.metrics.history(window=window, step=step)

    async def policies(self, owner: str) -> PolicyList:
        """See MeshReader."""
        return await self._client.policies.list(owner)

    def logs(self, sources: Sequence[str], *, sidecars: bool) -> AsyncIterator[LogLine]:
        """See MeshReader."""
        return self._client.logs(sources=sources, sidecars=sidecars, tail=LOG_TAIL, follow=True)


def through_client(make: Callable[[], MeshClient]) -> Connect:
    """How to connect through a new client each time."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[MeshReader]:
        async with make() as client:
            yield ClientReader(client)

    return connect


def tap_through_client(make: Callable[[], MeshClient]) -> Tap:
    """How to tap every request, as its caller sees it, through a new client each time."""

    async def tap() -> AsyncIterator[TapRow | TapSummary]:
        everything = TapQuery(to=[], source=[], side="caller", path="", methods=[], statuses=[], minimum_ms=0.0)
        async with make() as client:
            async for item in client.taps.tap(everything):
                if item.request is not None:
                    yield make_row(item.request)
                if item.summary is not None:
                    yield item.summary

    return tap
