"""Which mesh a command means: topology files, folder, variables, and the way to its control plane.

Enters: options and environment.  Leaves: a Project, a TopologySource, a connected client.  I/O: reads files.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from meshctl.cli.errors import InvalidFiles
from meshctl.client.errors import DisconnectedError
from meshctl.errors import InvalidTopology, NotRunningError, UsageError
from meshctl.wire.paths import MeshPaths, locate

if TYPE_CHECKING:
    from rich.console import Console

    from meshctl.client.client import MeshClient
    from meshctl.ports import SourceFile, TopologySource
    from meshctl.spec.schema import Mesh

T = TypeVar("T")

FILE_NAMES = ("mesh.yaml", "mesh.yml")
"""What a topology file is called when none is named."""

STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options that stand before the command."""

    files: tuple[str, ...] = ()
    env_file: str = ""
    directory: str = ""
    quiet: bool = False
    no_color: bool = False
    debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One mesh on disk: ``files`` as the user would name them (empty when none was found), paths of its state."""

    files: tuple[str, ...]
    env_file: str
    paths: MeshPaths

    @property
    def directory(self) -> str:
        """The absolute folder of the mesh."""
        return self.paths.directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Where a command prints: data to ``out``, messages to ``err``, nothing but data and errors when ``quiet``."""

    out: Console
    err: Console
    quiet: bool

    def say(self, message: str) -> None:
        """Print a message for people on stderr, unless quiet."""
        if not self.quiet:
            self.err.print(message, markup=False, highlight=False, soft_wrap=True)


def settings_of(ctx: typer.Context) -> Settings:
    """The options that stood before the command; during completion nothing has run yet, and only words are there."""
    found = ctx.find_object(Settings)
    if found is not None:
        return found
    words = ctx.find_root().params
    return Settings(
        files=tuple(words.get("file") or ()),
        env_file=words.get("env_file") or "",
        directory=words.get("project_directory") or "",
    )


def files_of(ctx: typer.Context) -> tuple[str, ...]:
    """The files named on the command itself, for completion."""
    return tuple(ctx.params.get("file") or ())


def make_screen(ctx: typer.Context) -> Screen:
    """The consoles for a command."""
    from meshctl.cli.render import make_console  # noqa: PLC0415 - rich is loaded when something is printed

    settings = settings_of(ctx)
    return Screen(
        out=make_console(no_color=settings.no_color),
        err=make_console(stderr=True, no_color=settings.no_color),
        quiet=settings.quiet,
    )


def find_project(ctx: typer.Context, *, files: Sequence[str] | None = None, need_files: bool = False) -> Project:
    """The mesh that a command means.

    Files: those named (on the command, else before it, else in ``MESHCTL_FILE``), else ``mesh.yaml`` or ``mesh.yml``
    of this folder or the nearest parent that has one. Folder: ``--project-directory``, else ``MESHCTL_DIR``, else
    that of the first file, else the nearest one that holds the state of a mesh.

    Raises:
        UsageError: a named folder does not exist, or no file was found and ``need_files`` is set.
    """
    settings = settings_of(ctx)
    named = tuple(files or ()) or settings.files or _split_paths(os.environ.get("MESHCTL_FILE", ""))
    chosen = settings.directory or os.environ.get("MESHCTL_DIR", "")
    if chosen and not Path(chosen).is_dir():
        raise UsageError(f"no such folder: {chosen}", hint="name the folder of the topology file")
    env_file = settings.env_file or os.environ.get("MESHCTL_ENV_FILE", "")
    if named:
        folder = chosen or (str(Path.cwd()) if named[0] == STDIN else str(Path(named[0]).parent))
        return _make_project(folder, named, env_file)
    start = Path(chosen or Path.cwd()).resolve()
    for place in [start] if chosen else [start, *start.parents]:
        for name in FILE_NAMES:
            if (place / name).is_file():
                return _make_project(str(place), (_shorten(place / name),), env_file)
        if not need_files and (place / ".meshctl").is_dir():
            return _make_project(str(place), (), env_file)
    if need_files:
        where = f"in {start}" if chosen else "in this folder or in one above it"
        raise UsageError(
            f"no {' or '.join(FILE_NAMES)} {where}",
            hint="`meshctl init` writes one to start from; -f FILE names another file",
        )
    return _make_project(str(start), (), env_file)


