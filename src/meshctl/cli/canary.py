"""``meshctl canary``: shifting traffic between the versions of a service, by hand.

The group is made here; what other modules add to it stands in ``register``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_services, complete_versions, complete_weights
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, example, parse_duration
from meshctl.cli.policies import BaseOption, ReasonOption
from meshctl.cli.project import Screen, ask, find_project, make_screen
from meshctl.cli.wording import count_nouns, describe_applied, describe_duration
from meshctl.client.author import author_of
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient
    from meshctl.wire.shifts import Traffic, TrafficResult

WEIGHT_HINT = "write VERSION=WEIGHT, such as v2=10; what is not named goes to the stable version"

ServiceArgument = Annotated[
    str,
    typer.Argument(metavar="SERVICE", autocompletion=complete_services, show_default=False, help="Whose traffic."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it even while a rollout of the service is under way.")]
TimeoutOption = Annotated[
    str, typer.Option(metavar="TIME", help="How long instances that are started may take to be healthy.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would change, and have Envoy look at it.")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    from meshctl.cli import rollouts  # noqa: PLC0415 - it takes from this module what both need

    group = typer.Typer(
        name="canary",
        help="Shift traffic between the versions of a service, by hand or judged by itself.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=example("meshctl canary shift checkout v2=10", "meshctl canary start checkout v2 --watch"),
    )
    group.command(
        "shift",
        epilog=example(
            "meshctl canary shift checkout v2=10 -m 'try the new prices'",
            "meshctl canary shift checkout v2=100 --header x-canary=1",
            "meshctl canary shift checkout v2=25 --sticky cookie",
            "meshctl canary shift checkout v2=0",
        ),
    )(shift)
    group.command(
        "mirror",
        epilog=example(
            "meshctl canary mirror checkout v2 --percent 10", "meshctl canary mirror checkout --stop -o json"
        ),
    )(mirror)
    rollouts.register(group)
    app.add_typer(group, rich_help_panel=PANEL_CHANGE)


def shift(
    ctx: typer.Context,
    service: ServiceArgument,
    weights: Annotated[
        list[str],
        typer.Argument(
            metavar="VERSION=WEIGHT...",
            autocompletion=complete_weights,
            show_default=False,
            help="The share of each version in whole percent.",
        ),
    ],
    *,
    header: Annotated[
        str,
        typer.Option(
            metavar="NAME=VALUE",
            show_default=False,
            help="Only requests with this header reach the versions named; NAME alone is any value.",
        ),
    ] = "",
    sticky: Annotated[
        str,
        typer.Option(
            metavar="cookie|header:NAME|off",
            show_default=False,
            help="Keep each user on one version: by a cookie that the mesh gives, or by a header such as x-user.",
        ),
    ] = "",
    timeout: TimeoutOption = "60s",
    force: ForceOption = False,
    reason: ReasonOption = "",
    base: BaseOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give versions of a service other shares of its traffic; what is not named goes to the stable version.

    Returns when every sidecar has it. A version that does not run is started first, and gets no request before it is
    healthy; if it does not come up, nothing is changed. A version that is left with nothing runs on. At 0 and at 100
    what --header and --sticky added is taken away again. Each shift is a revision: `meshctl rollback` takes it back.
    """
    from meshctl.wire.shifts import ShiftRequest  # noqa: PLC0415 - loaded when it is sent

    name, value = split_header(header)
    wanted = read_weights(weights)
    seconds = parse_duration(timeout, option="--timeout")

    async def send(client: MeshClient, revision: int) -> TrafficResult:
        request = ShiftRequest(
            service=service,
            weights=wanted,
            header=name,
            value=value,
            sticky=sticky,
            timeout=seconds,
            force=force,
            author=author_of("canary shift"),
            reason=reason,
            base=revision,
            dry_run=dry_run,
        )
        return await client.shifts.shift(request)

    _change(ctx, service, send, base=base, output=output, dry_run=dry_run)


