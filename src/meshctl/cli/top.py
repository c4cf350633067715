"""``meshctl top``: the traffic of the mesh, live on a terminal, as a table or as JSON elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshctl.cli.options import PANEL_SEE, Output, example, parse_duration
from meshctl.cli.project import Project, Screen, ask, connect, find_project, has_leftovers, make_screen
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient
    from meshctl.tui.columns import Column
    from meshctl.tui.view import View
    from meshctl.wire.top import TopSnapshot

_SHORTEST, _LONGEST = 1.0, 3600.0


class TopTab(StrEnum):
    """The tables that can be asked for."""

    SERVICES = "services"
    EDGES = "edges"
    VERSIONS = "versions"
    REQUESTS = "requests"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl top",
            "meshctl top --tab edges --sort p99",
            "meshctl top --once --window 1m",
            "meshctl top --watch -o json",
        ),
    )(top)


def top(
    ctx: typer.Context,
    *,
    tab: Annotated[TopTab, typer.Option("--tab", "-t", help="The table to begin with.")] = TopTab.SERVICES,
    window: Annotated[
        str, typer.Option("--window", "-w", metavar="TIME", help="How much time figures are of: 1s to 1h.")
    ] = "10s",
    sort: Annotated[
        str, typer.Option("--sort", metavar="COLUMN", help="Sort by this column, figures from the highest down.")
    ] = "",
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="Sort the other way round.")] = False,
    filter_text: Annotated[
        str,
        typer.Option("--filter", metavar="WORDS", help="Only rows that have all these words; !word: that have not."),
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Print the table and end; so it is without a terminal.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="With -o json: a snapshot every second, one a line.")] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="wide prints every column once, json every row of every table.")
    ] = Output.TABLE,
) -> None:
    """Show who calls whom, how often, how well and how fast, live: ? shows the keys.

    Figures are of the last seconds (--window). A dash means that nothing happened in them, or that nobody knows.
    """
    seconds = parse_duration(window, option="--window")
    if not _SHORTEST <= seconds <= _LONGEST:
        raise UsageError(f"--window: {window} is not kept", hint="from 1s to 1h")
    if watch and output is not Output.JSON:
        raise UsageError("--watch needs -o json", hint="on a terminal `meshctl top` is live by itself")
    view = _make_view(tab.value, sort, reverse=reverse, filter_text=filter_text)
    project = find_project(ctx)
    screen = make_screen(ctx)
    if watch:
        asyncio.run(_watch(project, seconds))
    elif output is Output.JSON:
        from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
        from meshctl.wire.models import encode  # noqa: PLC0415

        print_json(encode(ask(project, lambda client: _read(client, seconds))))
    elif once or output is Output.WIDE or not _is_terminal():
        if tab is TopTab.REQUESTS:
            raise UsageError("--tab requests is live only", hint="`meshctl tap` prints requests as they pass")
        _print(screen, ask(project, lambda client: _read(client, seconds)), view, wide=output is Output.WIDE)
    else:
        _run(project, screen, view, seconds)


def _make_view(tab: str, sort: str, *, reverse: bool, filter_text: str) -> View:
    """Where to begin. Raises UsageError for a column that there is not."""
    from meshctl.tui import view  # noqa: PLC0415 - loaded on use
    from meshctl.tui.arrange import first_sort  # noqa: PLC0415
    from meshctl.tui.columns import TABLES  # noqa: PLC0415
    from meshctl.tui.requests import COLUMNS  # noqa: PLC0415

    made = view.View(tab=tab)  # type: ignore[arg-type]
    if sort:
        columns: Sequence[Column[Any]] = COLUMNS if tab == "requests" else TABLES[tab]
        keys = [column.key for column in columns if column.key not in ("trend", "age")]
        if sort not in keys:
            raise UsageError(f"--sort: there is no column {sort} in {tab}", hint=f"columns: {', '.join(keys)}")
        made = view.set_sort(made, first_sort(columns, sort))
    if reverse:
        made = view.reverse_sort(made)
    return view.set_filter(made, filter_text)


async def _read(client: MeshClient, window: float) -> TopSnapshot:
    from meshctl.tui.rows import build_snapshot  # noqa: PLC0415

    return build_snapshot(await client.status(), await client.metrics.get(window=window))


async def _watch(project: Project, window: float) -> None:
    from meshctl.cli.render import print_json  # noqa: PLC0415
    from meshctl.tui.rows import build_snapshot  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    async with connect(project) as client:
        async for metrics in client.metrics.stream(window=window):
            print_json(encode(build_snapshot(await client.status(), metrics)))


def _print(screen: Screen, snapshot: TopSnapshot, view: View, *, wide: bool) -> None:
    from rich.text import Text  # noqa: PLC0415

    from meshctl.cli.render import UNBOUNDED, print_line  # noqa: PLC0415
    from meshctl.tui import frame  # noqa: PLC0415
    from meshctl.tui.arrange import arrange  # noqa: PLC0415
    from meshctl.tui.cells import pad  # noqa: PLC0415
    from meshctl.tui.columns import TABLES  # noqa: PLC0415
    from meshctl.tui.pages import list_items  # noqa: PLC0415
    from meshctl.tui.styles import STYLES, to_text  # noqa: PLC0415

    columns = [column for column in TABLES[view.tab] if column.key != "trend"]
    width = UNBOUNDED if wide else screen.out.width
    table = arrange(
        columns,
        list_items(snapshot, None, view),
        key=lambda item: item.key,
        sort=view.sort,
        filter_text=view.filter_text,
        width=width,
    )
    heads = [Text(pad(head.title, head.width, right=head.align == "right"), style="bold") for head in table.heads]
    lines = [heads]
    for row in table.rows:
        cells = zip(table.heads, row.cells, strict=True)
        lines.append(
            [Text(pad(cell.text, head.width, right=head.align == "right"), STYLES[cell.tone]) for head, cell in cells]
        )
    for line in lines:
        text = Text("  ").join(line)
        text.rstrip()
        print_line(screen.out, text)
    if not screen.quiet:
        connection = frame.Connection(link="live")
        for note in frame.draw_notes(
            snapshot, connection, view, hidden=table.hidden, dropped=table.dropped, width=UNBOUNDED
        ):
            print_line(screen.err, to_text(note))


def _is_terminal() -> bool:
    """Whether there is a terminal to draw on; the application draws on stderr and reads keys from stdin."""
    return os.environ.get("TERM") != "dumb" and sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()


def _run(project: Project, screen: Screen, view: View, window: float) -> None:
    ask(project, lambda client: client.status())  # a mesh that does not run is told of before the screen is taken
    from meshctl.tui.app import TopApp  # noqa: PLC0415 - Textual takes longer to load than most commands run
    from meshctl.tui.reader import tap_through_client, through_client  # noqa: PLC0415
    from meshctl.tui.run import run_app  # noqa: PLC0415

    application = TopApp(
        connect=through_client(lambda: connect(project)),
        orphans=lambda: has_leftovers(project.paths),
        window=window,
        start=view,
        tap=tap_through_client(lambda: connect(project)),
        no_color=screen.out.color_system is None,
    )
    code = asyncio.run(run_app(application))
    if code:
        raise typer.Exit(code)