def read_source(project: Project) -> TopologySource:
    """Read the files of a project and the variables they refer to; the environment stands above the ``.env`` file.

    Raises:
        UsageError: a file cannot be read.
        InvalidTopology: the ``.env`` file has problems.
    """
    from meshctl.ports import TopologySource  # noqa: PLC0415 - as the next
    from meshctl.spec.load import find_variables  # noqa: PLC0415 - YAML is loaded when a file is read

    files = tuple(_read_file(path, project.directory) for path in project.files)
    wanted = frozenset[str]().union(*(find_variables(file.text) for file in files))
    values = {**_read_env_file(project), **os.environ} if wanted else {}
    return TopologySource(files=files, variables={name: values[name] for name in sorted(wanted) if name in values})


def load_mesh(source: TopologySource) -> Mesh:
    """The Mesh of a source. Raises InvalidFiles with every problem."""
    from meshctl.spec.load import load  # noqa: PLC0415 - YAML is loaded when a file is read

    try:
        return load(source)
    except InvalidTopology as error:
        raise InvalidFiles(error.problems, texts={file.path: file.text for file in source.files}) from None


def connect(project: Project) -> MeshClient:
    """A client of the project's control plane, to be used with ``async with``."""
    from meshctl.client.client import MeshClient  # noqa: PLC0415 - aiohttp takes longer to load than most commands run

    return MeshClient(project.paths.api_socket, directory=project.directory)


def ask(project: Project, question: Callable[[MeshClient], Awaitable[T]]) -> T:
    """Connect, run one conversation, and return its result. Raises the leaf that the control plane answered."""
    import asyncio  # noqa: PLC0415 - help and completion have no use for it

    async def converse() -> T:
        async with connect(project) as client:
            return await question(client)

    try:
        return asyncio.run(converse())
    except DisconnectedError:
        raise
    except NotRunningError as error:
        if has_leftovers(project.paths):
            raise left_behind(project) from None
        raise error from None


def has_leftovers(paths: MeshPaths) -> bool:
    """True when a process keeper answers or has records of processes: a control plane died, its mesh goes on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(paths.keeper_socket)
        except OSError:
            return any(Path(paths.runtime, "processes").glob("*.json"))
    return True


def left_behind(project: Project) -> NotRunningError:
    """What to say of a mesh whose control plane died."""
    return NotRunningError(
        f"the control plane of {project.directory} is not running, but its services may be",
        hint="`meshctl up` takes over what runs, `meshctl down` stops it",
    )


def _make_project(folder: str, files: tuple[str, ...], env_file: str) -> Project:
    directory = str(Path(folder).resolve())
    return Project(files=files, env_file=env_file, paths=locate(directory, environ=os.environ, uid=os.getuid()))


def _split_paths(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(os.pathsep) if part)


def _shorten(path: Path) -> str:
    """The path as a user would write it: relative when that is the shorter form."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _read_file(path: str, directory: str) -> SourceFile:
    from meshctl.ports import SourceFile  # noqa: PLC0415 - as in read_source

    if path == STDIN:
        return SourceFile(path="<stdin>", directory=directory, text=sys.stdin.read())
    return SourceFile(path=path, directory=str(Path(path).resolve().parent), text=_read_text(path))


def _read_env_file(project: Project) -> Mapping[str, str]:
    from meshctl.spec.dotenv import parse_dotenv  # noqa: PLC0415 - only when the topology uses variables

    path = project.env_file
    if not path:
        beside = Path(project.directory) / ".env"
        if not beside.is_file():
            return {}
        path = _shorten(beside)
    text = _read_text(path)
    try:
        return parse_dotenv(text, path)
    except InvalidTopology as error:
        raise InvalidFiles(error.problems, texts={path: text}) from None


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", hint="`meshctl init` writes a topology to start from") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint="a topology file is YAML text in UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
