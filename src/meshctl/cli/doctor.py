"""``meshctl doctor``: what on this machine, or left by a mesh, keeps a mesh from working."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import typer

from meshctl.cli.errors import FAILED
from meshctl.cli.options import PANEL_TOOLS, FileOption, Output, OutputOption, example
from meshctl.cli.project import Project, Screen, ask, find_project, load_mesh, make_screen, read_source
from meshctl.cli.wording import count_nouns
from meshctl.errors import InvalidTopology, MeshctlError, UsageError

if TYPE_CHECKING:
    from meshctl.spec.schema import Mesh
    from meshctl.wire.models import DoctorReport, MeshStatus

MARKS = {"ok": "ok", "warning": "warning", "error": "ERROR"}
"""The word for each level; colour comes on top of it."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=PANEL_TOOLS, epilog=example("meshctl doctor", "meshctl doctor -o json"))(doctor)


def doctor(ctx: typer.Context, file: FileOption = None, output: OutputOption = Output.TABLE) -> None:
    """Check this machine and what a mesh left on it: Envoy, ports, sockets, state, clock, limits.

    Works with no mesh and with no topology. Every finding says what to do about it. Exits with 1 when there is an
    error, with 0 when there are only warnings.
    """
    from meshctl.adapters.doctor_checks import run_checks  # noqa: PLC0415 - loaded when they are run
    from meshctl.adapters.doctor_context import DoctorContext  # noqa: PLC0415
    from meshctl.cli.render import print_json, read_clock  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.wire.models import encode  # noqa: PLC0415

    screen = make_screen(ctx)
    project = find_project(ctx, files=file)
    mesh, problems = _load(project)
    context = DoctorContext(
        environ=os.environ,
        uid=os.getuid(),
        now=read_clock(),
        paths=project.paths,
        topology=", ".join(project.files),
        mesh=mesh,
        problems=problems,
        status=_ask_status(project),
    )
    report = asyncio.run(run_checks(context))
    if output is Output.JSON:
        print_json(encode(report))
    else:
        _print_report(screen, report)
    if not report.ok:
        raise typer.Exit(FAILED)


def _load(project: Project) -> tuple[Mesh | None, int]:
    """The topology, or None and how many problems it has."""
    if not project.files:
        return None, 0
    try:
        return load_mesh(read_source(project)), 0
    except InvalidTopology as error:
        return None, len(error.problems)
    except UsageError:
        return None, 1


def _ask_status(project: Project) -> MeshStatus | None:
    try:
        return ask(project, lambda client: client.status())
    except MeshctlError:
        return None


def _print_report(screen: Screen, report: DoctorReport) -> None:
    from rich.text import Text  # noqa: PLC0415 - rich is loaded when something is printed

    from meshctl.cli.render import STYLES, print_line  # noqa: PLC0415

    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        line = Text(f"{MARKS[check.level]:<7}", style=STYLES[check.level])
        line.append(f"  {check.name:<{width}}  {check.message}", style="default")
        print_line(screen.out, line)
        if check.level != "ok" and check.fix:
            print_line(screen.out, f"{'':<{width + 11}}fix: {check.fix}")
    errors = sum(check.level == "error" for check in report.checks)
    warnings = sum(check.level == "warning" for check in report.checks)
    if errors or warnings:
        screen.say(f"{count_nouns(errors, 'error')}, {count_nouns(warnings, 'warning')}")
    else:
        screen.say("nothing stands in the way of a mesh")
