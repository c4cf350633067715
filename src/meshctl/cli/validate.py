"""``meshctl validate`` and ``meshctl schema``: the topology file, checked, and described for editors."""

from __future__ import annotations

import json
import sys

import typer

from meshctl.cli.errors import USAGE
from meshctl.cli.options import PANEL_TOOLS, FileOption, Output, OutputOption, example
from meshctl.cli.project import find_project, load_mesh, make_screen, read_source
from meshctl.cli.wording import count_nouns
from meshctl.errors import InvalidTopology


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        rich_help_panel=PANEL_TOOLS,
        epilog=example("meshctl validate", "meshctl validate -f mesh.yaml -f mesh.local.yaml -o json"),
    )(validate)
    app.command(
        "schema",
        rich_help_panel=PANEL_TOOLS,
        epilog=example("meshctl schema > mesh.schema.json"),
    )(print_schema)


def validate(ctx: typer.Context, file: FileOption = None, output: OutputOption = Output.TABLE) -> None:
    """Check the topology and show every problem in it. Exits with 2 when there is one."""
    from meshctl.cli.render import print_json, print_line  # noqa: PLC0415 - rich is loaded when something is printed
    from meshctl.wire.models import ValidationReport, encode  # noqa: PLC0415

    project = find_project(ctx, files=file, need_files=True)
    names = ", ".join(project.files)
    try:
        mesh = load_mesh(read_source(project))
    except InvalidTopology as error:
        if output is not Output.JSON:
            raise
        from meshctl.wire.failures import shape_problem  # noqa: PLC0415 - only for JSON

        problems = [shape_problem(problem) for problem in error.problems]
        print_json(
            encode(ValidationReport(valid=False, files=list(project.files), services=0, upstreams=0, problems=problems))
        )
        raise typer.Exit(USAGE) from None
    upstreams = sum(len(service.upstreams) for service in mesh.services.values())
    if output is Output.JSON:
        print_json(
            encode(
                ValidationReport(
                    valid=True,
                    files=list(project.files),
                    services=len(mesh.services),
                    upstreams=upstreams,
                    problems=[],
                )
            )
        )
        return
    verb = "is" if len(project.files) == 1 else "together are"
    counts = f"{count_nouns(len(mesh.services), 'service')}, {count_nouns(upstreams, 'upstream')}"
    screen = make_screen(ctx)
    print_line(screen.out, f"{names} {verb} valid: {counts}")


def print_schema() -> None:
    """Print the JSON Schema of the topology file.

    Editors with a YAML language server complete and check the file when its first line is:
    `# yaml-language-server: $schema=mesh.schema.json`
    """
    from meshctl.spec.export import json_schema  # noqa: PLC0415 - loads the tables of all keys

    sys.stdout.write(json.dumps(json_schema(), indent=2))
    sys.stdout.write("\n")
