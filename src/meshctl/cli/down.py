"""``meshctl down``: stop the mesh, whether its control plane lives or not."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from meshctl.cli import errors
from meshctl.cli.daemon import make_daemon, run_teardown, wait_gone
from meshctl.cli.interrupts import Interrupted, Interrupts
from meshctl.cli.options import PANEL_RUN, FileOption, example
from meshctl.cli.progress import read_last_event, show_stopping
from meshctl.cli.project import Project, Screen, connect, find_project, has_leftovers, make_screen
from meshctl.client.errors import DisconnectedError
from meshctl.errors import NotRunningError

_LAST_EVENTS = 10.0
"""Seconds for the last events to be told once the mesh has ended; they are on their way, and end by themselves."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=PANEL_RUN, epilog=example("meshctl down", "meshctl down --force"))(down)


def down(
    ctx: typer.Context,
    *,
    file: FileOption = None,
    force: Annotated[bool, typer.Option("--force", help="Kill at once what would be asked to end.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="For scripts; down never asks.")] = False,  # noqa: ARG001
) -> None:
    """Stop all services, sidecars and the control plane; returns when nothing of the mesh is left.

    Databases, certificates and logs stay; `meshctl up` starts the mesh again.
    """
    raise typer.Exit(asyncio.run(_take_down(find_project(ctx, files=file), make_screen(ctx), force=force)))


async def _take_down(project: Project, screen: Screen, *, force: bool) -> int:
    with Interrupts() as interrupts:
        try:
            await interrupts.guard(_stop(project, screen, force=force))
        except Interrupted:
            screen.say("the mesh goes on stopping; `meshctl down --force` kills what is left")
            return errors.INTERRUPTED
    return errors.DONE


async def _stop(project: Project, screen: Screen, *, force: bool) -> None:
    try:
        name = await _stop_running(project, screen, force=force)
    except NotRunningError as error:
        if not has_leftovers(project.paths):
            if isinstance(error, DisconnectedError):  # it ended before its answer was read
                screen.say("the mesh is down")
                return
            raise
        screen.say("the control plane is not running; stopping what it left")
        await run_teardown(project)
        name = "the mesh"
    screen.say(f"{name} is down")


async def _stop_running(project: Project, screen: Screen, *, force: bool) -> str:
    """Stop a mesh through its control plane; returns the mesh's name."""
    async with connect(project) as client:
        status = await client.status()
        daemon = make_daemon(status.daemon_pid)
        shows = asyncio.ensure_future(show_stopping(client, screen, since=await read_last_event(client)))
        try:
            await client.down(force)
            # The events end when the last one has been told, which is before the control plane ends.
            await asyncio.wait([shows], timeout=_LAST_EVENTS)
        finally:
            shows.cancel()
            await asyncio.gather(shows, return_exceptions=True)
    await wait_gone(daemon)
    return status.mesh or "the mesh"
