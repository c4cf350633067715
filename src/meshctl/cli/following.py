"""Streams that outlive the control plane: what follows the mesh goes on with the next one.

Enters: a reader of a stream.  Leaves: its items in turn, and a word on the screen while there is no control plane.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from meshctl.cli.project import Project, connect, has_leftovers
from meshctl.client.errors import DisconnectedError
from meshctl.errors import NotRunningError
from meshctl.wire.models import LogLine

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

T = TypeVar("T")

_RETRY = 0.3


class Speaker(Protocol):
    """Whatever tells people something: a screen."""

    def say(self, message: str) -> None:
        """Tell a message."""
        ...


async def follow(
    project: Project, screen: Speaker, read: Callable[[MeshClient], AsyncIterator[T]], *, met: bool = False
) -> AsyncIterator[T]:
    """The items of a stream, and those of the same stream of the next control plane when one dies under it.

    Args:
        project: whose mesh it is.
        screen: where it is said that there is no control plane.
        read: begins the stream; asked again for each control plane.
        met: whether a control plane has answered before, so that its absence is worth waiting for.

    Raises:
        NotRunningError: no control plane answered at first, or nothing of the mesh runs any more.
    """
    told = False
    while True:
        try:
            async with connect(project) as client, aclosing(_as_generator(read(client))) as items:
                async for item in items:
                    met, told = True, False
                    yield item
        except NotRunningError as error:
            met = met or isinstance(error, DisconnectedError)
            if not met or not has_leftovers(project.paths):
                raise
            if not told:
                screen.say("the control plane ended; waiting for the next one (`meshctl up`)")
                told = True
            await asyncio.sleep(_RETRY)
        else:
            return


async def _as_generator(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    async for item in items:
        yield item


@dataclass(slots=True)
class SeenLines:
    """Tells lines of a log that were shown from those that were not, when a part of it is read again."""

    _last: dict[str, tuple[float, int]] = field(default_factory=dict)
    _again: dict[str, int] = field(default_factory=dict)

    def read_again(self) -> None:
        """What comes from now on may have been shown."""
        self._again = dict.fromkeys(self._last, 0)

    def is_new(self, line: LogLine) -> bool:
        """Whether a line was not shown before; it is from now on. Lines of one source come in their order."""
        time, count = self._last.get(line.source, (0.0, 0))
        if line.source in self._again:
            if line.time < time:
                return False
            if line.time == time and self._again[line.source] < count:
                self._again[line.source] += 1
                return False
            del self._again[line.source]
        self._last[line.source] = (line.time, count + 1 if line.time == time else 1)
        return True
