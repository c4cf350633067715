"""``meshctl get``, ``diff`` and ``history``: the policies in force, what differs, and what changed them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_kinds, complete_owners
from meshctl.cli.errors import InvalidFiles
from meshctl.cli.options import PANEL_SEE, Output, OutputOption, example
from meshctl.cli.policies import read_policy_files, shape_files
from meshctl.cli.project import Screen, ask, find_project, make_screen, read_source
from meshctl.errors import InvalidTopology, NotFoundError, UsageError

if TYPE_CHECKING:
    from meshctl.ports import TopologySource
    from meshctl.wire.policies import DiffRequest, PolicyChangeShape, PolicyOrigin, RevisionShape

_SHORT_CHANGES = 60
# Characters of a table: enough for the first changes, with room for who made them, and why.


class PolicyOutput(StrEnum):
    """The forms in which policies are printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example("meshctl get", "meshctl get timeout payment", "meshctl get -o yaml > policies.yaml"),
    )(get)
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example("meshctl diff", "meshctl diff -f policy.yaml", "meshctl diff 5 7"),
    )(diff)
    app.command(rich_help_panel=PANEL_SEE, epilog=example("meshctl history", "meshctl history payment -n 5"))(history)


def get(
    ctx: typer.Context,
    kind: Annotated[
        str, typer.Argument(metavar="[KIND]", autocompletion=complete_kinds, help="A policy's key.", show_default=False)
    ] = "",
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", autocompletion=complete_owners, help="A service or `defaults`.", show_default=False
        ),
    ] = "",
    output: Annotated[PolicyOutput, typer.Option("--output", "-o", help="How to print them.")] = PolicyOutput.TABLE,
) -> None:
    """Show the policies that are written, by topology files and by commands, and where each came from.

    What is written nowhere is built in: `meshctl explain SERVICE` shows all that holds for a request. With -o yaml it
    prints a file that `meshctl apply` takes.
    """
    from meshctl.cli.render import Column, print_json, print_table  # noqa: PLC0415 - rich is loaded to print
    from meshctl.spec.policies import KINDS  # noqa: PLC0415 - loads the tables of all keys
    from meshctl.wire.models import encode  # noqa: PLC0415

    word = kind if not name and kind not in KINDS else ""
    if word:
        # `get payment` can only mean one thing.
        kind, name = "", word
    try:
        found = ask(find_project(ctx), lambda client: client.policies.list(name, kind))
    except NotFoundError as error:
        if not word:
            raise
        hint = f"policies: {', '.join(KINDS)}; {error.hint}"
        raise NotFoundError(f"{word} is neither a policy nor a service", hint=hint) from None
    screen = make_screen(ctx)
    if output is PolicyOutput.JSON:
        print_json(encode(found))
        return
    if not found.policies:
        screen.say("nothing of that is written: what is built in holds, or what `defaults` say")
        return
    if output is PolicyOutput.YAML:
        typer.echo(found.yaml, nl=False)
        return
    columns = [
        Column(title="NAME"),
        Column(title="POLICY"),
        Column(title="VALUE", wrap=True),
        Column(title="FROM", wrap=True),
    ]
    rows = [(p.owner, p.kind, p.words, describe_origin(p.origin)) for p in found.policies]
    print_table(screen.out, columns, rows)


