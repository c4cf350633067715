"""``meshctl stat`` and ``meshctl edges``: the golden signals of services, their versions and the ways between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from meshctl.cli import figures
from meshctl.cli.fault_banner import draw_banner, fault_cell
from meshctl.cli.figures import color_share
from meshctl.cli.options import (
    PANEL_SEE,
    FileOption,
    Output,
    OutputOption,
    ServicesArgument,
    example,
    parse_duration,
)
from meshctl.cli.project import Project, Screen, connect, find_project, make_screen
from meshctl.cli.render import Column, print_json, print_line, print_table, read_clock
from meshctl.errors import NotFoundError, UsageError
from meshctl.figures import NOTHING, format_byte_rate, format_count, format_counts, format_ms, format_rate
from meshctl.wire.metrics import Metrics, Row
from meshctl.wire.models import FaultShape, encode

_SIGNALS = (
    Column(title="SUCCESS", justify="right"),
    Column(title="RPS", justify="right"),
    Column(title="P50", drop=4, justify="right"),
    Column(title="P95", drop=5, justify="right"),
    Column(title="P99", drop=1, justify="right"),
    Column(title="RETRIES", drop=6, justify="right"),
    Column(title="CONN", drop=7, justify="right"),
)
_MORE = (
    Column(title="P90", drop=14, justify="right"),
    Column(title="ACTIVE", drop=12, justify="right"),
    Column(title="EJECTED", drop=13, justify="right"),
    Column(title="CIRCUIT", drop=11),
    Column(title="SERVED", drop=9, justify="right"),
    Column(title="SERVED_P99", drop=10, justify="right"),
    Column(title="SENT", drop=15, justify="right"),
    Column(title="RECEIVED", drop=16, justify="right"),
    Column(title="STATUSES", drop=17),
    Column(title="REASONS", drop=18),
)
_NOTE = Column(title="NOTE", drop=2)
_FAULT = Column(title="FAULT")

STAT_COLUMNS = (Column(title="SERVICE"), Column(title="VERSION", drop=3), *_SIGNALS)
EDGE_COLUMNS = (Column(title="SRC"), Column(title="DST"), Column(title="SECURED", drop=3), *_SIGNALS)

_CLEAR = "\x1b[H\x1b[J"
_ALL = "all"

WindowOption = Annotated[
    str, typer.Option("--window", "-w", metavar="DURATION", help="How far back to look, from 1s to 1h.")
]
WatchOption = Annotated[bool, typer.Option("--watch", help="Print again every second; with -o json one object a line.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        "stat",
        rich_help_panel=PANEL_SEE,
        epilog=example("meshctl stat", "meshctl stat checkout --window 1m -o wide", "meshctl stat --watch -o json"),
    )(stat)
    app.command(
        "edges",
        rich_help_panel=PANEL_SEE,
        epilog=example("meshctl edges", "meshctl edges checkout -o wide", "meshctl edges -o json"),
    )(edges)


def stat(
    ctx: typer.Context,
    services: ServicesArgument = None,
    *,
    window: WindowOption = "10s",
    watch: WatchOption = False,
    file: FileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show success, rate and latency of services, as their callers saw them.

    A service of several versions has a row for all and one for each. RETRIES are counted apart: a request that
    succeeded at the second try is one success. Where there was no request in the window, there is a dash.
    """
    names = tuple(services or ())

    def rows(metrics: Metrics) -> Iterator[tuple[list[str | Text], Row]]:
        for row in metrics.services:
            if names and row.destination not in names:
                continue
            versions = [each for each in metrics.versions if each.destination == row.destination]
            yield [row.destination, _ALL if len(versions) > 1 else _only_version(versions)], row
            for each in versions if len(versions) > 1 else ():
                yield [each.destination, each.version], each

    _run(ctx, names, window=window, watch=watch, file=file, output=output, columns=STAT_COLUMNS, rows=rows)


