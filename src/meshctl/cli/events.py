"""``meshctl events``: what happened in the mesh, in order."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.text import Text

from meshctl.cli.options import PANEL_SEE, FileOnlyOption, Output, example
from meshctl.cli.project import Project, Screen, connect, find_project, make_screen
from meshctl.cli.render import STYLES, format_time, print_json, print_line
from meshctl.wire.models import Event, encode


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=PANEL_SEE, epilog=example("meshctl events -f", "meshctl events -o json"))(events)


def events(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is to come.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, metavar="N", help="Only the last N.")] = None,
    file: FileOnlyOption = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print; json is one object a line.")] = (
        Output.TABLE
    ),
) -> None:
    """Show what happened: starts, exits, restarts, changes of configuration, certificates, registrations."""
    project = find_project(ctx, files=file)
    asyncio.run(_show(project, make_screen(ctx), follow=follow, tail=tail, as_json=output is Output.JSON))


async def _show(project: Project, screen: Screen, *, follow: bool, tail: int | None, as_json: bool) -> None:
    async with connect(project) as client:
        past = [event async for event in client.events()]
        for event in past if tail is None else past[max(0, len(past) - tail) :]:
            _print(event, screen, as_json=as_json)
        if follow:
            async for event in client.events(since=past[-1].seq if past else 0, follow=True):
                _print(event, screen, as_json=as_json)


def _print(event: Event, screen: Screen, *, as_json: bool) -> None:
    if as_json:
        print_json(encode(event))
        return
    line = Text(f"{format_time(event.time)}  ")
    line.append(f"{event.level:<7}", style=STYLES.get(event.level, ""))
    subject = "" if event.message.startswith(event.subject) else f"{event.subject}: "
    line.append(f"  {event.kind:<22}  {subject}{event.message}")
    print_line(screen.out, line)
