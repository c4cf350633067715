"""``meshctl load``: a bounded, open-loop load on a service, with what came of it."""

from __future__ import annotations

import asyncio
import difflib
import resource
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.call import GATEWAY, read_body, read_headers, split_target
from meshctl.cli.complete import complete_services
from meshctl.cli.errors import FAILED, INTERRUPTED
from meshctl.cli.options import PANEL_SEE, Output, OutputOption, example, parse_duration
from meshctl.cli.project import Screen, ask, find_project, make_screen
from meshctl.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from meshctl.client.calls import MeshRequest
    from meshctl.client.client import MeshClient
    from meshctl.client.load import Load
    from meshctl.telemetry.load import Arrivals
    from meshctl.wire.load import LoadReport
    from meshctl.wire.models import CallTarget, MeshStatus

MAX_RPS = 5000.0
MAX_DURATION = 3600.0
MAX_CONNECTIONS = 2000
_REFRESH = 0.25
_REPORT = 1.0
"""Seconds from one line of JSON to the next."""
_OTHER_FILES = 64
_LINES = 20
"""At most so many lines are printed on the way where there is no terminal."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl load frontend/ --rps 50 --duration 30s",
            "meshctl load checkout/health --from frontend --rps 200 --fail-under 99.5",
            "meshctl load orders/orders -d '{\"item\": 1}' -o json",
        ),
    )(load)


def load(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE[/PATH]",
            autocompletion=complete_services,
            show_default=False,
            help="A service, and what to ask it for.",
        ),
    ],
    *,
    rps: Annotated[float, typer.Option("--rps", "-r", metavar="RATE", help="Requests a second, at most 5000.")] = 20.0,
    duration: Annotated[str, typer.Option("--duration", metavar="TIME", help="For how long, at most 1h.")] = "30s",
    connections: Annotated[
        int, typer.Option("--connections", min=1, max=MAX_CONNECTIONS, help="How many may be under way at once.")
    ] = 200,
    source: Annotated[
        str, typer.Option("--from", metavar="SERVICE", autocompletion=complete_services, help="Who sends it.")
    ] = GATEWAY,
    method: Annotated[
        str, typer.Option("--request", "--method", "-X", metavar="METHOD", help="Default: GET, or POST with -d.")
    ] = "",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "--body", "-d", metavar="DATA|@FILE|-", help="Body: text, a file, or stdin.")
    ] = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long each answer may take.")] = "10s",
    fail_under: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="Exit with 1 when less than this succeeds.", show_default=False),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send requests at a steady rate, as a service would, and show how they fare.

    Each request is sent when it is due, whatever became of those before, and its time counts from then: a service
    that becomes slow cannot hide by slowing the load. What was due and found every connection busy is told. Success is
    counted as `meshctl stat` counts it: no answer, or a status from 500, is a failure.

    Exits with 0, with 1 when nothing could be sent or --fail-under was not reached, with 130 after Ctrl+C, which
    ends it early with its summary. -o json prints one line each second, and one with "done": true at the end.
    """
    from meshctl.client.calls import MeshRequest  # noqa: PLC0415 - aiohttp is loaded when something is sent
    from meshctl.telemetry.load import Arrivals  # noqa: PLC0415

    service, path = split_target(target)
    body = read_body(data)
    request = MeshRequest(
        service=service,
        path=path,
        method=method.upper() or ("GET" if body is None else "POST"),
        headers=read_headers(header or [], body),
        body=body,
        timeout=_check("--timeout", parse_duration(timeout, option="--timeout"), MAX_DURATION, "1h"),
    )
    seconds = _check("--duration", parse_duration(duration, option="--duration"), MAX_DURATION, "1h")
    arrivals = Arrivals(rate=_check("--rps", rps, MAX_RPS, f"{MAX_RPS:g}"), duration=seconds)
    if fail_under is not None and not 0 <= fail_under <= 100:
        raise UsageError(f"--fail-under: {fail_under:g} is no percentage", hint="write a number from 0 to 100")
    screen, project = make_screen(ctx), find_project(ctx)

    async def find_place(client: MeshClient) -> CallTarget:
        check_service(await client.status(), service)
        return await client.call_target(source)

    place = ask(project, find_place)
    _allow_files(connections)
    report = asyncio.run(_run(screen, place, request, arrivals, connections=connections, output=output))
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not report.total.requests or (fail_under is not None and (report.total.success or 0.0) * 100 < fail_under):
        raise typer.Exit(FAILED)


