"""``meshctl apply``, ``delete`` and ``rollback``: change policies while the mesh runs.

Each asks for the revision in force first and names it in its request, so that of two people at once one is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from meshctl.cli.complete import complete_kinds, complete_owners
from meshctl.cli.errors import INTERRUPTED, InvalidFiles
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, example
from meshctl.cli.project import STDIN, Project, Screen, ask, find_project, make_screen, read_source
from meshctl.cli.wording import count_nouns, describe_applied, describe_duration
from meshctl.client.author import author_of
from meshctl.errors import InvalidTopology, UsageError

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient
    from meshctl.ports import TopologySource
    from meshctl.wire.models import SourceFileShape
    from meshctl.wire.policies import PolicyList, PolicyResult

ReasonOption = Annotated[
    str, typer.Option("--message", "-m", metavar="REASON", help="Why, for `meshctl history`.", show_default=False)
]

PolicyFileOption = Annotated[
    list[str],
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A topology file, or one with policies alone; - is stdin.",
        show_default=False,
    ),
]

BaseOption = Annotated[
    int | None,
    typer.Option(
        "--base",
        metavar="REVISION",
        min=0,
        help="The revision that the change was made from: fail when another has come since.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        rich_help_panel=PANEL_CHANGE,
        epilog=example(
            "meshctl apply -f policy.yaml -m 'payment is slow today'",
            "echo 'services: {payment: {timeout: 1s}}' | meshctl apply -f - --dry-run",
        ),
    )(apply)
    app.command(
        rich_help_panel=PANEL_CHANGE,
        epilog=example("meshctl delete timeout payment", "meshctl delete retry_policy defaults --yes"),
    )(delete)
    app.command(rich_help_panel=PANEL_CHANGE, epilog=example("meshctl rollback 6"))(rollback)


def apply(
    ctx: typer.Context,
    file: PolicyFileOption,
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
    *,
    base: BaseOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change, and have Envoy look at it.")
    ] = False,
) -> None:
    """Set the policies that a file names, each as a whole; all others stay as they are.

    Returns when every sidecar concerned has acknowledged. If one refuses, what was in force before is in force again.
    What is set this way survives restarts; `meshctl up --reset` returns to the topology files.
    """
    from meshctl.wire.policies import ApplyRequest  # noqa: PLC0415 - loaded when it is sent

    project, screen = find_project(ctx), make_screen(ctx)
    source = read_policy_files(project, file)
    texts = {item.path: item.text for item in source.files}

    async def send(client: MeshClient, revision: int) -> PolicyResult:
        request = ApplyRequest(
            files=shape_files(source),
            variables=dict(source.variables),
            author=author_of("apply"),
            reason=reason,
            base=revision,
            dry_run=dry_run,
        )
        return await client.policies.apply(request)

    try:
        result = change(project, send, base=base)
    except InvalidTopology as error:
        raise InvalidFiles(error.problems, texts=texts) from None
    print_result(screen, result, output=output, dry_run=dry_run)


def delete(
    ctx: typer.Context,
    kind: Annotated[
        str, typer.Argument(metavar="KIND", autocompletion=complete_kinds, help="The key of a policy, such as timeout.")
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", autocompletion=complete_owners, help="A service, `defaults`, or `mesh` for the file's top."
        ),
    ],
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
    *,
    base: BaseOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take a policy away: from a service, so that the defaults hold, or from the defaults.

    Asks first when it is run in a terminal. Returns when every sidecar concerned has acknowledged.
    """
    from meshctl.wire.policies import DeleteRequest  # noqa: PLC0415 - loaded when it is sent

    project, screen = find_project(ctx), make_screen(ctx)
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        found = ask(project, lambda client: client.policies.list(name, kind))
        _confirm(screen, found)
        # What was shown is what is deleted.
        base = found.revision if base is None else base

    async def send(client: MeshClient, revision: int) -> PolicyResult:
        request = DeleteRequest(owner=name, kind=kind, author=author_of("delete"), reason=reason, base=revision)
        return await client.policies.delete(request)

    print_result(screen, change(project, send, base=base), output=output)


def rollback(
    ctx: typer.Context,
    revision: Annotated[int, typer.Argument(metavar="REVISION", min=1, help="As `meshctl history` numbers them.")],
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
    *,
    base: BaseOption = None,
) -> None:
    """Return to the policies of an earlier revision, as a new revision.

    Returns when every sidecar concerned has acknowledged. `meshctl diff REVISION` shows what it would change.
    """
    from meshctl.wire.policies import RollbackRequest  # noqa: PLC0415 - loaded when it is sent

    async def send(client: MeshClient, newest: int) -> PolicyResult:
        request = RollbackRequest(revision=revision, author=author_of("rollback"), reason=reason, base=newest)
        return await client.policies.roll_back(request)

    print_result(make_screen(ctx), change(find_project(ctx), send, base=base), output=output)


def change(
    project: Project, send: Callable[[MeshClient, int], Awaitable[PolicyResult]], *, base: int | None = None
) -> PolicyResult:
    """Ask for a change of the revision ``base``; of the one that is in force when it is not given."""

    async def converse(client: MeshClient) -> PolicyResult:
        if base is not None:
            return await send(client, base)
        heads = (await client.policies.history(limit=1)).revisions
        return await send(client, heads[0].number if heads else 0)

    return ask(project, converse)


def read_policy_files(project: Project, names: list[str]) -> TopologySource:
    """The files named on the command, with the variables that they use. Raises UsageError."""
    if names.count(STDIN) > 1:
        raise UsageError("standard input can be read once only", hint="name - once")
    return read_source(replace(project, files=tuple(names)))


def shape_files(source: TopologySource) -> list[SourceFileShape]:
    """Files as they are sent."""
    from meshctl.wire.models import SourceFileShape as File  # noqa: PLC0415 - loaded when it is sent

    return [File(path=f.path, directory=f.directory, text=f.text) for f in source.files]


def print_result(screen: Screen, result: PolicyResult, *, output: Output, dry_run: bool = False) -> None:
    """Say what changed, and that it is in effect; or print the result as JSON."""
    if output is Output.JSON:
        from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
        from meshctl.wire.models import encode  # noqa: PLC0415

        print_json(encode(result))
        return
    for item in result.changes:
        before, after = item.before or "not set", item.after or "not set"
        screen.say(f"{item.owner} {item.path}: {before} -> {after}")
    if not result.changes:
        number = f", as revision {result.revision} has it" if result.revision else ""
        screen.say(f"nothing {'would change' if dry_run else 'changed'}: that is in force already{number}")
    elif dry_run:
        took = describe_duration(result.duration_ms)
        sidecars = f"Envoy would take it at {result.acked}/{count_nouns(result.total, 'sidecar')} ({took})"
        screen.say(f"{sidecars if result.total else 'no sidecar would be told anything'}; nothing was changed")
    elif result.total:
        screen.say(f"revision {result.revision}; {describe_applied(result)}")
    else:
        screen.say(f"revision {result.revision}; it changes nothing at any sidecar that runs")


def _confirm(screen: Screen, found: PolicyList) -> None:
    """Ask before something is deleted. Ends the command when the answer is no."""
    for policy in found.policies:
        screen.say(f"{policy.owner} {policy.kind}: {policy.words}")
    if found.policies and not typer.confirm("delete this?", err=True):
        raise typer.Exit(INTERRUPTED)
