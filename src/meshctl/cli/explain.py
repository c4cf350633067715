"""``meshctl explain``: what will happen to a request, which policy says so, and where that was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_called, complete_services
from meshctl.cli.options import PANEL_SEE, Output, OutputOption, example
from meshctl.cli.project import ask, find_project, make_screen
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from meshctl.wire.explain import ExplainLine

_SHOWN_PLACES = 2


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl explain payment --from checkout",
            "meshctl explain gateway /cart",
            "meshctl explain orders /orders --method POST -H 'x-user: ann'",
        ),
    )(explain)


def explain(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            autocompletion=complete_called,
            help="Who is called; `gateway` for a request from outside.",
        ),
    ],
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="What is asked for.", show_default=False)] = "/",
    *,
    source: Annotated[
        str, typer.Option("--from", metavar="SERVICE", autocompletion=complete_services, help="Who calls.")
    ] = "gateway",
    method: Annotated[str, typer.Option("--method", "-X", help="The method.")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; may be repeated.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Explain what will happen to a request: its route, and every policy that it meets, in the order of its way.

    Nothing is sent. FROM says where each policy was written: in a file, in the defaults, by a command, or built in.
    """
    from meshctl.cli.render import Column, print_json, print_table  # noqa: PLC0415 - rich is loaded to print
    from meshctl.wire.explain import ExplainRequest  # noqa: PLC0415
    from meshctl.wire.models import encode  # noqa: PLC0415

    request = ExplainRequest(
        service=service, source=source, method=method, path=path, headers=dict(map(_split_header, header or []))
    )
    found = ask(find_project(ctx), lambda client: client.policies.explain(request))
    screen = make_screen(ctx)
    if output is Output.JSON:
        print_json(encode(found))
        return
    revision = f", at revision {found.revision}" if found.revision else ""
    screen.say(f"{found.source} -> {found.service}: {found.method} {found.path}{revision}")
    columns = [Column(title="POLICY"), Column(title="WHAT HAPPENS", wrap=True), Column(title="FROM", wrap=True)]
    rows = [(line.topic, line.words, describe_sources(line, whole=output is Output.WIDE)) for line in found.lines]
    print_table(screen.out, columns, rows)


def describe_sources(line: ExplainLine, *, whole: bool) -> str:
    """Where what a line says was written; each place once."""
    if not line.sources:
        return "built in" if line.policy else ""
    groups: dict[str, list[str]] = {}
    for source in line.sources:
        origin = source.origin
        made = f"revision {origin.revision}, {origin.author}" if origin.revision else ""
        owner = source.owner if source.owner in ("defaults", "mesh") else ""
        place = f"{origin.file}:{origin.line}:{origin.column}" if origin.line else ""
        places = groups.setdefault(" ".join(filter(None, (owner, made))), [])
        if place and place not in places:
            places.append(place)
    return "; ".join(_join_places(made, places, whole=whole) for made, places in groups.items())


def _join_places(made: str, places: list[str], *, whole: bool) -> str:
    shown = places if whole else places[:_SHOWN_PLACES]
    left = len(places) - len(shown)
    text = ", ".join([*shown, *([f"{left} more"] if left else [])])
    if "revision" in made:
        return f"{made} ({text})" if text else made
    return f"{made} {text}".strip()


def _split_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header: {text!r} is no header", hint="write 'NAME: VALUE'")
    return name.strip(), value.strip()
