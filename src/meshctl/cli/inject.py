"""``meshctl inject``: break requests on purpose, see what is broken, and end it."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_called, complete_faults, complete_instances, complete_versions
from meshctl.cli.disturb import add_disturbances
from meshctl.cli.errors import FAILED
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, example, parse_duration
from meshctl.cli.project import ask, find_project, make_screen
from meshctl.cli.wording import count_nouns, describe_duration
from meshctl.client.author import author_of
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from meshctl.cli.project import Screen
    from meshctl.wire.faults import FaultForecast, InjectRequest, InjectResult
    from meshctl.wire.models import FaultShape

_PANEL_WHAT = "What happens"
_PANEL_WHICH = "To which requests"
_LEAST_SHOWN = 0.000001


class Side(StrEnum):
    """Where a fault is made."""

    CALLEE = "callee"
    CALLER = "caller"


MessageOption = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the events.")]
DurationOption = Annotated[
    str, typer.Option("--for", metavar="DURATION", help="How long, from 1s to 24h: a fault always has a deadline.")
]
NameOption = Annotated[
    str, typer.Option("--name", metavar="NAME", show_default=False, help="What the fault is called. Default: f1, f2...")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Even while a rollout of the service is under way.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, whatever it leaves of the traffic.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only print what callers would see.")]

FAULT_EXAMPLES = (
    "meshctl inject fault payment --delay 300ms --jitter 50ms --percent 20",
    "meshctl inject fault payment --abort 503 --percent 0.5 --from checkout --for 10m",
    "meshctl inject fault catalog --blackhole --path /items --version v2 --dry-run",
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="inject",
        help="Break things on purpose, for a while.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=example(FAULT_EXAMPLES[0], "meshctl inject list"),
    )
    group.command("fault", epilog=example(*FAULT_EXAMPLES))(inject_fault)
    add_disturbances(group)
    group.command("list", epilog=example("meshctl inject list", "meshctl inject list -o json"))(list_faults)
    group.command("clear", epilog=example("meshctl inject clear f1", "meshctl inject clear --all"))(clear_faults)
    app.add_typer(group, rich_help_panel=PANEL_CHANGE)


def inject_fault(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            autocompletion=complete_called,
            show_default=False,
            help="The service that is called; gateway for whatever comes in through it.",
        ),
    ],
    *,
    delay: Annotated[
        str,
        typer.Option(
            "--delay", metavar="DURATION", show_default=False, help="Hold requests up.", rich_help_panel=_PANEL_WHAT
        ),
    ] = "",
    jitter: Annotated[
        str,
        typer.Option(
            "--jitter",
            metavar="DURATION",
            show_default=False,
            help="Spread delays evenly over so much more and less.",
            rich_help_panel=_PANEL_WHAT,
        ),
    ] = "",
    abort: Annotated[
        int,
        typer.Option(
            "--abort",
            metavar="STATUS",
            show_default=False,
            help="Answer with this HTTP status in place of the service.",
            rich_help_panel=_PANEL_WHAT,
        ),
    ] = 0,
    grpc_status: Annotated[
        str,
        typer.Option(
            "--grpc-status",
            metavar="CODE",
            show_default=False,
            help="Answer with this gRPC status, such as UNAVAILABLE.",
            rich_help_panel=_PANEL_WHAT,
        ),
    ] = "",
    rate: Annotated[
        str,
        typer.Option(
            "--rate",
            metavar="RATE",
            show_default=False,
            help="Let bodies of answers come at this rate, such as 10KB/s.",
            rich_help_panel=_PANEL_WHAT,
        ),
    ] = "",
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Cut requests off before there is an answer.", rich_help_panel=_PANEL_WHAT),
    ] = False,
    blackhole: Annotated[
        bool,
        typer.Option(
            "--blackhole", help="Give no answer until the caller has waited long enough.", rich_help_panel=_PANEL_WHAT
        ),
    ] = False,
    percent: Annotated[
        float,
        typer.Option(
            "--percent",
            metavar="PERCENT",
            help="The share of the requests, fractions too; each effect is drawn by itself.",
            rich_help_panel=_PANEL_WHAT,
        ),
    ] = 100.0,
    exclusive: Annotated[
        bool,
        typer.Option(
            "--exclusive",
            help="No request is both delayed and failed: each happens to PERCENT.",
            rich_help_panel=_PANEL_WHAT,
        ),
    ] = False,
    side: Annotated[
        Side,
        typer.Option(
            "--side",
            help="At the callee retries, breakers and ejection see it; at the caller nobody but its application.",
            rich_help_panel=_PANEL_WHAT,
        ),
    ] = Side.CALLEE,
    callers: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="SERVICE",
            autocompletion=complete_called,
            show_default=False,
            help="Only requests from this service; repeat for more.",
            rich_help_panel=_PANEL_WHICH,
        ),
    ] = None,
    version: Annotated[
        str,
        typer.Option(
            "--version",
            metavar="VERSION",
            autocompletion=complete_versions,
            show_default=False,
            help="Only requests to this version.",
            rich_help_panel=_PANEL_WHICH,
        ),
    ] = "",
    instance: Annotated[
        str,
        typer.Option(
            "--instance",
            metavar="INSTANCE",
            autocompletion=complete_instances,
            show_default=False,
            help="Only requests to this instance.",
            rich_help_panel=_PANEL_WHICH,
        ),
    ] = "",
    path: Annotated[
        str,
        typer.Option(
            "--path",
            metavar="PATH",
            show_default=False,
            help="Only requests whose path begins so, in whole segments.",
            rich_help_panel=_PANEL_WHICH,
        ),
    ] = "",
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            show_default=False,
            help="Only requests with this method; repeat for more.",
            rich_help_panel=_PANEL_WHICH,
        ),
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            metavar="NAME[=VALUE]",
            show_default=False,
            help="Only requests with this header; repeat for more, which all must be there.",
            rich_help_panel=_PANEL_WHICH,
        ),
    ] = None,
    health_checks: Annotated[
        bool,
        typer.Option(
            "--health-checks", help="Hit requests to paths of health checks too.", rich_help_panel=_PANEL_WHICH
        ),
    ] = False,
    duration: DurationOption = "5m",
    name: NameOption = "",
    reason: MessageOption = "",
    force: ForceOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Break requests to a service: delay them, fail them, slow them, or leave them without an answer.

    Connections that are open feel it at once. It prints what callers will see, and returns when the sidecars
    concerned have acknowledged. It ends by itself: at its deadline, or within seconds when the control plane dies.
    Answers that a fault made or delayed carry the header x-meshctl-fault with its name.
    """
    from meshctl.wire.faults import InjectRequest  # noqa: PLC0415 - loaded when it is sent

    parse_duration(duration, option="--for")
    request = InjectRequest(
        service=service,
        delay=delay,
        jitter=jitter,
        abort=abort,
        grpc_status=grpc_status.upper(),
        rate=rate,
        reset=reset,
        blackhole=blackhole,
        percent=percent,
        exclusive=exclusive,
        side=side.value,
        callers=list(callers or ()),
        version=version,
        instance=instance,
        path=path,
        methods=[method.upper() for method in methods or ()],
        headers=dict(_read_header(text) for text in headers or ()),
        health_checks=health_checks,
        duration=duration,
        name=name,
        force=force,
        confirmed=yes,
        dry_run=dry_run,
        author=author_of("inject fault"),
        reason=reason,
    )
    print_injected(ctx, _send(ctx, request), output=output)


