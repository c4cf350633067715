"""``meshctl init``: a topology to start from, written whole or not at all."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from meshctl.cli.options import PANEL_TOOLS, example
from meshctl.cli.project import make_screen
from meshctl.errors import ConflictError, MeshctlError, UsageError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_TOOLS,
        epilog=example("meshctl init", "meshctl init --example shop shop"),
    )(init)


def complete_examples(incomplete: str) -> list[str]:
    """The examples whose names start with what was typed."""
    from meshctl.cli.starter import example_names  # noqa: PLC0415 - as in `init`

    return [name for name in example_names() if name.startswith(incomplete)]


def init(
    ctx: typer.Context,
    directory: Annotated[str, typer.Argument(metavar="[DIR]", help="Where to write; made if needed.")] = ".",
    example_name: Annotated[
        str,
        typer.Option(
            "--example",
            metavar="NAME",
            autocompletion=complete_examples,
            help="A whole example, such as shop.",
        ),
    ] = "",
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Write a topology to start from, with services that run."""
    from meshctl.cli.starter import example_names, starter_files  # noqa: PLC0415 - reads package data

    if example_name and example_name not in example_names():
        raise UsageError(f"there is no example {example_name!r}", hint=f"there is: {', '.join(example_names())}")
    folder = Path(directory)
    files = starter_files(example_name or None)
    _check_room(folder, [folder / name for name in files], force=force)
    screen = make_screen(ctx)
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            screen.say(f"wrote {os.path.normpath(path)}")
    except OSError as error:
        raise MeshctlError(
            f"cannot write {error.filename}: {error.strerror}", hint="name a folder that you may write to"
        ) from None
    enter = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(directory)} && "
    screen.say(f"next: {enter}meshctl up")


def _check_room(folder: Path, paths: list[Path], *, force: bool) -> None:
    """Refuse before anything is written when a file is in the way."""
    if folder.exists() and not folder.is_dir():
        raise ConflictError(f"{folder} is a file", hint="name a folder")
    blocked = [path for path in paths if path.is_dir() or any(p.is_file() for p in path.parents)]
    if blocked:
        raise ConflictError(
            f"{blocked[0]} cannot be written: a file or folder is in the way", hint="name another folder"
        )
    taken = [path for path in paths if path.exists()]
    if taken and not force:
        raise ConflictError(
            f"{'these files exist' if len(taken) > 1 else 'this file exists'} already; nothing was written",
            hint="--force overwrites, or name another folder: meshctl init DIR",
            detail="\n".join(os.path.normpath(path) for path in taken),
        )
