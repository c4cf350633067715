"""``meshctl experiment``: run an experiment on the mesh, check its file, show and share what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshctl.cli.complete import complete_runs
from meshctl.cli.errors import DONE, FAILED, INTERRUPTED, USAGE, InvalidFiles
from meshctl.cli.options import PANEL_CHANGE, Output, OutputOption, example
from meshctl.cli.project import STDIN, Project, connect, find_project, make_screen
from meshctl.errors import ConflictError, InvalidTopology, NotFoundError, UsageError

if TYPE_CHECKING:
    from meshctl.cli.experiment_views import Progress
    from meshctl.experiments.model import Experiment
    from meshctl.ports import SourceFile
    from meshctl.spec.render import Value

UNSTEADY = 5
UNDONE = 6

EXIT_CODES = {"held": DONE, "deviated": FAILED, "unsteady": UNSTEADY, "failed": UNDONE, "interrupted": INTERRUPTED}
"""The exit code of each verdict."""

_KEPT = 100
"""Journals that are kept of one mesh."""

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", show_default=False, help="The experiment, YAML or JSON; - is stdin.")
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        autocompletion=complete_runs,
        show_default=False,
        help="As `experiment list` names it, or a journal; the newest if none.",
    ),
]
VarOption = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="A value that holds before that of `configuration`; repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="experiment",
        help="Run experiments: what should hold, what is done to the mesh, and what came of it.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=example("meshctl experiment run examples/experiments/payment-slow.yaml"),
    )
    group.command(
        "run",
        epilog=example(
            "meshctl experiment run payment-slow.yaml",
            "meshctl experiment run payment-slow.yaml --var delay=2s --html report.html",
        ),
    )(run_file)
    group.command("validate", epilog=example("meshctl experiment validate payment-slow.yaml"))(validate_file)
    group.command(
        "report", epilog=example("meshctl experiment report", "meshctl experiment report journal.json --html r.html")
    )(show_report)
    group.command("list", epilog=example("meshctl experiment list", "meshctl experiment list -o json"))(list_runs)
    app.add_typer(group, rich_help_panel=PANEL_CHANGE)


def run_file(
    ctx: typer.Context,
    file: FileArgument,
    var: VarOption = None,
    output: OutputOption = Output.TABLE,
    *,
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="Write a page to share, with charts.")] = "",
    journal: Annotated[
        str, typer.Option("--journal", metavar="FILE", help="Write the journal here too; it is kept in any case.")
    ] = "",
) -> None:
    """Run an experiment: hypothesis, method, hypothesis again, rollbacks.

    The rollbacks are always run: after a failure, and after Ctrl+C (a second one gives them up). Faults end by
    themselves even then. Exits with 0 when the steady state held, 1 when it deviated, 2 for an invalid file, 3 when no
    mesh runs, 5 when the steady state was not there to begin with, 6 when an action could not be done, 130 when it was
    interrupted.
    """
    from meshctl.cli.experiment_views import Progress, print_journal  # noqa: PLC0415 - rich

    project, screen = find_project(ctx), make_screen(ctx)
    experiment = _load(file, var)
    keep = _Keep(project, file)
    with _alone(project):
        done = asyncio.run(_run(project, experiment, Progress(screen), keep))
    _write_reports(done, html=html, journal=journal)
    verdict = str(done["meshctl"]["verdict"])
    if output is Output.JSON:
        sys.stdout.write(json.dumps(done, indent=2) + "\n")
    else:
        print_journal(screen.out, done)
        screen.say(f"journal: {keep.shown}" + (f"; report: {html}" if html else ""))
    if EXIT_CODES[verdict]:
        raise typer.Exit(EXIT_CODES[verdict])


def validate_file(
    ctx: typer.Context, file: FileArgument, var: VarOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Check an experiment and show every problem in it. Exits with 2 when there is one."""
    from meshctl.cli.render import print_json, print_line  # noqa: PLC0415 - rich
    from meshctl.cli.wording import count_nouns  # noqa: PLC0415
    from meshctl.wire.failures import shape_problem  # noqa: PLC0415
    from meshctl.wire.models import ValidationReport, encode  # noqa: PLC0415

    def report(problems: list[Any]) -> None:
        shapes = [shape_problem(problem) for problem in problems]
        print_json(encode(ValidationReport(valid=not shapes, files=[file], services=0, upstreams=0, problems=shapes)))

    try:
        found = _load(file, var)
    except InvalidTopology as error:
        if output is not Output.JSON:
            raise
        report(list(error.problems))
        raise typer.Exit(USAGE) from None
    if output is Output.JSON:
        report([])
        return
    counts = (
        f"{count_nouns(len(found.hypothesis), 'probe')} of the steady state, "
        f"{len(found.method)} in the method, {count_nouns(len(found.rollbacks), 'rollback')}"
    )
    print_line(make_screen(ctx).out, f"{file} is valid: {counts}")