def diff(
    ctx: typer.Context,
    revisions: Annotated[
        list[int] | None,
        typer.Argument(metavar="[REVISION [REVISION]]", help="One: from it to now.", show_default=False),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="FILE", help="What `apply -f FILE` would change; - is stdin."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what differs between the policies in force and the topology files, a file, or between revisions.

    `-` is what is in force (or the earlier revision), `+` what would be. With nothing named it shows what
    `meshctl up --reset` would change.
    """
    from meshctl.wire.policies import DiffRequest  # noqa: PLC0415 - loaded when it is sent

    numbers = revisions or []
    if len(numbers) > 2 or (numbers and file):
        raise UsageError("name one or two revisions, or a file", hint="for example: meshctl diff 5 7")
    project, screen = find_project(ctx, need_files=not numbers and not file), make_screen(ctx)
    source: TopologySource | None = None
    if numbers:
        request = DiffRequest(before=numbers[0], after=numbers[1] if len(numbers) > 1 else None)
    else:
        source = read_policy_files(project, file) if file else read_source(project)
        request = DiffRequest(files=shape_files(source), variables=dict(source.variables), whole=not file)
    _print_diff(screen, _ask_diff(ctx, request, source), output=output)


def history(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="[SERVICE]", autocompletion=complete_owners, help="Only what concerns it.", show_default=False
        ),
    ] = "",
    tail: Annotated[int, typer.Option("--tail", "-n", min=1, metavar="N", help="Only the last N.")] = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the changes of policies, newest first: when, who, what and why. The last 1000 are kept."""
    from meshctl.cli.render import Column, print_json, print_table, style_state  # noqa: PLC0415 - as above
    from meshctl.wire.models import encode  # noqa: PLC0415

    found = ask(find_project(ctx), lambda client: client.policies.history(service, tail))
    shown = found.revisions
    screen = make_screen(ctx)
    if output is Output.JSON:
        print_json(encode(found))
        return
    if not shown:
        screen.say("no policy was ever written here")
        return
    columns = [
        Column(title="REVISION", justify="right"),
        Column(title="TIME", drop=2),
        Column(title="AUTHOR"),
        Column(title="STATE"),
        Column(title="CHANGES", wrap=True),
        Column(title="REASON", drop=1),
    ]
    rows = [
        (
            str(head.number),
            _format_moment(head.time),
            head.author,
            style_state(head.state),
            _join_changes(head, service, whole=output is Output.WIDE),
            head.note or head.reason,
        )
        for head in shown
    ]
    print_table(screen.out, columns, rows)
    if found.total > len(shown):
        screen.say(f"{found.total - len(shown)} earlier ones: -n shows more")


def describe_origin(origin: PolicyOrigin) -> str:
    """``mesh.yaml:12:14``, or ``revision 7, ann@apply (policy.yaml:3:14)``."""
    place = f"{origin.file}:{origin.line}:{origin.column}" if origin.line else ""
    if not origin.revision:
        return place
    made = f"revision {origin.revision}, {origin.author}"
    return f"{made} ({place})" if place else made


def _ask_diff(ctx: typer.Context, request: DiffRequest, source: TopologySource | None) -> list[PolicyChangeShape]:
    try:
        return ask(find_project(ctx), lambda client: client.policies.diff(request)).changes
    except InvalidTopology as error:
        texts = {item.path: item.text for item in source.files} if source is not None else {}
        raise InvalidFiles(error.problems, texts=texts) from None


def _print_diff(screen: Screen, changes: list[PolicyChangeShape], *, output: Output) -> None:
    from meshctl.cli.render import print_json, print_line  # noqa: PLC0415 - rich is loaded to print
    from meshctl.wire.models import encode  # noqa: PLC0415
    from meshctl.wire.policies import PolicyDiff  # noqa: PLC0415

    if output is Output.JSON:
        print_json(encode(PolicyDiff(changes=changes)))
        return
    for change in changes:
        print_line(screen.out, f"{change.owner} {change.path}")
        sides = (("-", change.before, change.before_origin), ("+", change.after, change.after_origin))
        width = max(len(words or "not set") for _, words, _ in sides)
        for sign, words, origin in sides:
            place = describe_origin(origin) if origin is not None else ""
            print_line(screen.out, f"  {sign} {words or 'not set':<{width}}  {place}".rstrip())
    if not changes:
        screen.say("nothing differs")


def _join_changes(head: RevisionShape, service: str, *, whole: bool) -> str:
    """The changes of a revision, or those of them that concern one service."""
    text = "; ".join(line for line in head.changes if not service or line.startswith(f"{service} "))
    return text if whole or len(text) <= _SHORT_CHANGES else f"{text[: _SHORT_CHANGES - 1]}…"


def _format_moment(seconds: float) -> str:
    from meshctl.cli.render import format_time  # noqa: PLC0415 - rich is loaded to print

    return format_time(seconds)[:-5].replace("T", " ")