def edges(
    ctx: typer.Context,
    services: ServicesArgument = None,
    *,
    window: WindowOption = "10s",
    watch: WatchOption = False,
    file: FileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show who calls whom, whether that is mTLS, and how it goes, as the caller saw it.

    With services named, the ways to and from these. -o wide adds what the called side saw (SERVED): where the two
    differ, something between them is at fault, or retries hid it.
    """
    names = tuple(services or ())

    def rows(metrics: Metrics) -> Iterator[tuple[list[str | Text], Row]]:
        for row in metrics.edges:
            if not names or row.source in names or row.destination in names:
                yield [row.source, row.destination, figures.format_secured(row.secured)], row

    _run(ctx, names, window=window, watch=watch, file=file, output=output, columns=EDGE_COLUMNS, rows=rows)


_Rows = Callable[[Metrics], Iterator[tuple[list[str | Text], Row]]]


def _run(
    ctx: typer.Context,
    names: tuple[str, ...],
    *,
    window: str,
    watch: bool,
    file: list[str] | None,
    output: Output,
    columns: Sequence[Column],
    rows: _Rows,
) -> None:
    seconds = parse_duration(window, option="--window")
    if seconds < 1:
        raise UsageError(f"--window: {window} is too short", hint="the shortest is 1s")
    project, screen = find_project(ctx, files=file), make_screen(ctx)

    def show(metrics: Metrics, faults: list[FaultShape]) -> None:
        if output is Output.JSON:
            print_json(encode(_pick(metrics, names)))
        else:
            _print(screen, metrics, columns, list(rows(metrics)), faults, wide=output is Output.WIDE)

    asyncio.run(_show(project, screen, names, seconds, show, watch=watch, clear=watch and output is not Output.JSON))


async def _show(
    project: Project,
    screen: Screen,
    names: tuple[str, ...],
    seconds: float,
    show: Callable[[Metrics, list[FaultShape]], None],
    *,
    watch: bool,
    clear: bool,
) -> None:
    async with connect(project) as client:
        if not watch:
            metrics = await client.metrics.get(window=seconds)
            _check(metrics, names)
            show(metrics, (await client.faults.list()).faults)
            return
        first = True
        async for metrics in client.metrics.stream(window=seconds):
            _check(metrics, names)
            faults = (await client.faults.list()).faults
            if clear and screen.out.is_terminal:
                screen.out.file.write(_CLEAR)
            elif clear and not first:
                print_line(screen.out, "")
            first = False
            show(metrics, faults)


def _check(metrics: Metrics, names: tuple[str, ...]) -> None:
    """Raise NotFoundError for a name that is neither a service nor a source."""
    known = {row.destination for row in metrics.services} | {row.source for row in metrics.edges}
    missing = [name for name in names if name not in known]
    if missing:
        raise NotFoundError(f"no service {', '.join(missing)}", hint=f"services: {', '.join(sorted(known))}")


def _pick(metrics: Metrics, names: tuple[str, ...]) -> Metrics:
    """The figures of the named services only; all when none is named."""
    if not names:
        return metrics

    def pick(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row.destination in names or row.source in names]

    return msgspec.structs.replace(
        metrics,
        services=pick(metrics.services),
        versions=pick(metrics.versions),
        edges=pick(metrics.edges),
        routes=pick(metrics.routes),
        flows=pick(metrics.flows),
        instances=pick(metrics.instances),
        processes=[each for each in metrics.processes if each.service in names],
    )


def _print(
    screen: Screen,
    metrics: Metrics,
    columns: Sequence[Column],
    rows: list[tuple[list[str | Text], Row]],
    faults: list[FaultShape],
    *,
    wide: bool,
) -> None:
    noted = any(row.stale for _, row in rows)
    shown = [*columns, *(_MORE if wide else ()), *((_NOTE,) if noted else ()), *((_FAULT,) if faults else ())]
    cells = [
        [
            *names,
            *_signals(row),
            *(_more(row) if wide else ()),
            *((figures.format_note(row),) if noted else ()),
            *((fault_cell(faults, row.destination, row.source),) if faults else ()),
        ]
        for names, row in rows
    ]
    if not screen.quiet:
        for line in draw_banner(faults, read_clock()):
            print_line(screen.out, line)
    print_table(screen.out, shown, cells)
    if not screen.quiet:
        for note in figures.list_notes(metrics):
            print_line(screen.out, note)


def _signals(row: Row) -> list[str | Text]:
    return [
        color_share(row.success),
        format_rate(row.rate),
        format_ms(row.p50_ms),
        format_ms(row.p95_ms),
        format_ms(row.p99_ms),
        format_count(row.retries),
        format_count(row.connections),
    ]


def _more(row: Row) -> list[str | Text]:
    served = row.served
    return [
        format_ms(row.p90_ms),
        format_count(row.active),
        format_count(row.ejected),
        row.circuit or NOTHING,
        color_share(served.success if served is not None else None),
        format_ms(served.p99_ms if served is not None else None),
        format_byte_rate(row.sent_rate),
        format_byte_rate(row.received_rate),
        # gRPC fails with an HTTP status of 200.
        format_counts({**row.statuses, **row.grpc}),
        format_counts(row.reasons),
    ]


def _only_version(versions: list[Row]) -> str:
    return versions[0].version if versions else NOTHING
