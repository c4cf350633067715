"""``meshctl up`` in the foreground: everybody's output and the mesh's own events, until it is stopped.

Enters: a connected client.  Leaves: lines on stdout, an exit code.  Ctrl+C stops the mesh gracefully, a second one
by force; a mesh that is stopped from elsewhere ends the attachment too.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshctl.cli import errors
from meshctl.cli.daemon import Daemon, wait_gone
from meshctl.cli.interrupts import Interrupted, Interrupts
from meshctl.cli.lines import LineWriter
from meshctl.cli.news import News
from meshctl.cli.progress import describe_ready, list_names, print_failures
from meshctl.cli.project import Project, Screen, has_leftovers
from meshctl.client.errors import DisconnectedError
from meshctl.errors import MeshctlError, NotRunningError

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient


_LAST_LINES = 10.0
"""Seconds for the last lines to be shown once the mesh has ended; they are on their way, and end by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What attaching needs; ``since_time`` and ``since_event`` say from where on lines and events are shown.

    ``start`` is when the command began, on the monotonic clock.
    """

    client: MeshClient
    project: Project
    daemon: Daemon
    screen: Screen
    interrupts: Interrupts
    writer: LineWriter
    since_time: float
    since_event: int
    start: float
    news: News

    async def run(self) -> int:
        """Show everything until the mesh ends or is asked to; returns the exit code."""
        shows = [asyncio.ensure_future(part) for part in (self._show_lines(), self._show_events(), self._show_ready())]
        shown = asyncio.gather(*shows)
        try:
            return await self._wait(shown)
        finally:
            for task in shows:
                task.cancel()
            await asyncio.gather(shown, *shows, return_exceptions=True)

    async def _wait(self, shown: asyncio.Future[list[None]]) -> int:
        try:
            await self._watch(shown)
        except Interrupted:
            self.screen.say("stopping gracefully, press Ctrl+C again to force")
            await stop_mesh(self.client, self.daemon, self.interrupts, self.screen)
            await asyncio.wait([shown], timeout=_LAST_LINES)
            self.screen.say("the mesh is down")
            return errors.INTERRUPTED
        except NotRunningError:
            return self._tell_loss("the control plane ended unexpectedly; services and sidecars go on")
        await wait_gone(self.daemon)
        if has_leftovers(self.project.paths):
            return self._tell_loss("the control plane was ended; services and sidecars go on")
        self.screen.say("the mesh was stopped")
        return errors.DONE

    async def _watch(self, shown: asyncio.Future[list[None]]) -> None:
        try:
            await self.interrupts.guard(_wait_for(asyncio.shield(shown)))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The window was closed, and a line came before the signal.
            self.interrupts.hang_up()
            raise Interrupted from None

    def _tell_loss(self, message: str) -> int:
        hint = "`meshctl up` takes over what runs, `meshctl down` stops it"
        errors.print_error(self.screen.err, NotRunningError(message, hint=hint))
        return errors.FAILED

    async def _show_lines(self) -> None:
        status = await self.client.status()
        self.writer.align(list_names(status))
        async for line in self.client.logs(since=self.since_time, follow=True):
            self.writer.write(line)

    async def _show_events(self) -> None:
        async for event in self.client.events(since=self.since_event, follow=True):
            line = self.news.tell(event)
            if line is not None:
                self.writer.say(line)

    async def _show_ready(self) -> None:
        try:
            result = await self.client.ready()
            if result.state == "ready":
                self.writer.say(describe_ready(await self.client.status(), time.monotonic() - self.start))
            else:
                print_failures(self.screen, result.failures)
        except NotRunningError:
            raise
        except MeshctlError as error:  # stopped before it was ready; the events say so
            self.writer.say(error.message)


async def stop_mesh(client: MeshClient, daemon: Daemon, interrupts: Interrupts, screen: Screen) -> None:
    """Stop the mesh gracefully, by force from the second interrupt on; return when the control plane has ended."""
    stopping = asyncio.ensure_future(_stop(client, force=False))
    try:
        await interrupts.guard_twice(_wait_for(asyncio.shield(stopping)))
    except Interrupted:
        screen.say("stopping by force")
        await _stop(client, force=True)
        await stopping
    await wait_gone(daemon)


async def _stop(client: MeshClient, *, force: bool) -> None:
    try:
        await client.down(force)
    except DisconnectedError:
        return  # it ended before its answer was read


def _wait_for(future: asyncio.Future[Any]) -> Coroutine[Any, Any, None]:
    async def wait() -> None:
        await future

    return wait()
