"""``meshctl canary start`` and what goes with it: rollouts that are judged and shifted by themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.canary import ServiceArgument
from meshctl.cli.complete import complete_services, complete_versions
from meshctl.cli.options import Output, OutputOption, example, parse_duration
from meshctl.cli.policies import ReasonOption
from meshctl.cli.project import Screen, ask, find_project, make_screen
from meshctl.client.author import author_of
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient
    from meshctl.wire.rollouts import ChangeRequest, RolloutStatus

_RUN = "Judged and shifted by itself"

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group ``canary``."""
    from meshctl.cli.rollout_watch import watch  # noqa: PLC0415 - it takes from this module what both need

    group.command(
        "start",
        rich_help_panel=_RUN,
        epilog=example(
            "meshctl canary start checkout v2",
            "meshctl canary start checkout v2 --steps 10,50,100 --interval 5s --window 60s --watch",
        ),
    )(start)
    group.command("status", rich_help_panel=_RUN, epilog=example("meshctl canary status checkout"))(status)
    group.command("watch", rich_help_panel=_RUN, epilog=example("meshctl canary watch checkout"))(watch)
    group.command("pause", rich_help_panel=_RUN, epilog=example("meshctl canary pause checkout -m 'deploy freeze'"))(
        pause
    )
    group.command("resume", rich_help_panel=_RUN, epilog=example("meshctl canary resume checkout"))(resume)
    group.command("promote", rich_help_panel=_RUN, epilog=example("meshctl canary promote checkout --full"))(promote)
    group.command("rollback", rich_help_panel=_RUN, epilog=example("meshctl canary rollback checkout -m 'bad prices'"))(
        rollback
    )
    group.command("retry", rich_help_panel=_RUN, epilog=example("meshctl canary retry checkout"))(retry)
    group.command(
        "history",
        rich_help_panel=_RUN,
        epilog=example("meshctl canary history checkout", "meshctl canary history --rollout 3 -o json"),
    )(history)


def start(
    ctx: typer.Context,
    service: ServiceArgument,
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION", autocompletion=complete_versions, show_default=False, help="The version to roll out."
        ),
    ],
    *,
    steps: Annotated[
        str, typer.Option(metavar="W,W,...", show_default="5,10,25,50,100", help="Its weights, one after another.")
    ] = "",
    interval: Annotated[
        str, typer.Option(metavar="TIME", show_default="10s", help="From one look at the traffic to the next.")
    ] = "",
    window: Annotated[
        str,
        typer.Option(
            metavar="TIME", show_default="300s", help="What the versions are compared over; the least time of a step."
        ),
    ] = "",
    max_error_ratio: Annotated[
        float | None,
        typer.Option(metavar="RATIO", show_default="1.1", help="How many times the stable version's share of errors."),
    ] = None,
    max_p99_ratio: Annotated[
        float | None, typer.Option(metavar="RATIO", show_default="1.2", help="How many times the stable version's p99.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            metavar="P", show_default="0.01", help="The probability that a version within both bounds is rolled back."
        ),
    ] = None,
    min_requests: Annotated[
        int | None, typer.Option(metavar="N", show_default="100", help="Requests that it must answer at each step.")
    ] = None,
    on_failure: Annotated[
        str, typer.Option(metavar="rollback|freeze", show_default="rollback", help="What to do when it is worse.")
    ] = "",
    deadline: Annotated[
        str, typer.Option(metavar="TIME", show_default="1h", help="When to pause what has not ended; 0 for never.")
    ] = "",
    count_faults: Annotated[
        bool | None, typer.Option("--count-faults", help="Let injected faults count as evidence.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a rollout that is under way.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Begin although a fault of the service is on.")] = False,
    reason: ReasonOption = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show how it goes until it ends.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Roll a version out: give it more of the traffic step by step, as long as nothing speaks against it.

    At each interval both versions' errors and p99 are compared by a sequential test. A version that is worse beyond
    doubt loses its traffic at once; one that is not is given the next step when it has answered enough requests for
    long enough. What is not said here is taken from `rollout` of the service in the topology, or the default.
    """
    from meshctl.wire.rollouts import StartRequest  # noqa: PLC0415 - loaded when it is sent

    if on_failure not in ("", "rollback", "freeze"):
        raise UsageError(f"--on-failure: {on_failure!r} is none of rollback and freeze", hint="--on-failure freeze")
    request = StartRequest(
        service=service,
        version=version,
        steps=read_steps(steps),
        interval=_seconds(interval, "--interval"),
        window=_seconds(window, "--window"),
        max_error_ratio=max_error_ratio,
        max_p99_ratio=max_p99_ratio,
        alpha=alpha,
        min_requests=min_requests,
        on_failure="freeze" if on_failure == "freeze" else "rollback" if on_failure else None,
        deadline=_seconds(deadline, "--deadline"),
        count_faults=count_faults,
        author=author_of("canary start"),
        reason=reason,
        replace=replace,
        force=force,
    )
    found = _begin(ctx, service, lambda client: client.rollouts.start(request))
    _tell_begun(ctx, found, watch=watch, output=output)


def status(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="[SERVICE]", autocompletion=complete_services, show_default=False, help="All when none is named."
        ),
    ] = "",
    *,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how rollouts stand: all in a table, or one service's with both versions and the evidence."""
    from meshctl.cli.render import print_json, print_line, print_table  # noqa: PLC0415 - rich is loaded to print
    from meshctl.cli.rollout_view import LIST_COLUMNS, list_row  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    found = ask(find_project(ctx), lambda client: client.rollouts.list(service))
    screen = make_screen(ctx)
    if output is Output.JSON:
        print_json(encode(found))
    elif not found.rollouts:
        screen.say(f"{service or 'no service'} has had {'no' if service else 'a'} rollout; {_HOW_TO_START}")
    elif service:
        print_rollout(screen, found.rollouts[0])
    else:
        print_table(screen.out, LIST_COLUMNS, [list_row(each) for each in found.rollouts])
        print_line(screen.out, "")
        screen.say("`meshctl canary status SERVICE` shows the evidence")


