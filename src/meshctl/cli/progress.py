"""What is shown while a mesh comes up: a live table on a terminal, one line per event elsewhere; and how it ended.

Enters: a connected client.  Leaves: messages on stderr.  Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from meshctl.cli.errors import print_failure
from meshctl.cli.news import News
from meshctl.cli.project import Screen
from meshctl.cli.render import style_state
from meshctl.cli.wording import count_nouns
from meshctl.errors import MeshctlError
from meshctl.wire.models import Event, MeshStatus, StartFailure

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

_OF_ROLLOUTS = ("rollout.", "policy.", "traffic.")
"""What a rollout that the topology names tells of itself: it begins when all is ready, and is to be watched then."""

_REFRESH = 0.15
"""Seconds between two looks at the status, for the live table."""


async def read_last_event(client: MeshClient) -> int:
    """The number of the newest event, 0 when there is none."""
    last = 0
    async for event in client.events():
        last = event.seq
    return last


@contextlib.asynccontextmanager
async def show_progress(client: MeshClient, screen: Screen, *, since: int, news: News) -> AsyncIterator[None]:
    """Show how the mesh comes up while the block runs."""
    if screen.quiet:
        yield
        return
    teller = _Teller(client, screen, since, news)
    task = asyncio.ensure_future(_redraw(client, screen.err) if screen.err.is_terminal else teller.follow())
    try:
        yield
    finally:
        task.cancel()
        # What is shown is an extra: that it broke off (the control plane ended, say) is told by what it shows.
        await asyncio.gather(task, return_exceptions=True)
    if not screen.err.is_terminal:
        # The answer that was waited for may have come before the last events that led to it.
        with contextlib.suppress(MeshctlError):
            await teller.catch_up()


async def show_stopping(client: MeshClient, screen: Screen, *, since: int) -> None:
    """Tell the events of a mesh that is going down, to their end."""
    news = News()
    news.align(list_names(await client.status()))
    await _Teller(client, screen, since, news).follow()


def list_names(status: MeshStatus) -> list[str]:
    """Whom the events of a mesh are going to be about: its instances, else its services."""
    return [
        name
        for service in status.services
        for name in [instance.id for instance in service.instances] or [service.name]
    ]


def print_failures(screen: Screen, failures: list[StartFailure]) -> None:
    """Print what did not come up, each with exit code, last lines and log."""
    for failure in failures:
        lines = [f"exit code: {failure.exit_code}"] if failure.exit_code is not None else []
        if failure.tail:
            lines += ["last lines of its output:", *(f"  {line}" for line in failure.tail)]
        if failure.log:
            lines.append(f"log: {failure.log}")
        print_failure(screen.err, f"{failure.name} did not come up: {failure.message}", lines)


def describe_ready(status: MeshStatus, seconds: float) -> str:
    """One line for a mesh that is ready."""
    sidecars = sum(1 for service in status.services if service.sidecar is not None)
    sidecars += 1 if status.gateway is not None and status.gateway.sidecar is not None else 0
    services = count_nouns(len(status.services), "service")
    gateway = f"; gateway {status.gateway.url}" if status.gateway is not None else ""
    return f"{status.mesh} is ready: {services}, {count_nouns(sidecars, 'sidecar')} in sync, {seconds:.1f} s{gateway}"


class _Teller:
    """Says each event once, in their order."""

    def __init__(self, client: MeshClient, screen: Screen, since: int, news: News) -> None:
        self._client = client
        self._screen = screen
        self._seen = since
        self._news = news

    async def follow(self) -> None:
        """Say what happens until the control plane ends."""
        await self._say(self._client.events(since=self._seen, follow=True))

    async def catch_up(self) -> None:
        """Say what has happened and was not said yet."""
        await self._say(self._client.events(since=self._seen))

    async def _say(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            self._seen = event.seq
            line = self._news.tell(event)
            if line is not None and not (event.kind.startswith(_OF_ROLLOUTS) and event.level == "info"):
                self._screen.say(line)


async def _redraw(client: MeshClient, console: Console) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_draw(await client.status(), console.size), refresh=True)
            await asyncio.sleep(_REFRESH)


def _draw(status: MeshStatus, size: ConsoleDimensions) -> Text:
    """One line per service: its name, the states of its instances, that of its sidecar's configuration."""
    width = max((len(service.name) for service in status.services), default=0)
    lines: list[Text] = []
    for service in status.services:
        line = Text(f"  {service.name:<{width}}  ")
        line.append_text(style_state(service.state))
        ready = sum(1 for instance in service.instances if instance.state in ("ready", "completed", "registered"))
        if len(service.instances) > 1:
            line.append(f" {ready}/{len(service.instances)}")
        reason = next((instance.reason for instance in service.instances if instance.reason), "")
        if reason and service.state != "ready":
            line.append(f"  {reason}", style="bright_black")
        line.truncate(max(1, size.width - 1), overflow="ellipsis")
        lines.append(line)
    up = [service.state in ("ready", "completed", "registered") for service in status.services]
    head = Text.assemble((f"{status.mesh or 'mesh'}: ", "bold"), f"{sum(up)}/{len(up)} services ready")
    # What does not fit the terminal cannot be redrawn: those that are not ready yet are the ones to see.
    room = max(1, size.height - 3)
    if len(lines) > room:
        waiting = [
            line for line, s in zip(lines, status.services, strict=True) if s.state not in ("ready", "completed")
        ]
        lines = waiting[:room]
    return Text("\n").join([head, *lines])
