"""``meshctl canary watch``: how a rollout goes, live, until it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from meshctl.cli.canary import ServiceArgument
from meshctl.cli.options import Output, OutputOption
from meshctl.cli.project import Project, Screen, connect, find_project, has_leftovers, make_screen
from meshctl.errors import NotRunningError

if TYPE_CHECKING:
    from meshctl.wire.rollouts import RolloutStatus

_RETRY = 0.3
_CLEAR = "\x1b[H\x1b[2J"


def watch(ctx: typer.Context, service: ServiceArgument, *, output: OutputOption = Output.TABLE) -> None:
    """Show how a rollout goes until it ends: weights, both versions side by side, the evidence, what comes next.

    Exits with 0 when the version was promoted and with 1 when it was not; after Ctrl+C, with 130, the rollout goes on.
    Without a terminal a line is printed for each decision; -o json prints the rollout, one object a line, each second.
    """
    follow(ctx, service, output=output)


def follow(ctx: typer.Context, service: str, *, output: Output) -> None:
    """Show a rollout until it ends. Raises typer.Exit with 1 when the version was not promoted."""
    project, screen = find_project(ctx), make_screen(ctx)
    try:
        last = asyncio.run(_follow(project, screen, service, output))
    except KeyboardInterrupt:
        screen.say(f"the rollout of {service} goes on; `meshctl canary watch {service}` shows it again")
        raise
    if last.phase != "promoted":
        raise typer.Exit(1)


async def _follow(project: Project, screen: Screen, service: str, output: Output) -> RolloutStatus:
    from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.wire.models import encode  # noqa: PLC0415
    from meshctl.wire.rollouts import ENDED  # noqa: PLC0415

    printer = _Printer(screen)
    last: RolloutStatus | None = None
    told = False
    while True:
        try:
            async with connect(project) as client:
                async for status in client.rollouts.stream(service):
                    last, told = status, False
                    if output is Output.JSON:
                        print_json(encode(status))
                    else:
                        printer.show(status)
            if last is not None and last.phase in ENDED:
                return last
        except NotRunningError:
            if not has_leftovers(project.paths):
                raise
        if not told:
            screen.say("the control plane ended; waiting for the next one (`meshctl up`)")
            told = True
        await asyncio.sleep(_RETRY)


class _Printer:
    """Draws each state over the one before in a terminal; elsewhere prints a line when something was decided."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._line = ""

    def show(self, status: RolloutStatus) -> None:
        from meshctl.cli.render import format_time, print_line, read_clock  # noqa: PLC0415 - as above
        from meshctl.cli.rollout_view import describe_next, describe_phase  # noqa: PLC0415
        from meshctl.cli.rollouts import print_rollout  # noqa: PLC0415

        if self._screen.out.is_terminal:
            self._screen.out.file.write(_CLEAR)
            print_rollout(self._screen, status)
            return
        latest = status.latest
        words = (
            f"{describe_phase(status).plain} at {status.applied}%: {status.why or describe_next(status, status.since)}"
        )
        if words != self._line:
            self._line = words
            print_line(self._screen.out, f"{format_time(latest.time if latest else read_clock())}  {words}")
