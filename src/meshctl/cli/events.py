"""``meshctl events``: what happened in the mesh, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.text import Text

from meshctl.cli.news import strip_subject
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
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print; wide adds the kind, json is one object a line.")
    ] = (Output.TABLE),
) -> None:
    """Show what happened: starts, exits, restarts, changes of configuration, certificates, registrations."""
    project = find_project(ctx, files=file)
    asyncio.run(_show(project, _Printer(screen=make_screen(ctx), output=output), follow=follow, tail=tail))


@dataclass(slots=True, kw_only=True)
class _Printer:
    """Prints events one by one; the column of names grows with the longest seen."""

    screen: Screen
    output: Output
    width: int = 0

    def align(self, events: Iterable[Event]) -> None:
        self.width = max([self.width, *(len(event.subject) for event in events)])

    def print(self, event: Event) -> None:
        if self.output is Output.JSON:
            print_json(encode(event))
            return
        self.align([event])
        line = Text(f"{format_time(event.time)}  {event.subject:<{self.width}}  ")
        line.append(f"{event.level:<7}  ", style=STYLES.get(event.level, ""))
        if self.output is Output.WIDE:
            line.append(f"{event.kind:<20}  ")
        line.append(strip_subject(event))
        print_line(self.screen.out, line)


async def _show(project: Project, printer: _Printer, *, follow: bool, tail: int | None) -> None:
    async with connect(project) as client:
        past = [event async for event in client.events()]
        shown = past if tail is None else past[max(0, len(past) - tail) :]
        printer.align(shown)
        for event in shown:
            printer.print(event)
        if follow:
            async for event in client.events(since=past[-1].seq if past else 0, follow=True):
                printer.print(event)
