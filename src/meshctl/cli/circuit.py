"""``meshctl circuit``: the state of circuit breakers, and holding them open or closed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meshctl.cli.complete import complete_services
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, example
from meshctl.cli.project import ask, find_project, make_screen
from meshctl.cli.wording import print_applied
from meshctl.client.author import author_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from meshctl.wire.circuits import CircuitShape

ServiceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE", autocompletion=complete_services, show_default=False, help="The service that is called."
    ),
]
ReasonOption = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the history.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="circuit",
        help="See circuit breakers, and hold them open or closed.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=example("meshctl circuit list"),
    )
    group.command("list", epilog=example("meshctl circuit list", "meshctl circuit list payment -o json"))(list_circuits)
    group.command("open", epilog=example('meshctl circuit open payment -m "its database moves"'))(open_circuit)
    group.command("close", epilog=example("meshctl circuit close payment"))(close_circuit)
    group.command("auto", epilog=example("meshctl circuit auto payment"))(release_circuit)
    app.add_typer(group, rich_help_panel=PANEL_CHANGE)


def list_circuits(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="[SERVICE]",
            autocompletion=complete_services,
            show_default=False,
            help="Only the circuits to this service.",
        ),
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List the circuit of every caller and service: its state, and why it is in it.

    FAILURES are those in a row while it is closed. REFUSED are calls that were answered at once because it was open.
    """
    from meshctl.cli.render import Column, print_json, print_table, read_clock, style_state  # noqa: PLC0415 - rich
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    found = ask(find_project(ctx), lambda client: client.circuits.list(service))
    if output is Output.JSON:
        print_json(encode(found))
        return
    now = read_clock()
    wide = output is Output.WIDE
    columns = [Column(title="CALLER"), Column(title="SERVICE"), Column(title="STATE")]
    columns += [Column(title="FAILURES", drop=2, justify="right"), Column(title="REFUSED", drop=3, justify="right")]
    columns += [Column(title="FAILED", justify="right")] if wide else []
    columns += [Column(title="SINCE", drop=4), Column(title="WHY", drop=1)]
    rows: list[Sequence[str | Text]] = []
    for circuit in found.circuits:
        row: list[str | Text] = [
            circuit.caller,
            circuit.service,
            style_state(describe_state(circuit)),
            describe_failures(circuit),
        ]
        row += [str(circuit.rejected), *([str(circuit.failed)] if wide else [])]
        rows.append([*row, _since(circuit, now), describe_why(circuit)])
    print_table(screen.out, columns, rows)


def open_circuit(
    ctx: typer.Context, service: ServiceArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Hold the circuits to a service open: every caller's calls are answered with 503 at once.

    Returns when the sidecar of every caller has acknowledged. It holds, across restarts too, until
    `meshctl circuit auto`; it is a change of policy like any other, with a revision.
    """
    _force(ctx, service, "open", reason, output)


def close_circuit(
    ctx: typer.Context, service: ServiceArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Hold the circuits to a service closed: calls are let through, however many fail."""
    _force(ctx, service, "closed", reason, output)


def release_circuit(
    ctx: typer.Context, service: ServiceArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Let the circuits to a service work by themselves again; they begin closed."""
    _force(ctx, service, "auto", reason, output)


def describe_state(circuit: CircuitShape) -> str:
    """The state in a word."""
    return circuit.state.replace("_", "-")


def describe_failures(circuit: CircuitShape) -> str:
    """How near it is to opening, or to closing: ``2/5``; of a window the failures among its calls."""
    if circuit.forced != "auto" or circuit.state == "open":
        return "-"
    if circuit.state == "half_open":
        return f"{circuit.successes}/{circuit.success_threshold} good"
    shown = f"{circuit.failures}/{circuit.failure_threshold}"
    return f"{shown}, {circuit.window_failed} of {circuit.window_calls}" if circuit.window_calls else shown


def describe_why(circuit: CircuitShape) -> str:
    """Why it is in its state, and what comes next."""
    if circuit.forced != "auto":
        return "held by hand"
    if circuit.state == "open" and circuit.retry_in is not None:
        then = f"tries again in {circuit.retry_in:.0f}s" if circuit.retry_in > 0 else "the next call tries again"
        return f"{circuit.reason}; {then}"
    return circuit.reason or "-"


def _since(circuit: CircuitShape, now: float) -> str:
    from meshctl.cli.render import format_age  # noqa: PLC0415 - rich loads on use

    if circuit.changed_at is None or circuit.forced != "auto":
        return "-"
    return f"{format_age(max(0.0, now - circuit.changed_at))} ago"


def _force(
    ctx: typer.Context, service: str, forced: Literal["auto", "open", "closed"], reason: str, output: Output
) -> None:
    from meshctl.wire.circuits import ForceRequest  # noqa: PLC0415 - loaded when it is sent

    verb = {"open": "open", "closed": "close", "auto": "auto"}[forced]
    request = ForceRequest(service=service, forced=forced, author=author_of(f"circuit {verb}"), reason=reason)
    result = ask(find_project(ctx), lambda client: client.circuits.force(request))
    print_applied(make_screen(ctx), result, output=output)
