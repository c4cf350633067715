"""``meshctl scale`` and ``meshctl restart``: how many instances run, and running them anew."""

from __future__ import annotations

import asyncio
from typing import Annotated, NamedTuple

import typer

from meshctl.cli.complete import complete_services
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, TargetsArgument, example
from meshctl.cli.project import ask, connect, find_project, make_screen
from meshctl.cli.wording import print_applied
from meshctl.errors import UsageError

SCALE_HINT = "write SERVICE=N or SERVICE/VERSION=N, such as checkout/v1=3"


class Wanted(NamedTuple):
    """One word of ``scale``: ``version`` is empty when it was left out."""

    service: str
    version: str
    replicas: int


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        rich_help_panel=PANEL_CHANGE,
        epilog=example("meshctl scale catalog=2", "meshctl scale checkout/v1=3 checkout/v2=1"),
    )(scale)
    app.command(
        rich_help_panel=PANEL_CHANGE,
        epilog=example("meshctl restart", "meshctl restart payment checkout-v1-2"),
    )(restart)


def scale(
    ctx: typer.Context,
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE[/VERSION]=N...",
            autocompletion=complete_services,
            show_default=False,
            help="How many instances of what.",
        ),
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """Set how many instances of a service run; of its stable version when none is named.

    Returns when new instances are ready and removed ones have finished their requests. Holds until the mesh goes down.
    """
    from meshctl.wire.models import ScaleRequest  # noqa: PLC0415 - loaded when it is sent

    words = [split_wanted(word) for word in wanted]  # every word is understood before the first one takes effect
    screen = make_screen(ctx)
    project = find_project(ctx)

    async def converse() -> None:
        async with connect(project) as client:
            for word in words:
                request = ScaleRequest(service=word.service, version=word.version, replicas=word.replicas)
                print_applied(screen, await client.instances.scale(request), output=output)

    asyncio.run(converse())


def restart(ctx: typer.Context, targets: TargetsArgument = None, output: OutputOption = Output.TABLE) -> None:
    """Restart services or single instances, one instance after another; all of them when none is named.

    Returns when every one is ready again. Callers lose no request: an instance leaves its callers' lists before it
    is stopped.
    """
    from meshctl.wire.models import RestartRequest  # noqa: PLC0415 - loaded when it is sent

    screen = make_screen(ctx)
    request = RestartRequest(targets=list(targets or ()))
    print_applied(screen, ask(find_project(ctx), lambda client: client.instances.restart(request)), output=output)


def split_wanted(word: str) -> Wanted:
    """The parts of ``SERVICE[/VERSION]=N``. Raises UsageError."""
    name, equals, number = word.partition("=")
    service, slash, version = name.partition("/")
    if not equals or not service or (slash and not version):
        raise UsageError(f"{word!r} does not say what to scale", hint=SCALE_HINT)
    if not number.isascii() or not number.isdigit():
        raise UsageError(f"{word!r}: {number!r} is no number of instances", hint=SCALE_HINT)
    return Wanted(service, version, int(number))
