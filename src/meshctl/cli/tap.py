"""``meshctl tap``: requests as they pass, one a line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from meshctl.cli.complete import complete_services
from meshctl.cli.following import follow
from meshctl.cli.options import PANEL_SEE, FileOnlyOption, Output, example, parse_duration
from meshctl.cli.project import Project, Screen, find_project, make_screen
from meshctl.cli.render import print_json, print_line
from meshctl.cli.requests import RequestLines, count_requests
from meshctl.cli.wording import count_nouns
from meshctl.errors import UsageError
from meshctl.wire.models import encode
from meshctl.wire.requests import Side, TapItem, TapSummary
from meshctl.wire.taps import TapQuery, is_status

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl tap",
            "meshctl tap --to payment --status 5xx",
            "meshctl tap --from frontend --min-duration 200ms --max 20",
            "meshctl tap --path '/orders/*' -o json --for 10s",
        ),
    )(tap)


def tap(
    ctx: typer.Context,
    *,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="SERVICE", autocompletion=complete_services, help="Only requests to it; repeat for more."
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="SERVICE", autocompletion=complete_services, help="Only requests of it; repeat for more."
        ),
    ] = None,
    path: Annotated[
        str, typer.Option("--path", metavar="PATH", help="How the path begins, or a pattern with * in it.")
    ] = "",
    method: Annotated[list[str] | None, typer.Option("--method", metavar="METHOD", help="Only this method.")] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help="503, or 5xx, or 0 for no answer; repeat for more."),
    ] = None,
    min_duration: Annotated[
        str, typer.Option("--min-duration", metavar="TIME", help="Only requests that took so long: 200ms.")
    ] = "",
    side: Annotated[
        str,
        typer.Option(
            "--side",
            metavar="SIDE",
            help="caller: what callers saw, retries counted once; callee: every try as the instance's sidecar saw it.",
        ),
    ] = "caller",
    count: Annotated[int | None, typer.Option("--max", "-n", min=1, metavar="N", help="End after N requests.")] = None,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="End after so long: 10s.")] = "",
    file: FileOnlyOption = None,
    output: Annotated[
        Output,
        typer.Option("--output", "-o", help="How to print; wide adds trace and detail, json is one object a line."),
    ] = Output.TABLE,
) -> None:
    """Show requests as they end: who called whom, what came of it, how long it took, and why in words.

    Sidecars report requests only while somebody taps, and at most 100 a second each; the last line says how many of
    all that passed were shown. Statuses and durations are chosen by the sidecars themselves, so that a rare failure
    in heavy traffic is not lost among them. A control plane that dies is waited for; what passes meanwhile is not seen.
    """
    query = TapQuery(
        to=list(to or ()),
        source=list(source or ()),
        side=_read_side(side),
        path=path,
        methods=[name.upper() for name in method or ()],
        statuses=[_read_status(text) for text in status or ()],
        minimum_ms=parse_duration(min_duration, option="--min-duration") * 1000 if min_duration else 0.0,
    )
    seconds = parse_duration(duration, option="--for") if duration else None
    project = find_project(ctx, files=file)
    asyncio.run(_show(project, make_screen(ctx), query, count=count, seconds=seconds, output=output))


async def _show(
    project: Project, screen: Screen, query: TapQuery, *, count: int | None, seconds: float | None, output: Output
) -> None:
    lines = RequestLines(width=screen.out.width, wide=output is Output.WIDE)
    clock = asyncio.get_running_loop().time
    end = None if seconds is None else clock() + seconds
    account = _Account()
    silent: list[str] = []

    def read(client: MeshClient) -> AsyncIterator[TapItem]:
        account.begin()
        return client.taps.tap(
            query,
            count=None if count is None else count - account.shown,
            seconds=None if end is None else max(0.0, end - clock()),
        )

    try:
        async for item in follow(project, screen, read):
            if item.summary is not None:
                if account.sum_up() is None:
                    screen.say(_describe_begin(item.summary))
                account.newest = item.summary
                if item.summary.silent != silent:
                    silent = item.summary.silent
                    if silent:
                        screen.say(f"no reports yet of: {', '.join(silent)} (their sidecars do not answer)")
            if item.request is None:
                continue
            account.shown += 1
            if output is Output.JSON:
                print_json(encode(item.request))
            else:
                print_line(screen.out, lines.make(item.request))
    finally:
        # With Ctrl+C too: the last that was heard is at most a second old.
        if (summary := account.sum_up()) is not None:
            screen.say(describe_summary(summary, account.shown))


@dataclass(slots=True)
class _Account:
    """How many requests were shown, and what every control plane said of the others."""

    shown: int = 0
    newest: TapSummary | None = None
    _before: TapSummary | None = None

    def begin(self) -> None:
        """Another control plane begins to count."""
        self._before, self.newest = self.sum_up(), None

    def sum_up(self) -> TapSummary | None:
        """What all of them said; None when nobody has said anything."""
        old, new = self._before, self.newest
        if old is None or new is None:
            return new or old
        return msgspec.structs.replace(
            new,
            passed=old.passed + new.passed,
            reported=old.reported + new.reported,
            dropped=old.dropped + new.dropped,
        )


def describe_summary(summary: TapSummary, shown: int) -> str:
    """How many of the requests that passed were shown."""
    passed = max(summary.passed, shown)
    text = f"{shown:,} of {count_requests(passed)} shown"
    left = passed - max(summary.reported, shown)
    if left > 0:
        text += f"; {left:,} were not reported: a sidecar reports at most {summary.per_second} a second"
    other = max(summary.reported, shown) - shown - summary.dropped
    if other > 0:
        text += f"; {other:,} did not fit"
    if summary.dropped:
        text += f"; {summary.dropped:,} came faster than they were read"
    return text


def _describe_begin(summary: TapSummary) -> str:
    return f"tapping {count_nouns(summary.sidecars, 'sidecar')}; Ctrl+C ends it"


def _read_side(text: str) -> Side:
    if text == "caller":
        return "caller"
    if text == "callee":
        return "callee"
    raise UsageError(f"--side: {text!r} is no side", hint="write caller or callee")


def _read_status(text: str) -> str:
    if not is_status(text.lower()):
        raise UsageError(f"--status: {text!r} is no status", hint="write 503, 5xx, or 0 for no answer")
    return text.lower()
