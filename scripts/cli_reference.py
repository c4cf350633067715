"""docs/reference/cli.md from the command line itself: every command with its arguments, options and examples.

Enters: the typer application.  Leaves: Markdown.  The same on every machine: no terminal width, no defaults of a place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main
from typer.core import TyperArgument

from meshctl.cli import errors
from meshctl.cli.app import app
from meshctl.cli.usage import usage_words, value_word

_EXIT_CODES = (
    (errors.DONE, "done"),
    (errors.FAILED, "failed: the message says what, and what to do next"),
    (errors.USAGE, "the command's words do not fit together, or the topology file is not valid"),
    (errors.NOT_RUNNING, "no mesh runs in this folder"),
    (errors.TIMED_OUT, "what was waited for did not happen in time"),
    (errors.INTERRUPTED, "interrupted by Ctrl+C"),
)

_HEAD = """\
# Command line

The same texts as `meshctl COMMAND --help`.

Data goes to stdout, messages to stderr. `-o json` prints the shapes of [the API](api.md): fields
are added, never renamed. `--quiet`, `--no-color` and `--debug` may stand before or after the command.
"""


def cli_reference() -> str:
    """The whole reference as Markdown."""
    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="meshctl")
    parts = [_HEAD, _table(("exit code", "meaning"), [(str(code), text) for code, text in _EXIT_CODES])]
    parts.append("## meshctl\n")
    parts += _describe(root, context)
    for name, command, below in _commands(root, context):
        parts.append(f"## {name}\n")
        parts += _describe(command, below)
    return "\n".join(parts).rstrip() + "\n"


def _commands(group: Any, context: typer.Context) -> Iterator[tuple[str, Any, typer.Context]]:
    """Every command that is not hidden, in the order of the help; those of a group come after it."""
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if command is None or command.hidden:
            continue
        below = typer.Context(command, info_name=word, parent=context)
        yield below.command_path, command, below
        if hasattr(command, "list_commands"):
            yield from _commands(command, below)


def _describe(command: Any, context: typer.Context) -> list[str]:
    arguments = [item for item in command.params if isinstance(item, TyperArgument) and not item.hidden]
    options = [item for item in command.params if not isinstance(item, TyperArgument) and not item.hidden]
    words = [context.command_path, *usage_words(command)]
    parts = [f"{inspect.cleandoc(command.help or '').strip()}\n", f"```\n{' '.join(words)}\n```\n"]
    explained = [(f"`{_escape(value_word(item))}`", _text(item)) for item in arguments if item.help]
    if explained:
        parts.append(_table(("argument", "meaning"), explained))
    if options:
        parts.append(_table(("option", "meaning"), [(_option(item), _text(item)) for item in options]))
    if command.epilog:
        lines = [line.strip() for line in command.epilog.splitlines()[1:] if line.strip()]
        parts.append("```\n" + "\n".join(lines) + "\n```\n")
    return parts


def _option(item: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(item.opts, key=lambda name: (not name.startswith("--"), name)))
    return names if item.is_flag else f"{names} `{_escape(value_word(item))}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _text(item: Any) -> str:
    text = _escape(item.help or "")
    default = item.default
    shown = default not in (None, "", False) and not callable(default) and item.show_default is not False
    return f"{text} Default: `{getattr(default, 'value', default)}`." if shown else text


def _table(titles: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [titles, ("---", "---"), *rows]
    return "\n".join(f"| {left} | {right} |" for left, right in lines) + "\n"