def mirror(
    ctx: typer.Context,
    service: ServiceArgument,
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            autocompletion=complete_versions,
            show_default=False,
            help="The version that gets the copies.",
        ),
    ] = "",
    *,
    percent: Annotated[float, typer.Option(metavar="PERCENT", help="The share of the requests to copy.")] = 10.0,
    stop: Annotated[bool, typer.Option("--stop", help="Send no copies any more.")] = False,
    timeout: TimeoutOption = "60s",
    force: ForceOption = False,
    reason: ReasonOption = "",
    base: BaseOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send copies of requests to a version, whose answers are dropped: nobody waits for them.

    What the version does with a copy it does all the same (it writes, it calls others): a copy carries
    `x-meshctl-mirrored: 1`, by which it can tell. Starts the version and waits for it as `canary shift` does.
    """
    from meshctl.wire.shifts import MirrorRequest  # noqa: PLC0415 - loaded when it is sent

    if bool(version) == stop:
        raise UsageError(
            "name the version that is to get copies, or --stop" if not version else "--stop takes no version",
            hint=f"meshctl canary mirror {service} v2, or meshctl canary mirror {service} --stop",
        )
    seconds = parse_duration(timeout, option="--timeout")

    async def send(client: MeshClient, revision: int) -> TrafficResult:
        request = MirrorRequest(
            service=service,
            version=version,
            percent=percent,
            timeout=seconds,
            force=force,
            author=author_of("canary mirror"),
            reason=reason,
            base=revision,
            dry_run=dry_run,
        )
        return await client.shifts.mirror(request)

    _change(ctx, service, send, base=base, output=output, dry_run=dry_run)


def read_weights(words: list[str]) -> dict[str, int]:
    """Weights by version of ``v2=10`` or ``v2=10%``. Raises UsageError."""
    weights: dict[str, int] = {}
    for word in words:
        version, equals, number = word.partition("=")
        if not equals or not version:
            raise UsageError(f"{word!r} does not say which version gets how much", hint=WEIGHT_HINT)
        digits = number.removesuffix("%").strip()
        try:
            weight = int(digits) if digits.isascii() else None
        except ValueError:
            weight = None
        if weight is None or not 0 <= weight <= 100:
            raise UsageError(
                f"{word!r}: the weight of {version} cannot be {number or 'nothing'}",
                hint="a weight is a whole percentage from 0 to 100",
            )
        if version in weights:
            raise UsageError(f"{version} is named twice", hint=WEIGHT_HINT)
        weights[version] = weight
    return weights


def split_header(text: str) -> tuple[str, str | None]:
    """Name and value of ``x-canary=1`` or ``x-canary: 1``; a value of None is any. Raises UsageError."""
    if not text:
        return "", None
    name, found, value = text.partition("=")
    if ":" in name:
        name, found, value = text.partition(":")
    if not name.strip():
        raise UsageError(f"--header: {text!r} is no header", hint="write --header x-canary=1")
    return name.strip(), value.strip() if found else None


def describe_traffic(result: TrafficResult) -> Iterator[str]:
    """Where the requests go now, and what of it is new: one line each."""
    before, after = result.before, result.after
    yield f"{result.service}: {', '.join(_weights(before.weights, after.weights))}"
    if after.header is not None:
        yield f"requests with {_header(after)}: {', '.join(_weights(after.header.weights))}"
    elif before.header is not None:
        yield f"requests with {_header(before)} go where all others go"
    if after.sticky:
        kind, _, name = after.sticky.partition(":")
        yield f"a user stays on one version, by the {kind} {name}"
    elif before.sticky:
        yield "nothing keeps a user on one version any more"
    if after.mirror is not None:
        yield f"copies of {after.mirror.percent:g}% of the requests go to {after.mirror.version}"
    elif before.mirror is not None:
        yield f"no copies go to {before.mirror.version} any more"


def _weights(after: dict[str, int], other: dict[str, int] | None = None) -> Iterator[str]:
    """``v1 100% -> 90%`` of each version, ``v1 90%`` where nothing changed or nothing was before."""
    before, now = (after, other) if other is not None else (None, after)
    for version, weight in now.items():
        was = weight if before is None else before.get(version, 0)
        yield f"{version} {weight}%" if was == weight else f"{version} {was}% -> {weight}%"


def _header(traffic: Traffic) -> str:
    assert traffic.header is not None
    value = traffic.header.value
    return traffic.header.header if value is None else f"{traffic.header.header}: {value}"


def print_traffic(screen: Screen, result: TrafficResult, *, output: Output, dry_run: bool) -> None:
    """Say what changed and that it is in effect, or print the result as JSON."""
    if output is Output.JSON:
        from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
        from meshctl.wire.models import encode  # noqa: PLC0415

        print_json(encode(result))
        return
    if result.started:
        screen.say(f"started {', '.join(result.started)}, healthy after {result.waited_ms / 1000:.1f} s")
    for line in describe_traffic(result):
        screen.say(line)
    for note in result.notes:
        screen.say(note)
    if not result.changes:
        number = f", as revision {result.revision} has it" if result.revision else ""
        screen.say(f"nothing {'would change' if dry_run else 'changed'}: that is in force already{number}")
    elif dry_run:
        took = describe_duration(result.duration_ms)
        sidecars = f"Envoy would take it at {result.acked}/{count_nouns(result.total, 'sidecar')} ({took})"
        screen.say(f"{sidecars}; nothing was changed")
    else:
        screen.say(f"revision {result.revision}; {describe_applied(result)}")
    for version in result.idle:
        key = f"{result.service}/{version}"
        screen.say(f"{key} runs on and gets nothing; `meshctl scale {key}=0` stops it")


def _change(
    ctx: typer.Context,
    service: str,
    send: Callable[[MeshClient, int], Awaitable[TrafficResult]],
    *,
    base: int | None,
    output: Output,
    dry_run: bool,
) -> None:
    """Ask for a change from the revision in force, tell of what is started for it, and print the result."""
    from meshctl.cli.starting import tell_starting  # noqa: PLC0415 - rich is loaded when something is printed

    project, screen = find_project(ctx), make_screen(ctx)

    async def converse(client: MeshClient) -> TrafficResult:
        newest = base
        if newest is None:
            heads = (await client.policies.history(limit=1)).revisions
            newest = heads[0].number if heads else 0
        async with tell_starting(client, screen, service):
            return await send(client, newest)

    print_traffic(screen, ask(project, converse), output=output, dry_run=dry_run)
