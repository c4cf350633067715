"""``meshctl version``: what is installed here."""

from __future__ import annotations

import asyncio
import os
import platform

import typer

from meshctl import __version__
from meshctl.cli.options import PANEL_TOOLS, Output, OutputOption, example
from meshctl.cli.project import make_screen
from meshctl.errors import EnvoyMissingError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=PANEL_TOOLS, epilog=example("meshctl version", "meshctl version -o json"))(version)


def version(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show the versions of meshctl, of Envoy and of Python."""
    from meshctl.adapters.envoy_binary import envoy_version, find_envoy  # noqa: PLC0415 - loaded when it is looked for
    from meshctl.cli.render import print_json, print_line  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.wire.models import VersionReport, encode  # noqa: PLC0415

    envoy, path, missing = "", "", ""
    try:
        path = find_envoy(os.environ).path
        envoy = asyncio.run(envoy_version(path))
    except EnvoyMissingError as error:
        missing = f"{error.message}. {error.hint}"
    report = VersionReport(
        meshctl=__version__,
        envoy=envoy,
        envoy_path=path,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
    )
    screen = make_screen(ctx)
    if output is Output.JSON:
        print_json(encode(report))
        return
    print_line(screen.out, f"meshctl   {report.meshctl}")
    print_line(screen.out, f"envoy     {f'{report.envoy} ({report.envoy_path})' if envoy else 'not found'}")
    print_line(screen.out, f"python    {report.python}")
    print_line(screen.out, f"platform  {report.platform}")
    if missing:
        screen.say(f"hint: {missing}")
