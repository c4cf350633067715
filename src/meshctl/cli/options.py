"""The options that several commands share, and how their values are read.  Pure but for the types of typer."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from meshctl.cli.complete import complete_services, complete_targets
from meshctl.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Output(StrEnum):
    """The forms in which data is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


FileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="Topology file; repeat to lay files over one another; - is stdin."
    ),
]
"""``-f`` on commands where it has no other meaning; the same option stands before every command."""

FileOnlyOption = Annotated[
    list[str] | None,
    typer.Option("--file", metavar="FILE", help="Topology file; repeat to lay files over each other."),
]
"""The same where ``-f`` means to follow."""

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the data.")]

ServicesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SERVICE]...", autocompletion=complete_services, show_default=False, help="All when none is named."
    ),
]

TargetsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SERVICE|INSTANCE]...",
        autocompletion=complete_targets,
        show_default=False,
        help="All when none is named.",
    ),
]

PANEL_RUN = "Run"
PANEL_SEE = "See"
PANEL_CHANGE = "Change"
PANEL_TOOLS = "Prepare and check"


def example(*commands: str) -> str:
    """The end of a command's help: one or more command lines that work as they stand."""
    return "\n".join(["Example:" if len(commands) == 1 else "Examples:", *(f"  {command}" for command in commands)])


def parse_duration(text: str, *, option: str) -> float:
    """Seconds of ``90``, ``5s``, ``300ms``, ``1m30s``. Raises UsageError naming the option."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return float(sum(float(number) * _UNITS[unit] for number, unit in parts))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"{option}: {text!r} is no duration", hint="write 5s, 300ms, 2m, 1h or a number of seconds")
    return seconds


def check_pattern(text: str) -> str:
    """What ``--grep`` was given. Raises UsageError when it is no regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise UsageError(f"--grep: {text!r} is no regular expression: {error}") from None
    return text


def parse_moment(text: str, *, now: float, option: str) -> float:
    """Seconds since the epoch of a time such as ``2026-01-31T12:00:00Z``, or of so long before now (``5m``).

    A time without zone is local. Raises UsageError naming the option.
    """
    try:
        return now - parse_duration(text, option=option)
    except UsageError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option}: {text!r} is neither a duration nor a time", hint="write 5m, or 2026-01-31T12:00:00Z"
        ) from None
    return moment.astimezone(UTC).timestamp()
