"""The command line: one typer application, the options before every command, and the edge where failures end.

Every verb group is a module with ``register(app)``; a new one is imported and named in ``VERBS`` below.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from meshctl.cli import (
    call,
    certs,
    doctor,
    down,
    errors,
    events,
    init,
    logs,
    proxy,
    register,
    scale,
    status,
    up,
    validate,
    version,
)
from meshctl.cli.options import example
from meshctl.cli.project import Settings, make_screen
from meshctl.errors import MeshctlError

_ANYWHERE = frozenset({"--no-color", "--debug", "--quiet", "-q"})
"""Flags that may stand after the command too."""


class MeshctlGroup(TyperGroup):
    """Turns MeshctlError leaves and Ctrl+C into messages and exit codes, for every command below it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the flags that may stand anywhere to the front."""
        end = args.index("--") if "--" in args else len(args)
        front = [arg for arg in args[:end] if arg in _ANYWHERE]
        return super().parse_args(ctx, [*front, *(arg for arg in args[:end] if arg not in _ANYWHERE), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; failures end here."""
        try:
            return super().invoke(ctx)
        except MeshctlError as error:
            screen = make_screen(ctx)
            if _debugging(ctx.params):
                traceback.print_exc()
            errors.print_error(screen.err, error)
            raise typer.Exit(errors.exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(errors.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of a pipe (head, say) has what it wanted; what is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(errors.DONE) from None


app = typer.Typer(
    cls=MeshctlGroup,
    name="meshctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example("meshctl init --example shop", "meshctl up", "meshctl status"),
)


@app.callback()
def read_settings(
    ctx: typer.Context,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Topology file; repeat to lay files over one another; - is stdin. Also MESHCTL_FILE.",
        ),
    ] = None,
    env_file: Annotated[
        str, typer.Option("--env-file", metavar="FILE", help="Variables for the topology (default: .env beside it).")
    ] = "",
    project_directory: Annotated[
        str, typer.Option("--project-directory", metavar="DIR", help="The mesh's folder. Also MESHCTL_DIR.")
    ] = "",
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only data and errors.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print without colour. Also NO_COLOR.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks. Also MESHCTL_DEBUG=1.")] = False,
) -> None:
    """A complete service mesh on this machine: Envoy sidecars, mTLS, discovery and policy, with one command."""
    ctx.obj = Settings(
        files=tuple(file or ()),
        env_file=env_file,
        directory=project_directory,
        quiet=quiet,
        no_color=no_color,
        debug=debug,
    )


VERBS: tuple[Any, ...] = (
    *(up, down, status, logs, events),
    *(call, proxy, scale, register, certs),
    *(init, validate, doctor, version),
)
"""The verb groups, in the order of the help."""

for _verb in VERBS:
    _verb.register(app)


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (that of this process unless ``argv`` is given) and end the process with the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        app(words, prog_name="meshctl")
    except Exception as error:  # noqa: BLE001 - the edge: a bug ends in one line, and in a traceback with --debug
        if _debugging({"debug": "--debug" in words}):
            traceback.print_exc()
        sys.stderr.write(f"error: unexpected {type(error).__name__}: {error}\nhint: --debug shows where it happened\n")
        sys.exit(errors.FAILED)
    sys.exit(errors.DONE)


def _debugging(params: dict[str, Any]) -> bool:
    return bool(params.get("debug")) or os.environ.get("MESHCTL_DEBUG", "") not in ("", "0")