_HOW_TO_START = "`meshctl canary start SERVICE VERSION` begins one"


def pause(
    ctx: typer.Context, service: ServiceArgument, *, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Hold a rollout at its weight until `resume`."""
    _change(ctx, "pause", service, lambda client, request: client.rollouts.pause(request), reason=reason, output=output)


def resume(
    ctx: typer.Context, service: ServiceArgument, *, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Go on with a rollout that is paused or frozen, from fresh evidence."""
    _change(
        ctx, "resume", service, lambda client, request: client.rollouts.resume(request), reason=reason, output=output
    )


def promote(
    ctx: typer.Context,
    service: ServiceArgument,
    *,
    full: Annotated[bool, typer.Option("--full", help="Give it all of the traffic at once.")] = False,
    yes: YesOption = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Take the next step now, whatever the evidence is; with --full, give the version all of the traffic.

    Returns when that is in effect at every sidecar. --full asks in a terminal, unless you say --yes.
    """
    if full:
        confirm(ctx, f"give all traffic of {service} to its canary?", yes=yes)

    def send(client: MeshClient, request: ChangeRequest) -> Awaitable[RolloutStatus]:
        return client.rollouts.promote(request)

    _change(ctx, "promote", service, send, reason=reason, output=output, full=full)


def rollback(
    ctx: typer.Context, service: ServiceArgument, *, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Take all traffic from the canary, in one step; returns when that is in effect at every sidecar.

    The version stays rolled back until `canary retry`, or until the topology says something else of it.
    """
    _change(
        ctx,
        "rollback",
        service,
        lambda client, request: client.rollouts.roll_back(request),
        reason=reason,
        output=output,
    )


def retry(
    ctx: typer.Context,
    service: ServiceArgument,
    version: Annotated[
        str,
        typer.Argument(
            metavar="[VERSION]",
            autocompletion=complete_versions,
            show_default=False,
            help="Which version's; that of the last rollout when none is named.",
        ),
    ] = "",
    *,
    reason: ReasonOption = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show how it goes until it ends.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Begin the last rollout of a service, or of a version, anew, with its settings, though it was rolled back."""
    from meshctl.wire.rollouts import ChangeRequest  # noqa: PLC0415 - loaded when it is sent

    request = ChangeRequest(service=service, version=version, author=author_of("canary retry"), reason=reason)
    found = _begin(ctx, service, lambda client: client.rollouts.retry(request))
    _tell_begun(ctx, found, watch=watch, output=output)


def history(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="[SERVICE]", autocompletion=complete_services, show_default=False, help="All when none is named."
        ),
    ] = "",
    *,
    rollout: Annotated[int, typer.Option("--rollout", min=0, metavar="N", help="Only this one.")] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every decision of rollouts and what it rests on; -o json has all the numbers."""
    from meshctl.cli.render import format_time, print_json, print_line, print_table  # noqa: PLC0415 - as in status
    from meshctl.cli.rollout_view import HISTORY_COLUMNS, history_head, history_row  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    found = ask(find_project(ctx), lambda client: client.rollouts.history(service, rollout))
    screen = make_screen(ctx)
    if output is Output.JSON:
        print_json(encode(found))
        return
    if not found.rollouts:
        screen.say(f"there was no rollout{f' of {service}' if service else ''} yet; {_HOW_TO_START}")
    for index, record in enumerate(found.rollouts):
        if index:
            print_line(screen.out, "")
        print_line(screen.out, history_head(record))
        rows = [history_row(decision, format_time(decision.time)) for decision in record.decisions]
        print_table(screen.out, HISTORY_COLUMNS, rows)


# ------------------------------------------------------------------------------------------ shared


def print_rollout(screen: Screen, found: RolloutStatus) -> None:
    """Print one rollout as it stands."""
    from meshctl.cli.render import print_line, read_clock  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.cli.rollout_view import draw_rollout  # noqa: PLC0415

    for line in draw_rollout(found, read_clock(), screen.out.width):
        print_line(screen.out, line)


def read_steps(text: str) -> list[int] | None:
    """Weights of ``5,10%,100``; None of nothing. Raises UsageError for what is no whole percentage."""
    if not text:
        return None
    steps = []
    for word in text.split(","):
        digits = word.strip().removesuffix("%")
        if not digits.isascii() or not digits.isdecimal():
            raise UsageError(f"--steps: {word.strip()!r} is no whole percentage", hint="write --steps 5,25,100")
        steps.append(int(digits))
    return steps


def confirm(ctx: typer.Context, question: str, *, yes: bool) -> None:
    """Ask before something that cannot be taken back; without a terminal it is done. Raises typer.Abort on no."""
    screen = make_screen(ctx)
    if not yes and screen.err.is_terminal and screen.out.is_terminal:
        typer.confirm(question, abort=True, err=True)


def _seconds(text: str, option: str) -> float | None:
    return parse_duration(text, option=option) if text else None


def _begin(ctx: typer.Context, service: str, send: Callable[[MeshClient], Awaitable[RolloutStatus]]) -> RolloutStatus:
    """Begin a rollout, and tell how its instances come up; after Ctrl+C it goes on."""
    from meshctl.cli.starting import tell_starting  # noqa: PLC0415 - rich is loaded when something is printed

    screen = make_screen(ctx)

    async def converse(client: MeshClient) -> RolloutStatus:
        async with tell_starting(client, screen, service, interrupted="leaves it to itself"):
            return await send(client)

    try:
        return ask(find_project(ctx), converse)
    except KeyboardInterrupt:
        screen.say(f"what was asked for goes on; `meshctl canary status {service}` shows how it stands")
        raise


def _tell_begun(ctx: typer.Context, found: RolloutStatus, *, watch: bool, output: Output) -> None:
    from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.cli.rollout_watch import follow  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    if watch:
        follow(ctx, found.service, output=output)
    elif output is Output.JSON:
        print_json(encode(found))
    else:
        steps = ", ".join(f"{weight}%" for weight in found.settings.steps)
        screen = make_screen(ctx)
        screen.say(f"rollout {found.number} of {found.service} began: {found.stable} -> {found.version}, by {steps}")
        screen.say(f"{found.version} has {found.applied}% of the traffic now")
        screen.say(f"`meshctl canary watch {found.service}` shows how it goes")


def _change(
    ctx: typer.Context,
    verb: str,
    service: str,
    send: Callable[[MeshClient, ChangeRequest], Awaitable[RolloutStatus]],
    *,
    reason: str,
    output: Output,
    full: bool = False,
) -> None:
    from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.cli.rollout_view import describe_next, describe_phase  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415
    from meshctl.wire.rollouts import ChangeRequest  # noqa: PLC0415

    request = ChangeRequest(service=service, author=author_of(f"canary {verb}"), reason=reason, full=full)
    found = ask(find_project(ctx), lambda client: send(client, request))
    if output is Output.JSON:
        print_json(encode(found))
        return
    screen = make_screen(ctx)
    phase = describe_phase(found).plain
    screen.say(f"{found.service}: {found.version} is {phase} at {found.applied}%")
    if following := describe_next(found, found.since):
        screen.say(following)
