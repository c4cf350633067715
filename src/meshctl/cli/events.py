"""``meshctl events``: what happened in the mesh, in order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.text import Text

from meshctl.cli.complete import complete_targets
from meshctl.cli.following import follow as follow_stream
from meshctl.cli.news import strip_subject
from meshctl.cli.options import PANEL_SEE, FileOnlyOption, Output, check_pattern, example, parse_moment
from meshctl.cli.project import Project, Screen, connect, find_project, has_leftovers, make_screen
from meshctl.cli.render import STYLES, format_time, print_json, print_line, read_clock
from meshctl.client.errors import DisconnectedError
from meshctl.errors import NotRunningError
from meshctl.wire.models import Event, decode, encode


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl events -f",
            "meshctl events --kind circuit --since 10m",
            "meshctl events --subject checkout -o json",
            "meshctl events -n 20 --grep 'rotated|rejected'",
        ),
    )(events)


def events(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is to come.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, metavar="N", help="Only the last N.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="Only this kind, or all that begin with it: circuit, instance.ready."
        ),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            "--subject",
            metavar="NAME",
            autocompletion=complete_targets,
            help="Only about this service, and its instances and sidecar.",
        ),
    ] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Only events since: 5m, or a time.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Only events before: 5m, or a time.")] = "",
    grep: Annotated[
        str,
        typer.Option("--grep", metavar="RE", help="Only events in which this regular expression is found."),
    ] = "",
    file: FileOnlyOption = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print; wide adds the kind, json is one object a line.")
    ] = (Output.TABLE),
) -> None:
    """Show what happened: starts, exits, restarts, circuits, changes of configuration, certificates, registrations.

    Events are numbered in one order and kept across control planes, the last 5,000 of them; with -f this command goes
    on after a control plane that died, without loss or repetition. Without a running mesh, what it left is shown.
    """
    now = read_clock()
    project = find_project(ctx, files=file)
    wanted = Wanted(
        kinds=tuple(kind or ()),
        subjects=tuple(subject or ()),
        since=parse_moment(since, now=now, option="--since") if since else None,
        until=parse_moment(until, now=now, option="--until") if until else None,
        grep=re.compile(check_pattern(grep)) if grep else None,
    )
    asyncio.run(_show(project, _Printer(screen=make_screen(ctx), output=output), wanted, follow=follow, tail=tail))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events are shown; what is empty excludes nothing. Times are in seconds since the epoch."""

    kinds: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    grep: re.Pattern[str] | None = None

    def match(self, event: Event) -> bool:
        """Whether an event is one of them."""
        kinds = not self.kinds or any(event.kind == kind or event.kind.startswith(f"{kind}.") for kind in self.kinds)
        subjects = not self.subjects or any(_is_about(event.subject, name) for name in self.subjects)
        since = self.since is None or event.time >= self.since
        until = self.until is None or event.time <= self.until
        text = f"{event.subject} {event.level} {event.kind} {event.message}"
        return kinds and subjects and since and until and (self.grep is None or self.grep.search(text) is not None)


def _is_about(subject: str, name: str) -> bool:
    # Subjects are services, instances, sidecars, or several of them: `a,b`, or `a->b` for a caller's circuit.
    for part in re.split(r",|->|\s+", subject):
        own = part.removeprefix("sidecar.")
        if own == name or re.fullmatch(rf"{re.escape(name)}-.+-\d+", own):
            return True
    return False


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


async def _show(project: Project, printer: _Printer, wanted: Wanted, *, follow: bool, tail: int | None) -> None:
    try:
        async with connect(project) as client:
            past = [event async for event in client.events()]
    except DisconnectedError:
        raise
    except NotRunningError as error:
        past = _read_left(project)
        if not past:
            raise
        printer.screen.say(f"{error.message}; these are the events that it left")
        follow = follow and has_leftovers(project.paths)
    found = [event for event in past if wanted.match(event)]
    shown = found if tail is None else found[max(0, len(found) - tail) :]
    printer.align(shown)
    for event in shown:
        printer.print(event)
    if follow:
        await _follow(project, printer, wanted, past[-1].seq if past else 0)
    elif not found:
        printer.screen.say(f"no event fits; {len(past):,} are kept")


async def _follow(project: Project, printer: _Printer, wanted: Wanted, seen: int) -> None:
    """Print what comes until the mesh is down; a control plane that dies is waited for."""
    last = [seen]
    async for event in follow_stream(
        project, printer.screen, lambda client: client.events(since=last[0], follow=True), met=True
    ):
        last[0] = event.seq
        if wanted.match(event):
            printer.print(event)


def _read_left(project: Project) -> list[Event]:
    from meshctl.adapters.event_files import read_events  # noqa: PLC0415 - only without a running mesh

    return [decode(body, Event) for body in read_events(project.paths.database)]
