"""``meshctl inject kill | exit | pause | cpu | partition | latency | cert-expired``: faults not made of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_called, complete_services, complete_targets
from meshctl.cli.options import Output, OutputOption, example, parse_duration
from meshctl.cli.project import ask, find_project, make_screen
from meshctl.cli.wording import count_nouns, describe_duration
from meshctl.client.author import author_of

if TYPE_CHECKING:
    from meshctl.wire.disturbances import DisturbanceKind, DisturbResult

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE[/INSTANCE]",
        autocompletion=complete_targets,
        show_default=False,
        help="A service, which stands for all its instances, or one of them.",
    ),
]
ServiceArgument = Annotated[
    str,
    typer.Argument(metavar="SERVICE", autocompletion=complete_services, show_default=False, help="The service."),
]
ForOption = Annotated[
    str, typer.Option("--for", metavar="DURATION", help="How long, from 1s to 24h: a fault always has a deadline.")
]
NameOption = Annotated[
    str, typer.Option("--name", metavar="NAME", show_default=False, help="What the fault is called. Default: f1, f2...")
]
MessageOption = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the events.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Even while a rollout of the service is under way.")]


def add_disturbances(group: typer.Typer) -> None:
    """Add the commands to ``inject``."""
    group.command("kill", epilog=example("meshctl inject kill payment", "meshctl inject kill payment/payment-v1-1"))(
        inject_kill
    )
    group.command("exit", epilog=example("meshctl inject exit payment-v1-1"))(inject_exit)
    group.command("pause", epilog=example("meshctl inject pause payment --for 30s"))(inject_pause)
    group.command("cpu", epilog=example("meshctl inject cpu payment --percent 80 --for 1m"))(inject_cpu)
    group.command(
        "partition",
        epilog=example(
            "meshctl inject partition checkout payment", "meshctl inject partition checkout payment --one-way --for 1m"
        ),
    )(inject_partition)
    group.command("latency", epilog=example("meshctl inject latency db --delay 50ms --jitter 10ms --from orders"))(
        inject_latency
    )
    group.command("cert-expired", epilog=example("meshctl inject cert-expired payment --for 1m"))(inject_cert_expired)


def inject_kill(
    ctx: typer.Context,
    target: TargetArgument,
    reason: MessageOption = "",
    output: OutputOption = Output.TABLE,
    *,
    force: ForceOption = False,
) -> None:
    """Kill instances (SIGKILL). They come back as after any crash, by their restart policy.

    Returns when they have ended. It is over at once, so it has no deadline and is not listed.
    """
    _disturb(ctx, "kill", target, reason=reason, force=force, output=output)


def inject_exit(
    ctx: typer.Context,
    target: TargetArgument,
    reason: MessageOption = "",
    output: OutputOption = Output.TABLE,
    *,
    force: ForceOption = False,
) -> None:
    """Let instances end by themselves (SIGTERM) though nobody expects it: what is under way they may finish.

    Returns when they have ended. They come back by their restart policy.
    """
    _disturb(ctx, "exit", target, reason=reason, force=force, output=output)


def inject_pause(
    ctx: typer.Context,
    target: TargetArgument,
    duration: ForOption = "5m",
    reason: MessageOption = "",
    output: OutputOption = Output.TABLE,
    *,
    name: NameOption = "",
    force: ForceOption = False,
) -> None:
    """Stop instances in their tracks (SIGSTOP): they take connections, and answer nothing.

    Health checks see it, as they would in life, and a liveness check may start the instance anew, which ends the
    fault. At the deadline they go on, even when the control plane has been killed meanwhile.
    """
    _disturb(ctx, "pause", target, duration=duration, name=name, reason=reason, force=force, output=output)


def inject_cpu(
    ctx: typer.Context,
    target: TargetArgument,
    duration: ForOption = "5m",
    reason: MessageOption = "",
    output: OutputOption = Output.TABLE,
    *,
    percent: Annotated[
        float, typer.Option("--percent", metavar="PERCENT", help="How much of its time is taken from it.")
    ] = 80.0,
    name: NameOption = "",
    force: ForceOption = False,
) -> None:
    """Take processor time from instances, and from them alone: they stand still for a part of each tenth of a second.

    It is what a machine that others use up does to them, without slowing the rest of this one.
    """
    _disturb(
        ctx, "cpu", target, duration=duration, percent=percent, name=name, reason=reason, force=force, output=output
    )


def inject_partition(  # noqa: PLR0917 - two services, and the options that all have
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="SERVICE", autocompletion=complete_called, show_default=False, help="One service."),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="SERVICE", autocompletion=complete_called, show_default=False, help="The other."),
    ],
    duration: ForOption = "5m",
    reason: MessageOption = "",
    output: OutputOption = Output.TABLE,
    *,
    one_way: Annotated[bool, typer.Option("--one-way", help="Only what the first one asks of the second.")] = False,
    name: NameOption = "",
    force: ForceOption = False,
) -> None:
    """Let nothing pass between two services: connections are made, and nothing comes over them.

    Others reach both. It works below HTTP, so for plain TCP too, where connections that are open are cut within 5s.
    """
    _disturb(
        ctx,
        "partition",
        target,
        source=source,
        one_way=one_way,
        duration=duration,
        name=name,
        reason=reason,
        force=force,
        output=output,
    )


def inject_latency(
    ctx: typer.Context,
    service: ServiceArgument,
    duration: ForOption = "5m",
    reason: MessageOption = "",
    output: OutputOption = Output.TABLE,
    *,
    delay: Annotated[str, typer.Option("--delay", metavar="DURATION", help="How late bytes come, each way.")],
    jitter: Annotated[str, typer.Option("--jitter", metavar="DURATION", help="How far from that they may be.")] = "0",
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SERVICE",
            autocompletion=complete_called,
            show_default=False,
            help="Only for this caller. Default: all.",
        ),
    ] = "",
    name: NameOption = "",
    force: ForceOption = False,
) -> None:
    """Let everything between a service and its callers come late, as over a long line: also for plain TCP.

    It is the way that is slow, so that a handshake takes several times as long. For single requests of HTTP there is
    `meshctl inject fault --delay`.
    """
    _disturb(
        ctx,
        "latency",
        service,
        source=source,
        delay_ms=parse_duration(delay, option="--delay") * 1000,
        jitter_ms=parse_duration(jitter, option="--jitter") * 1000,
        duration=duration,
        name=name,
        reason=reason,
        force=force,
        output=output,
    )


def inject_cert_expired(
    ctx: typer.Context,
    service: ServiceArgument,
    duration: ForOption = "5m",
    reason: MessageOption = "",
    output: OutputOption = Output.TABLE,
    *,
    name: NameOption = "",
    force: ForceOption = False,
) -> None:
    """Let the sidecar of a service serve a certificate outside its validity: its peers refuse it, and it is refused.

    The certificate becomes valid at the deadline by itself, whether the control plane lives or not; what peers say of
    it meanwhile is that it is not valid yet. Connections are made anew, so that it is felt at once.
    """
    _disturb(ctx, "cert-expired", service, duration=duration, name=name, reason=reason, force=force, output=output)


def _disturb(
    ctx: typer.Context,
    kind: DisturbanceKind,
    target: str,
    *,
    output: Output,
    duration: str = "5m",
    source: str = "",
    one_way: bool = False,
    percent: float = 100.0,
    delay_ms: float = 0.0,
    jitter_ms: float = 0.0,
    name: str = "",
    reason: str = "",
    force: bool = False,
) -> None:
    from meshctl.wire.disturbances import DisturbRequest  # noqa: PLC0415 - loaded when it is sent

    request = DisturbRequest(
        kind=kind,
        target=target,
        source=source,
        one_way=one_way,
        percent=percent,
        delay_ms=delay_ms,
        jitter_ms=jitter_ms,
        duration=parse_duration(duration, option="--for"),
        name=name,
        author=author_of(f"inject {kind}"),
        reason=reason,
        force=force,
    )
    _print(ctx, ask(find_project(ctx), lambda client: client.disturbances.disturb(request)), output=output)


def _print(ctx: typer.Context, result: DisturbResult, *, output: Output) -> None:
    from meshctl.cli.render import format_age, print_json, read_clock  # noqa: PLC0415 - rich
    from meshctl.wire.models import encode  # noqa: PLC0415

    if output is Output.JSON:
        print_json(encode(result))
        return
    screen = make_screen(ctx)
    took = describe_duration(result.duration_ms)
    sidecars = f"at {count_nouns(result.acked, 'sidecar')} " if result.acked else ""
    screen.say(f"{result.message} ({sidecars}in {took})")
    if result.note:
        screen.say(result.note)
    if result.id and result.ends_at is not None:
        left = format_age(round(result.ends_at - read_clock()))
        screen.say(f"{result.id} ends by itself in {left}, or by: meshctl inject clear {result.id}")