def list_faults(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the faults that are on: what each does, and when it ends."""
    from meshctl.cli.render import Column, format_age, print_json, print_table, style_state  # noqa: PLC0415 - rich
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    found = ask(find_project(ctx), lambda client: client.faults.list())
    if output is Output.JSON:
        print_json(encode(found))
        return
    if not found.faults:
        screen.say("no fault is on")
        return
    wide = output is Output.WIDE
    columns = [Column(title="ID"), Column(title="ON"), Column(title="FAULT", wrap=True), Column(title="STATE", drop=2)]
    columns += [Column(title="ENDS IN", justify="right"), Column(title="BY", drop=1)]
    columns += [Column(title="WHY", drop=3)] if wide else []
    rows: list[Sequence[str | Text]] = []
    for fault in found.faults:
        row: list[str | Text] = [fault.id, fault.subject, fault.summary, style_state(fault.state)]
        rows.append([*row, format_age(fault.remaining), fault.author, *([fault.reason] if wide else [])])
    print_table(screen.out, columns, rows)


def clear_faults(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", autocompletion=complete_faults, show_default=False, help="Which faults."),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """End faults before their time; returns when the sidecars concerned have acknowledged."""
    from meshctl.cli.render import print_json  # noqa: PLC0415 - rich
    from meshctl.wire.faults import ClearRequest  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    if bool(ids) == every:
        raise UsageError("name the faults to end, or --all", hint="`meshctl inject list` shows them")
    request = ClearRequest(ids=list(ids or ()), author=author_of("inject clear"))
    result = ask(find_project(ctx), lambda client: client.faults.clear(request))
    if output is Output.JSON:
        print_json(encode(result))
        return
    screen = make_screen(ctx)
    for fault in result.faults:
        screen.say(f"{fault.id} is over: {fault.subject}, {fault.summary}")
    screen.say(f"{describe_acks(result.acked, result.duration_ms)}" if result.faults else "no fault is on")


def print_injected(ctx: typer.Context, result: InjectResult, *, output: Output) -> None:
    """Tell of a fault that is on now, or would be: what it does, and what callers will see."""
    from meshctl.cli.render import print_json  # noqa: PLC0415 - rich
    from meshctl.wire.models import encode  # noqa: PLC0415

    if output is Output.JSON:
        print_json(encode(result))
        return
    screen = make_screen(ctx)
    fault = result.fault
    if fault is None:
        screen.say(f"{result.subject}: {result.summary}")
        print_forecast(screen, result.forecast)
        screen.say("\nnothing was changed (--dry-run)")
        return
    screen.say(f"{fault.id} is on: {result.subject}, {result.summary}, for {describe_left(fault)}")
    screen.say(describe_acks(result.acked, result.duration_ms))
    print_forecast(screen, result.forecast)
    screen.say(f"\nend it before its time: meshctl inject clear {fault.id}")


def print_forecast(screen: Screen, seen: FaultForecast) -> None:
    """What callers will see of a fault."""
    from meshctl.cli.render import Column, print_line, print_table  # noqa: PLC0415 - rich

    print_line(screen.out, "")
    columns = [Column(title="WHAT AN ATTEMPT MEETS"), Column(title="SHARE", justify="right")]
    print_table(screen.out, columns, [[item.what, format_share(item.share)] for item in seen.outcomes])
    if any(item.fails for item in seen.calls):
        print_line(screen.out, "")
        columns = [Column(title="REQUESTS"), Column(title="ATTEMPTS", justify="right")]
        columns.append(Column(title="FAIL IN THE END", justify="right"))
        rows = [[item.which, str(item.attempts), format_share(item.fails)] for item in seen.calls]
        print_table(screen.out, columns, rows)
    for note in seen.notes:
        print_line(screen.out, f"- {note}")


def format_share(share: float) -> str:
    """A share as a percentage with three digits that count: ``12.5%``, ``0.01%``."""
    percent = share * 100
    if 0 < percent < _LEAST_SHOWN:
        return "<0.000001%"
    return f"{percent:.3g}%" if percent < 99.95 or percent == 100 else f"{percent:.6g}%"


def describe_acks(acked: int, duration_ms: float) -> str:
    """How many sidecars have acknowledged, and how long that took."""
    return f"in effect at {count_nouns(acked, 'sidecar')} after {describe_duration(duration_ms)}"


def describe_left(fault: FaultShape) -> str:
    """How long a fault lasts still."""
    from meshctl.cli.render import format_age  # noqa: PLC0415 - rich

    return format_age(round(fault.remaining))


def _send(ctx: typer.Context, request: InjectRequest) -> InjectResult:
    """Inject, and ask whoever sits at a terminal before a fault that leaves nothing of what comes in from outside."""
    import msgspec  # noqa: PLC0415 - loaded when something is sent

    project = find_project(ctx)
    if not request.confirmed and not request.dry_run and sys.stdin.isatty():
        trial = msgspec.structs.replace(request, dry_run=True)
        danger = ask(project, lambda client: client.faults.inject(trial)).forecast.danger
        if danger:
            if not typer.confirm(f"{danger} for {request.duration}: inject it?", err=True):
                raise typer.Exit(FAILED)
            request = msgspec.structs.replace(request, confirmed=True)
    return ask(project, lambda client: client.faults.inject(request))


def _read_header(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--header {text!r} names no header", hint="write --header x-user=ann, or --header x-user")
    return name, value if equals else None
