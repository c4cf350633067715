"""``meshctl up``: start the mesh, or bring what has changed into effect; and the control plane's own entry.

A file with problems starts nothing. What this command started is taken down again when it fails.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli import errors
from meshctl.cli.attach import Attachment, stop_mesh
from meshctl.cli.daemon import Daemon, ensure_daemon
from meshctl.cli.interrupts import Interrupted, Interrupts
from meshctl.cli.lines import LineWriter
from meshctl.cli.news import News
from meshctl.cli.options import PANEL_RUN, FileOption, ServicesArgument, example, parse_duration
from meshctl.cli.policies import shape_files
from meshctl.cli.progress import describe_ready, list_names, print_failures, read_last_event, show_progress
from meshctl.cli.project import Project, Screen, connect, find_project, load_mesh, make_screen, read_source
from meshctl.cli.render import read_clock
from meshctl.client.author import author_of
from meshctl.errors import MeshctlError, WaitTimeoutError
from meshctl.ports import TopologySource
from meshctl.wire.models import ReadyResult, UpRequest

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked of ``up``; ``timeout`` in seconds bounds the wait."""

    request: UpRequest
    detach: bool
    wait: bool
    timeout: float
    timestamps: bool


def register(app: typer.Typer) -> None:
    """Add the verb, and the hidden one that is the control plane."""
    app.command(
        rich_help_panel=PANEL_RUN,
        epilog=example("meshctl up", "meshctl up --wait", "meshctl -f mesh.yaml -f local.yaml up -d checkout"),
    )(up)
    app.command(hidden=True, epilog=example("meshctl daemon --directory ."))(daemon)


def up(
    ctx: typer.Context,
    services: ServicesArgument = None,
    *,
    file: FileOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the topology is accepted; the mesh runs on.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when all is ready and every sidecar in sync; the mesh runs on.")
    ] = False,
    wait_timeout: Annotated[
        str, typer.Option("--wait-timeout", metavar="TIME", help="How long --wait waits before it fails with exit 4.")
    ] = "60s",
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Put the time before each line.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Give up what commands set, and take the policies of the files.")
    ] = False,
) -> None:
    """Start the mesh, or the named services and all that they call; or bring what changed in the files into effect.

    Without -d and --wait it stays attached: it shows the output of all services, and Ctrl+C stops the mesh.
    """
    timeout = parse_duration(wait_timeout, option="--wait-timeout")
    project = find_project(ctx, files=file, need_files=True)
    source = read_source(project)
    screen = make_screen(ctx)
    _check(source, services or [])
    wish = Wish(
        request=_make_request(source, services or [], reset=reset),
        detach=detach,
        wait=wait,
        timeout=timeout,
        timestamps=timestamps,
    )
    raise typer.Exit(asyncio.run(_bring_up(project, wish, screen)))


def daemon(
    directory: Annotated[str, typer.Option("--directory", metavar="DIR", help="The mesh's folder, absolute.")],
    *,
    teardown: Annotated[bool, typer.Option("--teardown", help="Stop what an earlier one left, and end.")] = False,
) -> None:
    """Run the control plane of one folder in the foreground; `meshctl up` does it in the background."""
    from meshctl.host import run_daemon  # noqa: PLC0415 - everything that a control plane needs, and no command does

    raise typer.Exit(run_daemon(directory, teardown=teardown))


def _check(source: TopologySource, services: list[str]) -> None:
    """Refuse files with problems and names that do not exist, before anything is started."""
    from meshctl.plan.effective import select_services  # noqa: PLC0415 - loads the topology's modules

    select_services(load_mesh(source), services)


def _make_request(source: TopologySource, services: list[str], *, reset: bool) -> UpRequest:
    return UpRequest(
        files=shape_files(source),
        variables=dict(source.variables),
        services=services,
        author=author_of("up"),
        reset=reset,
    )


async def _bring_up(project: Project, wish: Wish, screen: Screen) -> int:
    start = time.monotonic()
    with Interrupts() as interrupts:
        try:
            daemon = await interrupts.guard(ensure_daemon(project))
        except Interrupted:
            return errors.INTERRUPTED
        try:
            async with connect(project) as client:
                return await _apply(client, daemon, interrupts, project=project, wish=wish, screen=screen, start=start)
        finally:
            daemon.detach()


async def _apply(
    client: MeshClient,
    daemon: Daemon,
    interrupts: Interrupts,
    *,
    project: Project,
    wish: Wish,
    screen: Screen,
    start: float,
) -> int:
    started = read_clock()
    try:
        since = await interrupts.guard(read_last_event(client))
        result = await interrupts.guard(client.up(wish.request))
        for change in result.changes or ["nothing changed"]:
            screen.say(change)
        for note in result.notes:
            screen.say(note)
        _say_differences(screen, result.differs)
        news = News(told=frozenset(result.changes))
        news.align(list_names(await client.status()))
        if wish.wait:
            ready = await interrupts.guard(_wait_ready(client, wish, screen, since=since, news=news))
            return await _report(client, daemon, interrupts, ready, screen=screen, start=start)
    except Interrupted:
        if daemon.is_ours:
            screen.say("stopping what was started, press Ctrl+C again to force")
            await stop_mesh(client, daemon, interrupts, screen)
        return errors.INTERRUPTED
    except WaitTimeoutError:
        raise
    except MeshctlError:
        if daemon.is_ours:
            await stop_mesh(client, daemon, interrupts, screen)
        raise
    if wish.detach:
        status = await client.status()
        gateway = f"; gateway {status.gateway.url}" if status.gateway is not None else ""
        screen.say(f"{status.mesh} runs{gateway}; `meshctl status` shows it, `meshctl down` stops it")
        return errors.DONE
    writer = LineWriter(colored=screen.out.color_system is not None, timestamps=wish.timestamps, flush=True)
    attachment = Attachment(
        client=client,
        project=project,
        daemon=daemon,
        screen=screen,
        interrupts=interrupts,
        writer=writer,
        since_time=started,
        since_event=since,
        start=start,
        news=news,
    )
    return await attachment.run()


def _say_differences(screen: Screen, differs: list[str]) -> None:
    """Tell which policies in force are not those of the files."""
    for line in differs:
        screen.say(line)
    if any("given up" not in line for line in differs):
        screen.say("`meshctl up --reset` takes what the files say")


async def _wait_ready(client: MeshClient, wish: Wish, screen: Screen, *, since: int, news: News) -> ReadyResult:
    async with show_progress(client, screen, since=since, news=news):
        return await client.ready(wish.timeout)


async def _report(
    client: MeshClient,
    daemon: Daemon,
    interrupts: Interrupts,
    ready: ReadyResult,
    *,
    screen: Screen,
    start: float,
) -> int:
    """Say how the wait ended; take down what was started here when something failed."""
    if ready.state == "ready":
        screen.say(describe_ready(await client.status(), time.monotonic() - start))
        return errors.DONE
    if ready.state == "timeout":
        raise WaitTimeoutError(
            f"not everything was ready after {time.monotonic() - start:.0f} s",
            detail="\n".join(ready.waiting),
            hint="the mesh runs on: `meshctl status` shows it, `meshctl down` stops it",
        )
    print_failures(screen, ready.failures)
    if daemon.is_ours:
        screen.say("stopping what was started")
        await stop_mesh(client, daemon, interrupts, screen)
    else:
        screen.say("the mesh ran before and runs on: `meshctl status` shows it")
    return errors.FAILED
