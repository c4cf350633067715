"""``meshctl traces`` and ``meshctl trace``: requests and all that they set off."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import typer
from rich.text import Text

from meshctl.cli.complete import complete_services
from meshctl.cli.options import (
    PANEL_SEE,
    FileOption,
    Output,
    OutputOption,
    example,
    parse_duration,
    parse_moment,
)
from meshctl.cli.project import Project, Screen, connect, files_of, find_project, make_screen
from meshctl.cli.render import Column, format_age, print_json, print_line, print_table, read_clock
from meshctl.cli.requests import clean
from meshctl.cli.waterfall import draw_waterfall
from meshctl.errors import NotFoundError
from meshctl.figures import NOTHING, format_ms
from meshctl.wire.models import encode
from meshctl.wire.traces import Trace, TraceList, TraceQuery, TraceSummary

ID_DIGITS = 8
"""How much of an id is shown, and enough of it to name a trace."""

COLUMNS = (
    Column(title="TRACE"),
    Column(title="AGE", drop=4, justify="right"),
    Column(title="SERVICE", drop=2),
    Column(title="REQUEST", wrap=False),
    Column(title="STATUS", justify="right"),
    Column(title="DURATION", justify="right"),
    Column(title="SPANS", drop=3, justify="right"),
    Column(title="NOTES", drop=1, wrap=True),
)

_MOST = 1000
_LONGEST_REQUEST = 40


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        "traces",
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl traces",
            "meshctl traces --error --service payment --since 5m",
            "meshctl traces --min-duration 200ms -n 5 -o json",
        ),
    )(traces)
    app.command(
        "trace",
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl trace",
            "meshctl trace 4bf92f35",
            "meshctl trace 4bf92f35 -o wide",
            "meshctl trace 4bf92f35 -o json",
        ),
    )(trace)


def complete_traces(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of the newest traces, with what they are."""
    # Whatever is wrong, a press of the tab key is no place to tell.
    with contextlib.suppress(Exception):
        found = asyncio.run(_list(find_project(ctx, files=files_of(ctx)), TraceQuery(limit=_MOST)))
        return [
            (item.id[:ID_DIGITS], f"{item.name} {format_ms(item.duration_ms)}")
            for item in found.traces
            if item.id.startswith(incomplete.lower())
        ]
    return []


TraceArgument = Annotated[
    str,
    typer.Argument(
        metavar="[ID]",
        autocompletion=complete_traces,
        show_default=False,
        help="The first digits of its id are enough; without one, the newest.",
    ),
]


def traces(
    ctx: typer.Context,
    *,
    service: Annotated[
        str,
        typer.Option(
            "--service", metavar="SERVICE", autocompletion=complete_services, help="Only those it has a part in."
        ),
    ] = "",
    error: Annotated[
        bool, typer.Option("--error", help="Only those in which something failed, if only a try.")
    ] = False,
    slow: Annotated[
        bool, typer.Option("--slow", help="Only those as slow as telemetry.slow_request says (1s), slowest first.")
    ] = False,
    min_duration: Annotated[
        str, typer.Option("--min-duration", metavar="TIME", help="Only those that took so long: 200ms.")
    ] = "",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Only those since: 5m, or a time.")] = "",
    count: Annotated[int, typer.Option("--max", "-n", min=1, max=_MOST, metavar="N", help="At most so many.")] = 20,
    file: FileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show traces of late: requests that entered the mesh or began in it, the newest first.

    While there is little traffic every request is recorded, else some of them; the last line says so. What failed or
    was slow is kept longest. STATUS is how it ended for whoever began it, NOTES say what happened on the way.
    """
    query = TraceQuery(
        service=service,
        error=error,
        slow=slow,
        minimum_ms=parse_duration(min_duration, option="--min-duration") * 1000 if min_duration else 0.0,
        since=parse_moment(since, now=read_clock(), option="--since") if since else None,
        limit=count,
    )
    screen = make_screen(ctx)
    found = asyncio.run(_list(find_project(ctx, files=file), query))
    if output is Output.JSON:
        print_json(encode(found))
        return
    if found.traces:
        now = read_clock()
        print_table(screen.out, COLUMNS, [_cells(item, now) for item in found.traces])
    screen.say(describe_kept(found))


def trace(
    ctx: typer.Context, trace_id: TraceArgument = "", *, file: FileOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Draw the waterfall of a trace: who waited for whom, both sides of each hop, every try, and why in words.

    -o wide adds the attributes that services gave their own spans.
    """
    screen = make_screen(ctx)
    found = asyncio.run(_get(find_project(ctx, files=file), trace_id))
    if output is Output.JSON:
        print_json(encode(found))
        return
    _draw(screen, found, wide=output is Output.WIDE)


async def _list(project: Project, query: TraceQuery) -> TraceList:
    async with connect(project) as client:
        return await client.tracing.list(query)


async def _get(project: Project, trace_id: str) -> Trace:
    async with connect(project) as client:
        if not trace_id:
            newest = (await client.tracing.list(TraceQuery(limit=1))).traces
            if not newest:
                raise NotFoundError("there is no trace yet", hint="send a request: meshctl call SERVICE/PATH")
            trace_id = newest[0].id
        return await client.tracing.get(trace_id)


def _cells(item: TraceSummary, now: float) -> list[str | Text]:
    request = clean(item.name)
    if len(request) > _LONGEST_REQUEST:
        request = request[: _LONGEST_REQUEST - 1] + "…"
    notes = [*item.notes, *([] if item.complete else ["incomplete"])]
    return [
        item.id[:ID_DIGITS],
        format_age(now - item.time),
        clean(item.service),
        request,
        Text(str(item.status or ("failed" if item.failed else NOTHING)), style="red" if item.failed else ""),
        format_ms(item.duration_ms),
        str(item.spans),
        Text(", ".join(clean(note) for note in notes), style="red" if item.failed else "yellow"),
    ]


def describe_kept(found: TraceList) -> str:
    """How many there are, and how they were chosen."""
    shown = len(found.traces)
    text = f"{shown} of {found.kept} traces kept" if shown else f"no trace fits; {found.kept} are kept"
    if found.mode == "off":
        return f"{text}; tracing is off (telemetry.tracing)"
    if found.sampling:
        shares = ", ".join(f"{item.share:.2%} of those that begin at {item.sidecar}" for item in found.sampling[:3])
        more = len(found.sampling) - 3
        text += f"; requests recorded now: {shares}" + (f" and less than all of {more} others" if more > 0 else "")
    if found.dropped or found.dropped_bodies:
        text += f"; {found.dropped} spans and {found.dropped_bodies} reports came too many and were dropped"
    if found.forward_dropped:
        text += f"; {found.forward_dropped} reports could not be passed on"
    return text


def _draw(screen: Screen, found: Trace, *, wide: bool) -> None:
    for line in draw_waterfall(found, width=screen.out.width, wide=wide):
        print_line(screen.out, line)
    for what in found.missing:
        screen.say(f"incomplete: {clean(what)}")
    screen.say(f"its requests in the access logs: meshctl logs --trace {found.id}")
