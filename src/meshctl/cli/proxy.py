"""``meshctl proxy``: whether each sidecar has its configuration, and what it has."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_services
from meshctl.cli.options import PANEL_SEE, Output, OutputOption, example
from meshctl.cli.project import ask, connect, find_project, make_screen

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from meshctl.wire.models import ProxyConfig, ProxyStatus, ProxyTypeStatus

TYPES = (("CDS", "clusters"), ("EDS", "endpoints"), ("SDS", "secrets"), ("LDS", "listeners"), ("RDS", "routes"))
"""The xDS types in the order in which they are sent: the column's title, and the name on the wire."""


class Kind(StrEnum):
    """What a sidecar can be asked for."""

    CLUSTERS = "clusters"
    ENDPOINTS = "endpoints"
    SECRETS = "secrets"
    LISTENERS = "listeners"
    ROUTES = "routes"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="proxy",
        help="See whether each sidecar has its configuration, and what it has.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=example("meshctl proxy status"),
    )
    group.command("status", epilog=example("meshctl proxy status", "meshctl proxy status -o wide"))(show_status)
    group.command(
        "config",
        epilog=example("meshctl proxy config checkout", "meshctl proxy config checkout routes -o json"),
    )(show_config)
    app.add_typer(group, rich_help_panel=PANEL_SEE)


def show_status(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show for every sidecar and xDS type whether what was last sent is in effect.

    synced: acknowledged; stale: sent, no answer yet; rejected: refused, the former configuration holds.
    -o wide adds how many resources there are of each type and their version.
    """
    from meshctl.cli.render import Column, print_json, print_line, print_table, style_state  # noqa: PLC0415 - rich
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    found = ask(find_project(ctx), lambda client: client.proxy_status())
    if output is Output.JSON:
        print_json(encode(found))
        return
    wide = output is Output.WIDE
    columns = [Column(title="SIDECAR"), *(Column(title=title, drop=1) for title, _ in TYPES), Column(title="STATE")]
    rows: list[list[str | Text]] = []
    for proxy in found.proxies:
        types: dict[str, ProxyTypeStatus] = {item.type: item for item in proxy.types}
        cells = [_cell(types.get(name), wide=wide) for _, name in TYPES]
        rows.append([proxy.sidecar, *cells, style_state(proxy.state)])
    print_table(screen.out, columns, rows)
    for proxy in found.proxies:
        for line in describe_rejections(proxy):
            print_line(screen.out, line)


def show_config(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            autocompletion=complete_services,
            show_default=False,
            help="The service whose sidecar is meant, or gateway.",
        ),
    ],
    kind: Annotated[Kind | None, typer.Argument(help="All kinds when left out.", show_default=False)] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a sidecar has, as its Envoy says itself. SERVICE may be gateway.

    -o json prints Envoy's own config dump of the kind, or a list of them all.
    """
    from meshctl.cli.render import print_json, print_line  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    project = find_project(ctx)
    kinds = [kind] if kind is not None else list(Kind)

    async def converse() -> list[ProxyConfig]:
        async with connect(project) as client:
            return [await client.proxy_config(service, wanted.value) for wanted in kinds]

    configs = asyncio.run(converse())
    if output is Output.JSON:
        documents = [encode(config) for config in configs]
        print_json(documents[0] if kind is not None else b"[" + b",".join(documents) + b"]")
        return
    for position, config in enumerate(configs):
        if kind is None:
            print_line(screen.out, ("\n" if position else "") + config.kind.upper())
        _print_config(screen.out, config)


def describe_rejections(proxy: ProxyStatus) -> list[str]:
    """What a sidecar refused, in Envoy's words, one line a type."""
    return [
        f"{proxy.sidecar}: {item.type} rejected: {' '.join(item.error.split())}"
        for item in proxy.types
        if item.state == "rejected"
    ]


def _cell(item: ProxyTypeStatus | None, *, wide: bool) -> Text:
    from rich.text import Text  # noqa: PLC0415 - rich is loaded when something is printed

    from meshctl.cli.render import style_state  # noqa: PLC0415

    if item is None:
        return Text("-")
    state = style_state(item.state)
    return Text(f"{item.state} {item.resources} ({item.version[:8]})", style=state.style) if wide else state


def _print_config(console: Console, config: ProxyConfig) -> None:
    from meshctl.cli.proxy_tables import TABLES, rows_of  # noqa: PLC0415 - loaded on use
    from meshctl.cli.render import Column, print_line, print_table  # noqa: PLC0415

    rows = rows_of(config)
    if not rows:
        print_line(console, f"no {config.kind}")
        return
    print_table(console, [Column(title=title) for title in TABLES[config.kind].titles], rows)