def show_report(
    ctx: typer.Context,
    run: RunArgument = "",
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="Write a page to share, with charts.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what came of a run. Takes the journals of `chaos run` too."""
    from meshctl.cli.experiment_views import print_journal  # noqa: PLC0415 - rich

    screen = make_screen(ctx)
    path = _find_run(find_project(ctx), run)
    journal = _read_journal(path)
    _write_reports(journal, html=html, journal="")
    if output is Output.JSON:
        sys.stdout.write(json.dumps(journal, indent=2) + "\n")
        return
    print_journal(screen.out, journal)
    if html:
        screen.say(f"report: {html}")


def list_runs(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the runs of this mesh that are kept, newest first."""
    from meshctl.cli.render import Column, format_age, print_table, read_clock  # noqa: PLC0415 - rich
    from meshctl.experiments.report import read_moment, verdict_of  # noqa: PLC0415

    screen, found = make_screen(ctx), []
    for path in _list_journals(find_project(ctx)):
        with contextlib.suppress(UsageError):
            journal = _read_journal(path)
            found.append(
                {
                    "run": path.stem,
                    "title": str(journal["experiment"].get("title", "")),
                    "verdict": verdict_of(journal),
                    "start": journal["start"],
                    "duration": journal["duration"],
                    "journal": str(path),
                }
            )
    if output is Output.JSON:
        sys.stdout.write(json.dumps({"runs": found}) + "\n")
        return
    now = read_clock()
    columns = [Column(title="RUN"), Column(title="VERDICT"), Column(title="AGE", drop=1)]
    columns += [Column(title="TOOK", drop=2, justify="right"), Column(title="TITLE", wrap=True)]
    print_table(
        screen.out,
        columns,
        [
            [
                str(each["run"]),
                str(each["verdict"]),
                format_age(now - read_moment(each["start"])),
                f"{each['duration']:.0f}s",
                str(each["title"]),
            ]
            for each in found
        ],
    )


class _Keep:
    """Keeps the journal of one run beside the state of the mesh; written anew whenever there is news."""

    def __init__(self, project: Project, file: str) -> None:
        from meshctl.cli.render import format_time, read_clock  # noqa: PLC0415 - rich
        from meshctl.experiments.load import name_of  # noqa: PLC0415

        moment = format_time(read_clock())[:19].replace("-", "").replace(":", "").replace("T", "-")
        self._folder = _folder_of(project)
        self._path = self._folder / f"{moment}-{name_of(file) if file != STDIN else 'stdin'}.json"

    @property
    def shown(self) -> str:
        """Its path as a user would write it."""
        relative = os.path.relpath(self._path)
        return relative if len(relative) < len(str(self._path)) else str(self._path)

    def write(self, journal: dict[str, Any]) -> None:
        """Write it whole or not at all; the oldest ones go."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps(journal), encoding="utf-8")
        partial.replace(self._path)
        for old in sorted(self._folder.glob("*.json"))[:-_KEPT]:
            old.unlink(missing_ok=True)


async def _run(project: Project, experiment: Experiment, progress: Progress, keep: _Keep) -> dict[str, Any]:
    """Run to the end, whatever happens; the journal."""
    from meshctl.cli.experiment_runs import Session  # noqa: PLC0415 - aiohttp

    async with connect(project) as client:
        return await Session(client, experiment, progress, keep.write).run()


def _load(file: str, var: list[str] | None) -> Experiment:
    from meshctl.experiments.load import load  # noqa: PLC0415 - YAML is loaded when a file is read
    from meshctl.experiments.variables import parse_value  # noqa: PLC0415

    given: dict[str, Value] = {}
    for word in var or []:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--var: {word!r} is no NAME=VALUE", hint="write --var delay=2s")
        given[name] = parse_value(value)
    source = _read_file(file)
    try:
        return load(source, os.environ, given)
    except InvalidTopology as error:
        raise InvalidFiles(error.problems, texts={source.path: source.text}) from None


def _read_file(file: str) -> SourceFile:
    from meshctl.ports import SourceFile as File  # noqa: PLC0415

    if file == STDIN:
        return File(path="<stdin>", directory=str(Path.cwd()), text=sys.stdin.read())
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no such file: {file}", hint="examples/experiments has some to begin with") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from None
    return File(path=file, directory=str(Path(file).resolve().parent), text=text)


def _folder_of(project: Project) -> Path:
    return Path(project.paths.state) / "experiments"


def _list_journals(project: Project) -> list[Path]:
    return sorted(_folder_of(project).glob("*.json"), reverse=True)


def _find_run(project: Project, run: str) -> Path:
    if run and Path(run).is_file():
        return Path(run)
    found = _list_journals(project)
    for path in found:
        if run in ("", path.stem):
            return path
    if run:
        raise NotFoundError(f"there is no run {run}, and no such file", hint="`meshctl experiment list` shows them")
    raise NotFoundError("no experiment was run on this mesh yet", hint="`meshctl experiment run FILE` runs one")


def _read_journal(path: Path) -> dict[str, Any]:
    try:
        journal = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no journal: {error}") from None
    if not isinstance(journal, dict) or not isinstance(journal.get("experiment"), dict):
        raise UsageError(f"{path} is no journal of an experiment")
    return journal


def _write_reports(done: dict[str, Any], *, html: str, journal: str) -> None:
    from meshctl.experiments.report import make_report  # noqa: PLC0415

    try:
        if journal:
            Path(journal).write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
        if html:
            Path(html).write_text(make_report(done), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None


@contextlib.contextmanager
def _alone(project: Project) -> Iterator[None]:
    """One experiment at a time on one mesh: two would take each other's faults for what they look for."""
    import fcntl  # noqa: PLC0415 - of use here alone

    folder = _folder_of(project)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError("another experiment runs on this mesh", hint="wait until it has ended") from None
        yield
