"""``meshctl authz``: whether one service may call another, and which rule says so."""

from __future__ import annotations

from typing import Annotated

import typer

from meshctl.cli.complete import complete_services
from meshctl.cli.errors import FAILED
from meshctl.cli.options import PANEL_SEE, FileOption, Output, OutputOption, example
from meshctl.cli.project import ask, find_project, load_mesh, make_screen, read_source
from meshctl.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="authz",
        help="Ask who may call whom.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=example("meshctl authz check --from checkout --to payment --method POST --path /charge"),
    )
    group.command(
        "check",
        epilog=example(
            "meshctl authz check --from checkout --to payment --method POST --path /charge",
            "meshctl authz check --from gateway --to orders -H 'x-role: admin' -o json",
        ),
    )(check)
    app.add_typer(group, rich_help_panel=PANEL_SEE)


def check(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="CALLER",
            autocompletion=complete_services,
            show_default=False,
            help="A service, `gateway`, or `anonymous` for callers without mTLS.",
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="SERVICE",
            autocompletion=complete_services,
            show_default=False,
            help="The service that is called.",
        ),
    ],
    *,
    method: Annotated[str, typer.Option("--method", "-X", metavar="METHOD", help="The method.")] = "GET",
    path: Annotated[str, typer.Option("--path", metavar="PATH", help="The path, with or without a query.")] = "/",
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; may be repeated.", show_default=False),
    ] = None,
    file: FileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether a request would be let in, by which rule, and where that was written.

    Answers from the rules that sidecars of the running mesh have; with --file from files alone, whether a mesh runs
    or not. Exits with 0 when the request is let in and with 1 when it is refused.
    """
    from meshctl.cli.render import print_json, print_line  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.plan.admission import find_admission  # noqa: PLC0415 - loads the topology's modules
    from meshctl.wire.authorization import AuthzRequest, read_call, shape_answer  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    request = AuthzRequest(source=source, target=target, method=method, path=path, headers=read_headers(header or []))
    if file:
        mesh = load_mesh(read_source(find_project(ctx, files=file, need_files=True)))
        answer = shape_answer(find_admission(mesh, (), target, read_call(request)))
    else:
        answer = ask(find_project(ctx), lambda client: client.authorization.check(request))
    if output is Output.JSON:
        print_json(encode(answer))
    else:
        screen = make_screen(ctx)
        for line in answer.lines:
            print_line(screen.out, line)
    if not answer.allowed:
        raise typer.Exit(FAILED)


def read_headers(words: list[str]) -> dict[str, list[str]]:
    """Headers of ``NAME: VALUE`` (or ``NAME=VALUE``) by name. Raises UsageError."""
    headers: dict[str, list[str]] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if ":" in name:
            name, separator, value = word.partition(":")
        if not separator or not name.strip():
            raise UsageError(f"{word!r} is no header", hint="write 'NAME: VALUE'")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    return headers
