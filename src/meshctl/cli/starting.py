"""What is shown while a command waits for instances that it has had started: events, and on a terminal a line of state.

Enters: a connected client.  Leaves: messages on stderr.  Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from meshctl.cli.news import News
from meshctl.cli.project import Screen
from meshctl.cli.render import read_clock
from meshctl.wire.models import Event, MeshStatus

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

_PATIENCE = 0.3
_LONG = 5.0
"""Seconds after which a wait is worth a word: on a terminal, and where there is none."""

_REFRESH = 0.25


@contextlib.asynccontextmanager
async def tell_starting(
    client: MeshClient, screen: Screen, service: str, *, interrupted: str = "gives up"
) -> AsyncIterator[None]:
    """Tell how instances of a service come up while the block runs; says nothing when it takes no time.

    ``interrupted`` says what Ctrl+C does.
    """
    if screen.quiet:
        yield
        return
    task = asyncio.ensure_future(_tell(client, screen, service, read_clock(), interrupted))
    try:
        yield
    finally:
        task.cancel()
        # What is shown is an extra: that it broke off (the control plane ended, say) is told by what was asked.
        await asyncio.gather(task, return_exceptions=True)


async def _tell(client: MeshClient, screen: Screen, service: str, since: float, interrupted: str) -> None:
    await asyncio.sleep(_PATIENCE if screen.err.is_terminal else _LONG)
    if not screen.err.is_terminal:
        await _tell_events(client, screen, service, since)
        return
    with Live(console=screen.err, auto_refresh=False, transient=True) as live:
        await asyncio.gather(
            _tell_events(client, screen, service, since), _redraw(client, live, service, since, interrupted)
        )


async def _tell_events(client: MeshClient, screen: Screen, service: str, since: float) -> None:
    news = News()
    async for event in client.events(follow=True):
        if event.time >= since and concerns(event, service, await client.status()):
            line = news.tell(event)
            if line is not None:
                screen.say(line)


async def _redraw(client: MeshClient, live: Live, service: str, since: float, interrupted: str) -> None:
    while True:
        words = describe_waiting(await client.status(), service)
        seconds = read_clock() - since
        line = Text(f"{seconds:.0f} s, Ctrl+C {interrupted}: {words}" if words else "", style="bright_black")
        line.truncate(max(1, live.console.width - 1), overflow="ellipsis")
        live.update(line)
        live.refresh()
        await asyncio.sleep(_REFRESH)


def concerns(event: Event, service: str, status: MeshStatus) -> bool:
    """Whether an event is about instances of a service."""
    if event.subject.startswith(f"{service}/"):
        return True
    return any(
        item.id == event.subject for known in status.services if known.name == service for item in known.instances
    )


def describe_waiting(status: MeshStatus, service: str) -> str:
    """The instance of a service that is not up yet, and why; empty when all are."""
    instances = [item for known in status.services if known.name == service for item in known.instances]
    for item in instances:
        if item.health != "healthy":
            return f"{item.id}: {item.state}{f', {item.reason}' if item.reason else ''}"
    return ""
