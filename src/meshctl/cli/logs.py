"""``meshctl logs``: captured output of services and sidecars, of a running mesh or out of its files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from meshctl.cli.following import SeenLines
from meshctl.cli.following import follow as follow_stream
from meshctl.cli.lines import LineWriter
from meshctl.cli.options import PANEL_SEE, FileOnlyOption, Output, TargetsArgument, check_pattern, example, parse_moment
from meshctl.cli.project import Project, Screen, connect, find_project, load_mesh, make_screen, read_source
from meshctl.cli.render import print_json, print_line, read_clock
from meshctl.cli.requests import RequestLines
from meshctl.client.errors import DisconnectedError
from meshctl.errors import MeshctlError, NotFoundError, NotRunningError, UsageError
from meshctl.wire.models import LogLine, encode
from meshctl.wire.requests import MARK, SeenRequest, read_line

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

_NOT_SERVICES = frozenset({"daemon", "keeper"})
"""Logs of meshctl itself: shown when they are named."""

_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")

_SIDECAR = "sidecar."
_GATEWAY = "gateway"

_OVERLAP = 5.0
# Seconds that are read again after a control plane that died; lines of those that were shown are left out.


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which lines are wanted; times are seconds since the epoch."""

    sources: tuple[str, ...]
    sidecars: bool
    tail: int | None
    since: float | None
    until: float | None
    grep: str
    follow: bool
    access: bool = False
    trace: bool = False


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl logs -f checkout",
            "meshctl logs --since 5m --grep 'timeout|refused'",
            "meshctl logs -n 20 checkout-v2-1 --sidecars",
            "meshctl logs --access payment --since 1m",
        ),
    )(logs)


def logs(
    ctx: typer.Context,
    targets: TargetsArgument = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is to come.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, metavar="N", help="Only the last N lines of each source.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Put the time before each line.")] = False,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Only lines since: 5m, or a time.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Only lines before: 5m, or a time.")] = "",
    grep: Annotated[
        str, typer.Option("--grep", metavar="RE", help="Only lines in which this regular expression is found.")
    ] = "",
    sidecars: Annotated[bool, typer.Option("--sidecars", help="With the output of the sidecars.")] = False,
    access: Annotated[
        bool, typer.Option("--access", help="The access logs of sidecars: requests, one a line.")
    ] = False,
    trace: Annotated[
        str, typer.Option("--trace", metavar="ID", help="Only lines with this trace id, of services and sidecars.")
    ] = "",
    no_prefix: Annotated[bool, typer.Option("--no-prefix", help="Without the source before each line.")] = False,
    file: FileOnlyOption = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print; json is one object a line.")] = (
        Output.TABLE
    ),
) -> None:
    """Show what services and sidecars wrote, merged by time; without a running mesh, out of the files it left.

    A name is that of a service, an instance, sidecar.<service>, gateway, or daemon for the control plane. Requests in
    the access logs are shown with --access and --trace only; --grep looks at the JSON that was written of them.
    """
    now = read_clock()
    trace = _check_trace(trace)
    mark = re.escape(MARK)
    named = any(_is_sidecar(target) for target in targets or ())
    kind = f"(?={mark})" if access else f"(?!{mark})" if (sidecars or named) and not trace else ""
    selection = Selection(
        sources=tuple(targets or ()),
        sidecars=sidecars or access or bool(trace),
        tail=tail,
        since=parse_moment(since, now=now, option="--since") if since else None,
        until=parse_moment(until, now=now, option="--until") if until else None,
        grep=_choose_pattern(check_pattern(grep), kind=kind, trace=trace),
        follow=follow,
        access=access,
        trace=bool(trace),
    )
    screen = make_screen(ctx)
    writer = LineWriter(
        colored=screen.out.color_system is not None, prefix=not no_prefix, timestamps=timestamps, flush=follow
    )
    project = find_project(ctx, files=file)
    asyncio.run(_show(project, selection, writer, screen=screen, as_json=output is Output.JSON))


async def _show(project: Project, selection: Selection, writer: LineWriter, *, screen: Screen, as_json: bool) -> None:
    try:
        lines = _read_from_mesh(project, selection, writer, screen)
        await _print(lines, _Printer(writer, screen, selection, as_json=as_json))
    except DisconnectedError:
        raise
    except NotRunningError as error:
        paths = find_log_files(project, selection.sources, sidecars=selection.sidecars)
        if not paths:
            raise
        screen.say(f"{error.message}; these are the lines that it left")
        writer.align(paths)
        await _print(_read_from_files(paths, selection), _Printer(writer, screen, selection, as_json=as_json))


async def _print(lines: AsyncIterator[LogLine], printer: _Printer) -> None:
    async for line in lines:
        printer.print(line)


class _Printer:
    """Prints lines: output as it was captured, access logs as requests."""

    def __init__(self, writer: LineWriter, screen: Screen, selection: Selection, *, as_json: bool) -> None:
        self._writer = writer
        self._screen = screen
        self._selection = selection
        self._as_json = as_json
        self._requests = RequestLines(width=screen.out.width)

    def print(self, line: LogLine) -> None:
        """Print one line, if it is of the kind that is asked for."""
        chosen = self._selection
        is_request = line.text.startswith(MARK)
        if is_request != chosen.access and not chosen.trace:
            return
        request = self._read(line) if is_request else None
        if request is None:
            if self._as_json:
                print_json(encode(line))
            else:
                self._writer.write(line)
        elif self._as_json:
            print_json(encode(request))
        elif chosen.access:
            print_line(self._screen.out, self._requests.make(request))
        else:
            self._writer.write(msgspec.structs.replace(line, text=self._requests.make(request).plain))

    def _read(self, line: LogLine) -> SeenRequest | None:
        return read_line(line.text, sidecar=line.source.removeprefix(_SIDECAR), instances=self._writer.instances)


