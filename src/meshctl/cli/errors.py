"""What a failure looks like on the command line: one mapping to exit codes, one way to print it.

Enters: MeshctlError leaves.  Leaves: text on stderr and an exit code.  Reads topology files for excerpts only.

Exit codes: 0 done, 1 failed, 2 usage or invalid file, 3 nothing running, 4 timed out waiting, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from meshctl.errors import InvalidTopology, MeshctlError, NotRunningError, Problem, UsageError, WaitTimeoutError

if TYPE_CHECKING:
    from rich.console import Console

DONE = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
TIMED_OUT = 4
INTERRUPTED = 130

EXIT_CODES: tuple[tuple[type[MeshctlError], int], ...] = (
    (InvalidTopology, USAGE),
    (UsageError, USAGE),
    (NotRunningError, NOT_RUNNING),
    (WaitTimeoutError, TIMED_OUT),
)
"""Leaves whose exit code is not 1."""

_MAX_EXCERPT = 160


class InvalidFiles(InvalidTopology):
    """Problems together with the texts they are in, so that excerpts need not be read again (stdin cannot be)."""

    def __init__(self, problems: Sequence[Problem], *, texts: Mapping[str, str]) -> None:
        super().__init__(problems)
        self.texts = texts


def exit_code(error: MeshctlError) -> int:
    """The exit code for a failure."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)


def print_error(console: Console, error: MeshctlError) -> None:
    """Print ``error: ...``, its detail and its hint; every problem of an invalid topology with its place."""
    if isinstance(error, InvalidTopology):
        print_problems(console, error.problems, texts=error.texts if isinstance(error, InvalidFiles) else {})
        return
    _print_line(console, "error", "bold red", error.message)
    if error.detail:
        console.print(_indent(error.detail), markup=False, highlight=False, soft_wrap=True)
    if error.hint:
        _print_line(console, "hint", "bold cyan", error.hint)


def print_problems(console: Console, problems: Sequence[Problem], *, texts: Mapping[str, str]) -> None:
    """Print problems as ``file:line:column: message [code]`` with the line of the file and a caret below it.

    ``texts`` gives the text of files by name; others are read from disk, and go without excerpt when they cannot be.
    """
    for problem in problems:
        place = f"{problem.where}: " if problem.where else ""
        _print_line(console, f"{place}error", "bold red", f"{problem.message} [{problem.code}]")
        excerpt = _excerpt(problem, texts)
        if excerpt:
            console.print(excerpt, markup=False, highlight=False, soft_wrap=True)
        if problem.hint:
            console.print(f"  {problem.hint}", markup=False, highlight=False, soft_wrap=True)
    count = len(problems)
    _print_line(console, "error", "bold red", f"{count} problem{'s' if count != 1 else ''} found; nothing was changed")


def print_failure(console: Console, message: str, lines: Sequence[str]) -> None:
    """Print ``error: message`` and lines below it."""
    _print_line(console, "error", "bold red", message)
    if lines:
        console.print(_indent("\n".join(lines)), markup=False, highlight=False, soft_wrap=True)


def print_warning(console: Console, message: str) -> None:
    """Print ``warning: ...``."""
    _print_line(console, "warning", "bold yellow", message)


def _print_line(console: Console, label: str, style: str, message: str) -> None:
    console.print(f"{label}:", style=style, end=" ", markup=False, highlight=False, soft_wrap=True)
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip("\n").split("\n"))


def _excerpt(problem: Problem, texts: Mapping[str, str]) -> str:
    """The line of the problem and a caret below its column, or nothing."""
    where = problem.where
    if where is None or where.line < 1:
        return ""
    text = texts.get(where.file)
    if text is None:
        try:
            text = Path(where.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError):
            return ""
    lines = text.splitlines()
    if where.line > len(lines):
        return ""
    line = lines[where.line - 1].replace("\t", " ")[:_MAX_EXCERPT]
    number = str(where.line)
    caret = " " * min(max(where.column - 1, 0), len(line)) + "^"
    return f"  {number} | {line}\n  {' ' * len(number)} | {caret}"