def check_service(status: MeshStatus, service: str) -> None:
    """Refuse a name that is no service of the mesh, and no host outside it. Raises NotFoundError."""
    name = service.partition(":")[0]
    known = [item.name for item in status.services]
    if name in known or "." in name:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"services: {', '.join(sorted(known))}"
    raise NotFoundError(f"there is no service {name} in this mesh", hint=hint)


def _allow_files(connections: int) -> None:
    """Let this process have as many connections as it may need, where the system allows it: each is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _run(
    screen: Screen,
    place: CallTarget,
    request: MeshRequest,
    arrivals: Arrivals,
    *,
    connections: int,
    output: Output,
) -> LoadReport:
    from meshctl.cli.interrupts import Interrupts  # noqa: PLC0415
    from meshctl.cli.load_report import shape_report  # noqa: PLC0415
    from meshctl.client.load import Load  # noqa: PLC0415 - aiohttp is loaded when something is sent

    load = Load(place, request, arrivals, connections=connections)
    names = (request.service, request.path, place.source)
    interrupted = False

    def report(done: bool = False) -> LoadReport:  # noqa: FBT001, FBT002 - of this function alone
        return shape_report(
            load.tally,
            arrivals,
            names=names,
            elapsed=load.elapsed,
            unsent=load.unsent,
            done=done,
            interrupted=interrupted,
        )

    with Interrupts() as interrupts:
        sending = asyncio.ensure_future(load.run())
        showing = asyncio.ensure_future(_show(screen, load, report, output=output))
        alarm = asyncio.ensure_future(interrupts.first.wait())
        try:
            await asyncio.wait([sending, alarm, showing], return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                interrupted = True
                load.stop()
            await sending
            if showing.done():
                # Nobody reads any more what is shown (a pipe was closed, say).
                showing.result()
        finally:
            for task in (showing, alarm, sending):
                task.cancel()
            await asyncio.gather(showing, alarm, sending, return_exceptions=True)
    final = report(True)
    _print_end(screen, load, final, connections=connections, output=output)
    return final


async def _show(screen: Screen, load: Load, report: Callable[[], LoadReport], *, output: Output) -> None:
    """Show how a load goes until cancelled: a live view, a line now and then, or one line of JSON each second."""
    from meshctl.cli.load_report import describe_second, draw_live  # noqa: PLC0415
    from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.telemetry.load import RECENT  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    if output is Output.JSON:
        while True:
            await asyncio.sleep(_REPORT)
            print_json(encode(report()))
    if screen.quiet:
        await asyncio.Event().wait()
    if not screen.err.is_terminal:
        every = max(1.0, load.arrivals.duration / _LINES)
        while True:
            await asyncio.sleep(every)
            screen.say(describe_second(report()))
    from rich.live import Live  # noqa: PLC0415

    with Live(console=screen.err, auto_refresh=False, transient=True) as live:
        while True:
            now = report()
            live.update(draw_live(now, load.tally.recent(now.elapsed_s, RECENT), live.console.width), refresh=True)
            await asyncio.sleep(_REFRESH)


def _print_end(screen: Screen, load: Load, report: LoadReport, *, connections: int, output: Output) -> None:
    from meshctl.cli import load_report  # noqa: PLC0415
    from meshctl.cli.render import print_json, print_line, print_table  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    if output is Output.JSON:
        print_json(encode(report))
    else:
        for line in load_report.summarize(report):
            print_line(screen.out, line)
        if report.versions:
            print_line(screen.out, "")
            print_table(screen.out, load_report.VERSION_COLUMNS, load_report.version_rows(report))
            print_line(screen.out, "")
            for line in load_report.draw_histogram(load.tally.total, screen.out.width):
                print_line(screen.out, line)
    for words in load_report.summarize_end(report, connections, was_full=load.was_full):
        screen.say(words)
    sample = load.sample
    if sample is not None and (report.total.failures or any(not item.version for item in report.versions)):
        said = " ".join(sample.text.split())[:160]
        screen.say(f"the first that was no good answer of an instance: {sample.status} {said}".rstrip())


def _check(option: str, value: float, most: float, words: str) -> float:
    """A number above 0 that is within its bound. Raises UsageError."""
    if not 0 < value <= most:
        raise UsageError(f"{option}: {value:g} cannot be", hint=f"it is above 0 and at most {words}")
    return value