async def _read_from_mesh(
    project: Project, selection: Selection, writer: LineWriter, screen: Screen
) -> AsyncIterator[LogLine]:
    if not selection.follow:
        async with connect(project) as client:
            async for line in _ask(client, selection, writer):
                yield line
        return
    seen, begun = SeenLines(), read_clock()
    lost: float | None = None

    async def read(client: MeshClient) -> AsyncIterator[LogLine]:
        nonlocal lost
        asked = selection
        if lost is not None:
            # What was written while no control plane ran is in the files, and a little of what was shown.
            seen.read_again()
            asked = replace(selection, tail=None, since=max(lost - _OVERLAP, selection.since or begun))
        async for line in _ask(client, asked, writer):
            lost = line.time
            yield line

    async for line in follow_stream(project, screen, read):
        if seen.is_new(line):
            yield line


async def _ask(client: MeshClient, selection: Selection, writer: LineWriter) -> AsyncIterator[LogLine]:
    status = await client.status()
    named = set(selection.sources)
    if selection.sidecars and not named:
        writer.align([_GATEWAY, *(f"{_SIDECAR}{service.name}" for service in status.services)])
    for service in status.services:
        for instance in service.instances:
            if instance.inbound_port is not None:
                writer.instances[f"127.0.0.1:{instance.inbound_port}"] = instance.id
            if not named or named & {service.name, instance.id}:
                writer.align([instance.id])
    async for line in client.logs(
        sources=selection.sources,
        sidecars=selection.sidecars,
        tail=selection.tail,
        since=selection.since,
        until=selection.until,
        grep=selection.grep,
        follow=selection.follow,
    ):
        yield line


async def _read_from_files(paths: dict[str, str], selection: Selection) -> AsyncIterator[LogLine]:
    from meshctl.adapters.log_files import read_logs  # noqa: PLC0415 - only without a running mesh

    async for entry in read_logs(
        paths,
        tail=selection.tail,
        since=selection.since,
        until=selection.until,
        grep=re.compile(selection.grep) if selection.grep else None,
        follow=False,
    ):
        yield LogLine(source=entry.source, time=entry.line.time, stream=entry.line.stream, text=entry.line.text)


def find_log_files(project: Project, sources: Sequence[str], *, sidecars: bool) -> dict[str, str]:
    """The log files that a stopped mesh left: source -> path, sorted; empty when there are none at all.

    Raises:
        NotFoundError: there are files, but none of a named source.
    """
    found = {path.name.removesuffix(".log"): str(path) for path in Path(project.paths.logs).glob("*.log")}
    services = _known_services(project)
    chosen: dict[str, str] = {}
    answered: set[str] = set()
    for name, path in sorted(found.items()):
        names = {name, _service_of(name, services)}
        quiet = name in _NOT_SERVICES or (_is_sidecar(name) and not sidecars)
        if (not sources and not quiet) or name in sources or (names & set(sources) and not quiet):
            chosen[name] = path
            answered |= names
    missing = [source for source in sources if source not in answered]
    known = sorted({_service_of(name, services) for name in found} - _NOT_SERVICES)
    if missing and not known:
        return {}
    if missing:
        raise NotFoundError(f"there is no log of {', '.join(missing)}", hint=f"there are those of {', '.join(known)}")
    return chosen


def _known_services(project: Project) -> frozenset[str]:
    """The services of the topology; none when it cannot be read, names then tell enough."""
    if not project.files:
        return frozenset()
    try:
        return frozenset(load_mesh(read_source(project)).services)
    except MeshctlError:
        return frozenset()


def _is_sidecar(name: str) -> bool:
    return name == _GATEWAY or name.startswith(_SIDECAR)


def _service_of(name: str, services: frozenset[str]) -> str:
    """The service that a log belongs to: ``checkout`` for ``checkout-v1-1`` and for ``sidecar.checkout``."""
    if name.startswith(_SIDECAR):
        return name.removeprefix(_SIDECAR)
    owners = [service for service in services if name.startswith(f"{service}-")]
    return max(owners, key=len) if owners else re.sub(r"-[^-]+-\d+$", "", name)


def _choose_pattern(grep: str, *, kind: str, trace: str) -> str:
    """The one pattern of the lines that are wanted, so that they are counted where they are read.

    ``kind`` is a pattern of how they begin, empty for any.
    """
    wanted = [pattern for pattern in (grep, trace) if pattern]
    if not kind and len(wanted) < 2:
        return "".join(wanted)
    # Flags stand at the beginning of a pattern or nowhere; where they make `#` begin a comment, it ends with its line.
    found = _FLAGS.match(grep)
    flags = found.group() if found else ""
    end = "\n" if "x" in flags else ""
    parts = (f"(?=.*?(?:{pattern.removeprefix(flags)}{end}))" for pattern in wanted)
    return f"{flags}\\A{kind}{''.join(parts)}"


def _check_trace(trace: str) -> str:
    if trace and not re.fullmatch(r"[0-9a-fA-F]{32}", trace):
        raise UsageError(f"--trace: {trace!r} is no trace id", hint="write its 32 hexadecimal digits")
    return trace.lower()
