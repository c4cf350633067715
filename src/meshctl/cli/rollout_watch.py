"""``meshctl canary watch``: how a rollout goes, live, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import typer

from meshctl.cli.canary import ServiceArgument
from meshctl.cli.following import follow as follow_stream
from meshctl.cli.options import Output, OutputOption
from meshctl.cli.project import Project, Screen, find_project, make_screen

if TYPE_CHECKING:
    from rich.live import Live

    from meshctl.client.client import MeshClient
    from meshctl.wire.rollouts import RolloutDecision, RolloutHistory, RolloutStatus

_RETRY = 0.3
_PAST = 8
"""So many decisions of the past are shown at the most."""


def watch(ctx: typer.Context, service: ServiceArgument, *, output: OutputOption = Output.TABLE) -> None:
    """Show how a rollout goes until it ends: weights, both versions side by side, the evidence, what comes next.

    EVIDENCE is how sure it is that the version is worse; at its threshold, and with the figures of the window beyond
    BOUND, the version is taken back. Exits with 0 when the version was promoted and with 1 when it was not; after
    Ctrl+C, with 130, the rollout goes on. A control plane that dies is waited for.

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
    from meshctl.wire.rollouts import ENDED  # noqa: PLC0415 - loaded on use

    with _Printer(screen, output) as printer:
        number: int | None = None

        async def read(client: MeshClient) -> AsyncIterator[RolloutStatus]:
            nonlocal number
            async for newest in client.rollouts.stream(service):
                number = newest.number if number is None else number
                if printer.wants_past:
                    printer.take_past(await client.rollouts.history(number=number))
                # Another one may have taken its place while nobody was there to tell.
                yield newest if newest.number == number else await _find(client, number)

        while True:
            async for status in follow_stream(project, printer, read, met=number is not None):
                printer.show(status)
                if status.phase in ENDED:
                    return status
            # A control plane that is told to end does so in good order; the rollout goes on with the next one.
            await asyncio.sleep(_RETRY)


async def _find(client: MeshClient, number: int) -> RolloutStatus:
    return (await client.rollouts.history(number=number)).rollouts[0].rollout


class _Printer:
    """Draws what is, again and again, in a terminal; elsewhere prints a line when something was decided."""

    def __init__(self, screen: Screen, output: Output) -> None:
        self._screen = screen
        self._output = output
        self._opened = ExitStack()
        self._live: Live | None = None
        self._line = ""
        self._past: list[RolloutDecision] | None = None
        self._last: RolloutStatus | None = None

    def __enter__(self) -> Self:
        if self._output is not Output.JSON and self._screen.out.is_terminal:
            from rich.live import Live  # noqa: PLC0415 - rich is loaded when something is drawn

            self._live = self._opened.enter_context(Live(console=self._screen.out, auto_refresh=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def wants_past(self) -> bool:
        """Whether decisions of the past are shown, and not known yet."""
        return self._live is not None and self._past is None

    def take_past(self, history: RolloutHistory) -> None:
        """The decisions so far."""
        self._past = [decision for record in history.rollouts for decision in record.decisions]

    def show(self, status: RolloutStatus) -> None:
        """Show how the rollout stands."""
        self._last = status
        if self._output is Output.JSON:
            from meshctl.cli.render import print_json  # noqa: PLC0415
            from meshctl.wire.models import encode  # noqa: PLC0415

            print_json(encode(status))
        elif self._live is not None:
            past, latest = self._past, status.latest
            if past is not None and latest is not None and (not past or latest.number > past[-1].number):
                past.append(latest)
            self._draw(status)
        else:
            self._print(status)

    def say(self, message: str) -> None:
        """Tell something beside what is drawn."""
        if self._live is None or self._last is None:
            self._screen.say(message)
        else:
            self._draw(self._last, message)

    def _draw(self, status: RolloutStatus, note: str = "") -> None:
        from rich.text import Text  # noqa: PLC0415

        from meshctl.cli.render import read_clock  # noqa: PLC0415
        from meshctl.cli.rollout_view import draw_rollout, pick_past  # noqa: PLC0415

        assert self._live is not None
        past = list(pick_past(self._past or ()))[-_PAST:]
        lines = list(draw_rollout(status, read_clock(), self._screen.out.width, past))
        if note:
            lines += [Text(""), Text(note, style="yellow")]
        self._live.update(Text("\n").join(lines), refresh=True)

    def _print(self, status: RolloutStatus) -> None:
        from meshctl.cli.render import format_time, print_line, read_clock  # noqa: PLC0415
        from meshctl.cli.rollout_view import describe_next, describe_phase  # noqa: PLC0415

        what = status.why or describe_next(status, status.since)
        words = f"{describe_phase(status).plain} at {status.applied}%: {what}"
        if words != self._line:
            self._line = words
            latest = status.latest
            print_line(self._screen.out, f"{format_time(latest.time if latest else read_clock())}  {words}")
