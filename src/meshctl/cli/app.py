"""The command line: one typer application, the options before every command, and the edge where failures end.

Every verb lies in a module with ``register(app)`` and has a row in ``VERBS`` below. A module is imported when one of
its verbs is run, so that no command waits for what others need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from meshctl.cli import errors
from meshctl.cli.options import PANEL_CHANGE, PANEL_RUN, PANEL_SEE, PANEL_TOOLS, example
from meshctl.cli.project import Settings, make_screen
from meshctl.cli.usage import tidy
from meshctl.errors import MeshctlError

_ANYWHERE = frozenset({"--no-color", "--debug", "--quiet", "-q"})
"""Flags that may stand after the command too."""


class Verb(NamedTuple):
    """A command: its name, the module of ``meshctl.cli`` that registers it, and its line in the list of commands."""

    name: str
    module: str
    panel: str
    text: str
    hidden: bool = False


VERBS = (
    Verb("up", "up", PANEL_RUN, "Start the mesh, or bring what changed in its files into effect."),
    Verb("down", "down", PANEL_RUN, "Stop everything."),
    Verb("status", "status", PANEL_SEE, "Show services, instances and sidecars."),
    Verb("stat", "stat", PANEL_SEE, "Show success, rate and latency of services."),
    Verb("edges", "stat", PANEL_SEE, "Show who calls whom, how secured, and how it goes."),
    Verb("top", "top", PANEL_SEE, "Show the traffic live: rates, success, latency, by service and edge."),
    Verb("logs", "logs", PANEL_SEE, "Show what services and sidecars wrote."),
    Verb("events", "events", PANEL_SEE, "Show what happened, in order."),
    Verb("tap", "tap", PANEL_SEE, "Show requests as they pass."),
    Verb("call", "call", PANEL_SEE, "Send a request as a service would, through its sidecar."),
    Verb("load", "load", PANEL_SEE, "Send requests at a steady rate, and show how they fare."),
    Verb("authz", "authz", PANEL_SEE, "Ask who may call whom, and which rule says so."),
    Verb("proxy", "proxy", PANEL_SEE, "Show the configuration of sidecars and whether it is in sync."),
    Verb("get", "policy_views", PANEL_SEE, "Show the policies that are written, and where each came from."),
    Verb("diff", "policy_views", PANEL_SEE, "Show what differs between policies in force, files and revisions."),
    Verb("explain", "explain", PANEL_SEE, "Explain what will happen to a request, and which policy says so."),
    Verb("history", "policy_views", PANEL_SEE, "Show what changed policies: when, who, what and why."),
    Verb("apply", "policies", PANEL_CHANGE, "Set the policies that a file names, while the mesh runs."),
    Verb("delete", "policies", PANEL_CHANGE, "Take a policy away."),
    Verb("rollback", "policies", PANEL_CHANGE, "Return to the policies of an earlier revision."),
    Verb("traces", "traces", PANEL_SEE, "Show traces of requests: which failed, which were slow."),
    Verb("trace", "traces", PANEL_SEE, "Draw all that one request set off, as a waterfall."),
    Verb("scale", "scale", PANEL_CHANGE, "Set how many instances of a service run."),
    Verb("restart", "scale", PANEL_CHANGE, "Restart services or instances, one after another."),
    Verb("register", "register", PANEL_CHANGE, "Add an instance that runs outside meshctl."),
    Verb("deregister", "register", PANEL_CHANGE, "Remove a registered instance."),
    Verb("canary", "canary", PANEL_CHANGE, "Shift traffic between the versions of a service."),
    Verb("circuit", "circuit", PANEL_CHANGE, "Show circuit breakers, and hold them open or closed."),
    Verb("inject", "inject", PANEL_CHANGE, "Break requests on purpose, for a while; see and end it."),
    Verb("experiment", "experiments", PANEL_CHANGE, "Run experiments, and show what came of them."),
    Verb("certs", "certs", PANEL_CHANGE, "Show, rotate and verify certificates."),
    Verb("init", "init", PANEL_TOOLS, "Write a topology to start from, with services that run."),
    Verb("validate", "validate", PANEL_TOOLS, "Check the topology and show every problem in it."),
    Verb("schema", "validate", PANEL_TOOLS, "Print the JSON Schema of the topology file."),
    Verb("doctor", "doctor", PANEL_TOOLS, "Check this machine and what a mesh left on it."),
    Verb("version", "version", PANEL_TOOLS, "Show the versions of meshctl, Envoy and Python."),
    Verb("ps", "status", PANEL_SEE, "The same as status.", hidden=True),
    Verb("daemon", "up", PANEL_RUN, "Run the control plane in the foreground.", hidden=True),
)
"""Every command, in the order of the help."""


class MeshctlGroup(TyperGroup):
    """Loads a command when it is run, and turns MeshctlError leaves and Ctrl+C into messages and exit codes."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = {
            verb.name: TyperCommand(verb.name, help=verb.text, hidden=verb.hidden, rich_help_panel=verb.panel)
            for verb in VERBS
        }
        tidy(self)
        self._loaded: dict[str, Any] = {}
        self._listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; while commands are listed, what the list needs of it."""
        if self._listing or cmd_name not in self.commands:
            return super().get_command(ctx, cmd_name)
        if cmd_name not in self._loaded:
            module = next(verb.module for verb in VERBS if verb.name == cmd_name)
            part = typer.Typer(rich_markup_mode="rich")
            import_module(f"meshctl.cli.{module}").register(part)
            self._loaded.update({name: tidy(command) for name, command in typer.main.get_group(part).commands.items()})
        return self._loaded[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help, which lists the commands."""
        with self._list():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Completion, which lists the commands."""
        with self._list():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _list(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False

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
                print_traceback()
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


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (that of this process unless ``argv`` is given) and end the process with the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        app(words, prog_name="meshctl")
    except Exception as error:  # noqa: BLE001 - the edge: a bug ends in one line, and in a traceback with --debug
        if _debugging({"debug": "--debug" in words}):
            print_traceback()
        sys.stderr.write(f"error: unexpected {type(error).__name__}: {error}\nhint: --debug shows where it happened\n")
        sys.exit(errors.FAILED)
    sys.exit(errors.DONE)


def _debugging(params: dict[str, Any]) -> bool:
    return bool(params.get("debug")) or os.environ.get("MESHCTL_DEBUG", "") not in ("", "0")


def print_traceback() -> None:
    """Print the traceback of the failure being handled."""
    import traceback  # noqa: PLC0415 - takes longer to load than everything else here, and is seldom wanted

    traceback.print_exc()
