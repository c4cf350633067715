"""``meshctl register`` and ``meshctl deregister``: instances that someone else runs, such as one in a debugger."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_instances, complete_services
from meshctl.cli.errors import INTERRUPTED
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, example, parse_duration
from meshctl.cli.project import Project, Screen, connect, find_project, make_screen
from meshctl.cli.wording import print_applied
from meshctl.errors import NotFoundError, NotRunningError, UsageError, WaitTimeoutError

if TYPE_CHECKING:
    from meshctl.wire.models import RegisterRequest, RegisterResult

KEEP_ALIVE_TTL = 30.0
"""Seconds that a registration kept alive outlives the command that keeps it, when no --ttl is given."""
HEARTBEATS_PER_TTL = 3
"""So many heartbeats are sent within a TTL, so that a lost one does no harm."""

_TERMINATED = 128 + signal.SIGTERM


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        "register",
        rich_help_panel=PANEL_CHANGE,
        epilog=example(
            "meshctl register payment --address 127.0.0.1:9000",
            "meshctl register payment --address 127.0.0.1:9000 --version v2 --keep-alive",
        ),
    )(register_instance)
    app.command(rich_help_panel=PANEL_CHANGE, epilog=example("meshctl deregister payment-ext-1"))(deregister)


def register_instance(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            autocompletion=complete_services,
            show_default=False,
            help="The service that it is an instance of.",
        ),
    ],
    *,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the instance listens.", show_default=False)],
    version: Annotated[str, typer.Option(help="Which version of the service it is.")] = "v1",
    ttl: Annotated[
        str, typer.Option(metavar="DURATION", help="Forget it unless it is renewed in time (30s with --keep-alive).")
    ] = "",
    keep_alive: Annotated[bool, typer.Option("--keep-alive", help="Stay and renew it; deregister on Ctrl+C.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Add an instance that runs outside meshctl to a service; callers reach it at once.

    Prints its id, which `meshctl deregister` takes. Registering the same address again renews it.
    """
    from meshctl.wire.models import RegisterRequest  # noqa: PLC0415 - loaded when it is sent

    check_address(address)
    seconds = parse_duration(ttl, option="--ttl") if ttl else KEEP_ALIVE_TTL if keep_alive else None
    if seconds is not None and seconds < 1:
        raise UsageError("--ttl: at least 1s", hint="leave it out for a registration that never expires")
    request = RegisterRequest(service=name, address=address, version=version, ttl=seconds)
    screen = make_screen(ctx)
    code = asyncio.run(_register(find_project(ctx), screen, request, output=output, keep_alive=keep_alive))
    if code:
        raise typer.Exit(code)


def deregister(
    ctx: typer.Context,
    ids: Annotated[
        list[str],
        typer.Argument(
            metavar="ID...", autocompletion=complete_instances, show_default=False, help="What `register` printed."
        ),
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove registered instances; returns when no caller uses them any more."""
    screen = make_screen(ctx)
    project = find_project(ctx)

    async def converse() -> None:
        async with connect(project) as client:
            for registration in ids:
                print_applied(screen, await client.instances.deregister(registration), output=output)

    asyncio.run(converse())


def check_address(address: str) -> None:
    """Refuse what is no ``HOST:PORT``. Raises UsageError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--address: {address!r} is no address", hint="write HOST:PORT, such as 127.0.0.1:9000")


async def _register(
    project: Project, screen: Screen, request: RegisterRequest, *, output: Output, keep_alive: bool
) -> int:
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(code: int) -> None:
        if not stopped.done():
            stopped.set_result(code)

    async with connect(project) as client:
        result = await client.instances.register(request)
        if keep_alive:
            # Before its id is told: whoever reads that may send a signal at once.
            loop.add_signal_handler(signal.SIGINT, stop, INTERRUPTED)
            loop.add_signal_handler(signal.SIGTERM, stop, _TERMINATED)
    _print_registered(screen, request, result, output=output)
    if not keep_alive:
        return 0
    assert request.ttl is not None
    screen.say(f"renewing it every {request.ttl / HEARTBEATS_PER_TTL:g} s; Ctrl+C deregisters it")
    registration = await _renew(project, screen, request, result.id, stopped)
    try:
        async with connect(project) as client:
            await client.instances.deregister(registration)
        screen.say(f"deregistered {registration}")
    except (NotFoundError, NotRunningError):
        pass  # it is gone already, which is what was wanted
    return stopped.result()


async def _renew(
    project: Project, screen: Screen, request: RegisterRequest, registration: str, stopped: asyncio.Future[int]
) -> str:
    """Send heartbeats until ``stopped``; returns the id that holds then.

    A control plane that does not answer is waited for: its successor knows the registration, or is told anew.
    """
    assert request.ttl is not None
    missing = False
    while True:
        done, _ = await asyncio.wait([stopped], timeout=request.ttl / HEARTBEATS_PER_TTL)
        if done:
            return registration
        try:
            async with connect(project) as client:
                try:
                    await client.instances.heartbeat(registration)
                except NotFoundError:
                    registration = (await client.instances.register(request)).id
                    screen.say(f"registered again as {registration}")
        except (NotRunningError, WaitTimeoutError) as error:
            if not missing:
                screen.say(f"warning: {error.message}; trying on")
            missing = True
        else:
            if missing:
                screen.say(f"the control plane answers again; {registration} is renewed")
            missing = False


def _print_registered(screen: Screen, request: RegisterRequest, result: RegisterResult, *, output: Output) -> None:
    from meshctl.cli.render import print_json, print_line  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.wire.models import encode  # noqa: PLC0415

    if output is Output.JSON:
        print_json(encode(result))
        return
    until = f"for {request.ttl:g} s unless renewed" if request.ttl is not None else "until it is deregistered"
    screen.say(f"registered {request.address} as {result.service} {result.version}, {until}")
    print_line(screen.out, result.id)
