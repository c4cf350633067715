"""What holds for every command: help, exit codes, where options may stand, which mesh is meant, completion."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import TOPOLOGY, RunCli, ServedMesh
from tests.fakes.backend import T0

from meshctl.cli import project as project_module
from meshctl.cli.app import VERBS, app
from meshctl.cli.complete import complete_instances, complete_services, complete_targets
from meshctl.cli.options import parse_duration, parse_moment
from meshctl.cli.project import Settings, find_project, read_source
from meshctl.cli.render import format_age
from meshctl.errors import InvalidTopology, MeshctlError, Problem, UsageError, Where
from meshctl.wire.failures import LEAVES


def _commands(group: Any, ctx: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        yield (*path, name)
        if hasattr(command, "list_commands"):
            yield from _commands(command, ctx, (*path, name))


GROUP: Any = typer.main.get_command(app)
COMMANDS = sorted(_commands(GROUP, typer.Context(GROUP)))


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
def test_every_command_s_help_ends_with_an_example(words: tuple[str, ...], run_cli: RunCli, folder: Path) -> None:
    outcome = run_cli(*words, "--help")
    assert (outcome.code, outcome.stderr) == (0, "")
    _, example, end = outcome.stdout.rpartition("Example")
    assert example
    assert f"meshctl {' '.join(words)}".strip() in end


def test_every_row_of_the_table_is_registered_by_its_module() -> None:
    ctx = typer.Context(GROUP)
    for verb in VERBS:
        command = GROUP.get_command(ctx, verb.name)
        assert (command.name, command.hidden) == (verb.name, verb.hidden)
        panel = command.rich_help_panel
        assert verb.hidden or panel == verb.panel


def test_help_loads_neither_http_nor_yaml_nor_the_control_plane(project: Path) -> None:
    code = (
        "import sys\nfrom meshctl.cli.app import run\n"
        "try:\n    run(['--help'])\n"
        "finally:\n    sys.stderr.write(repr({'aiohttp', 'yaml', 'grpc', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()"


# ------------------------------------------------------------------------------------------ failures

EXIT_CODES = {"usage": 2, "invalid-topology": 2, "not-running": 3, "timed-out": 4}


@pytest.mark.parametrize("leaf", list(LEAVES.values()), ids=list(LEAVES))
def test_every_leaf_has_its_exit_code_and_is_printed_without_a_traceback(
    leaf: type[MeshctlError], served: ServedMesh, run_cli: RunCli
) -> None:
    served.backend.failures["status"] = leaf("it failed", hint="do this", detail="line one\nline two\n")
    assert run_cli("status").shown == (
        f"--- exit {EXIT_CODES.get(leaf.code, 1)}\n--- stdout\n--- stderr\n"
        "error: it failed\n  line one\n  line two\nhint: do this\n"
    )


def test_every_problem_has_its_place_an_excerpt_and_a_caret(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.failures["status"] = InvalidTopology(
        [
            Problem(code="bad-port", message="port 0", where=Where("mesh.yaml", 2, 17), hint="choose another"),
            Problem(code="lost", message="elsewhere", where=Where("gone.yaml", 9, 1)),
            Problem(code="whole", message="no place"),
        ]
    )
    assert run_cli("status").shown == (
        """\
--- exit 2
--- stdout
--- stderr
mesh.yaml:2:17: error: port 0 [bad-port]
  2 | gateway: {port: 8080, routes: [{path: /, service: frontend}]}
    |                 ^
  choose another
gone.yaml:9:1: error: elsewhere [lost]
error: no place [whole]
error: 3 problems found; nothing was changed
"""
    )


def test_a_traceback_is_shown_with_debug_only(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.failures["status"] = MeshctlError("it failed")
    assert "Traceback" not in run_cli("status").stderr
    assert "Traceback" in run_cli("status", "--debug").stderr
    assert "Traceback" in run_cli("--debug", "status").stderr


def test_a_bug_is_one_line_without_debug(project: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(project_module, "locate", fail)
    assert run_cli("status").shown == (
        "--- exit 1\n--- stdout\n--- stderr\n"
        "error: unexpected ZeroDivisionError: boom\nhint: --debug shows where it happened\n"
    )
    monkeypatch.setenv("MESHCTL_DEBUG", "1")
    assert "Traceback" in run_cli("status").stderr


@pytest.mark.parametrize("words", [("statu",), ("status", "--bogus"), ("logs", "-n", "x"), ("status", "-o", "xml")])
def test_misused_words_are_exit_2(words: tuple[str, ...], project: Path, run_cli: RunCli) -> None:
    outcome = run_cli(*words)
    assert (outcome.code, outcome.stdout) == (2, "")


def test_a_misspelt_command_is_suggested(project: Path, run_cli: RunCli) -> None:
    assert "Did you mean 'status'" in run_cli("statis").stderr


# ------------------------------------------------------------------------------------------ which mesh


def _context(**settings: Any) -> typer.Context:
    ctx = typer.Context(GROUP)
    ctx.obj = Settings(**settings)
    return ctx


def test_the_file_is_looked_for_in_this_folder_and_above(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    found = find_project(_context())
    assert (found.files, found.directory) == (("../../mesh.yaml",), str(project))


def test_mesh_yml_is_found_too_and_mesh_yaml_comes_first(folder: Path) -> None:
    (folder / "mesh.yml").write_text(TOPOLOGY)
    assert find_project(_context()).files == ("mesh.yml",)
    (folder / "mesh.yaml").write_text(TOPOLOGY)
    assert find_project(_context()).files == ("mesh.yaml",)


def test_no_file_is_exit_2_with_a_hint_for_commands_that_need_one(folder: Path, run_cli: RunCli) -> None:
    assert run_cli("up").shown == (
        "--- exit 2\n--- stdout\n--- stderr\n"
        "error: no mesh.yaml or mesh.yml in this folder or in one above it\n"
        "hint: `meshctl init` writes one to start from; -f FILE names another file\n"
    )


def test_a_folder_with_state_is_a_mesh_for_commands_that_only_talk_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".meshctl").mkdir()
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert find_project(_context()).directory == str(folder)


def test_the_command_s_files_beat_the_global_ones_and_these_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHCTL_FILE", os.pathsep.join(["a/one.yaml", "two.yaml"]))
    assert find_project(_context()).files == ("a/one.yaml", "two.yaml")
    assert find_project(_context()).directory == str(folder / "a")
    assert find_project(_context(files=("global.yaml",))).files == ("global.yaml",)
    assert find_project(_context(files=("global.yaml",)), files=["own.yaml"]).files == ("own.yaml",)


def test_the_folder_may_be_chosen(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_project(_context(directory="shop")).directory == str(project)
    monkeypatch.setenv("MESHCTL_DIR", str(project))
    assert find_project(_context()).directory == str(project)
    with pytest.raises(UsageError, match="no such folder: nowhere"):
        find_project(_context(directory="nowhere"))


def test_global_files_work_before_and_after_the_command(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("-f", "mesh.yaml", "status", "-o", "json").code == 0
    assert run_cli("status", "-f", "mesh.yaml", "-o", "json").code == 0


def test_a_file_may_come_from_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TOPOLOGY))
    source = read_source(find_project(_context(files=("-",))))
    assert (source.files[0].path, source.files[0].directory) == ("<stdin>", str(folder))
    assert source.files[0].text == TOPOLOGY


def test_problems_of_stdin_have_excerpts(folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("services:\n  a: {comand: x}\n"))
    assert "  2 |   a: {comand: x}\n" in run_cli("-f", "-", "up", "-d").stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, run_cli: RunCli, content: bytes | None) -> None:
    if content is not None:
        (folder / "x.yaml").write_bytes(content)
    outcome = run_cli("-f", "x.yaml", "up")
    assert outcome.code == 2
    assert "x.yaml" in outcome.stderr.splitlines()[0]


def test_an_env_file_may_be_named_and_its_problems_have_places(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "mesh.yaml").write_text("services: {a: {command: 'x ${NAME}'}}\n")
    (project / "other.env").write_text("NAME=other\n")
    monkeypatch.delenv("NAME", raising=False)
    assert read_source(find_project(_context(env_file="other.env"))).variables == {"NAME": "other"}
    (project / ".env").write_text("this is no assignment\n")
    with pytest.raises(InvalidTopology) as raised:
        read_source(find_project(_context()))
    where = raised.value.problems[0].where
    assert where is not None
    assert (where.file, where.line) == (".env", 1)


# ------------------------------------------------------------------------------------------ completion


def _completing(**words: Any) -> typer.Context:
    ctx = typer.Context(GROUP)
    ctx.params = words
    return ctx


def test_names_come_from_the_running_mesh(served: ServedMesh) -> None:
    assert complete_services(_completing(), "") == ["checkout", "frontend", "payment"]
    assert complete_targets(_completing(), "check") == ["checkout", "checkout-v1-1", "checkout-v2-1"]
    assert complete_instances(_completing(), "pay") == ["payment-v1-1"]


def test_names_come_from_the_topology_when_nothing_runs(project: Path) -> None:
    assert complete_targets(_completing(), "") == [
        *("checkout", "checkout-v1-1", "frontend", "frontend-v1-1", "payment", "payment-v1-1"),
    ]


def test_completion_neither_fails_nor_prints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert complete_services(_completing(), "") == []
    (folder / "mesh.yaml").write_text("]broken")
    assert complete_services(_completing(), "") == []
    assert complete_services(_completing(file=["gone.yaml"]), "") == []
    assert capsys.readouterr() == ("", "")


def test_the_shell_gets_commands_and_names(served: ServedMesh) -> None:
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        environ = {**os.environ, "_MESHCTL_COMPLETE": "complete_bash", "COMP_WORDS": line}
        environ["COMP_CWORD"] = str(len(words) - 1)
        code = "from meshctl.cli.app import run; run([])"
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("meshctl statu") == ["status"]
    assert complete("meshctl status ch") == ["checkout"]


# ------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("300ms", 0.3), ("2m", 120), ("1h", 3600), ("1m30s", 90), ("1d", 86400), ("7", 7), ("0", 0)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text, option="--x") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5x", "-1", "5s!", "nan", "inf", "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--x"):
        parse_duration(text, option="--x")


def test_moments_are_before_now_or_absolute() -> None:
    assert parse_moment("5m", now=T0, option="--since") == T0 - 300
    assert parse_moment("2026-02-02T02:40:00Z", now=0, option="--since") == T0
    assert parse_moment("2026-02-02T03:40:00+01:00", now=0, option="--since") == T0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0, "0s"), (45.9, "45s"), (60, "1m"), (190, "3m10s"), (7500, "2h5m"), (356400, "4d3h")],
)
def test_ages_have_two_units(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_json_on_a_pipe_that_is_closed_early_ends_quietly(served: ServedMesh) -> None:
    command = f"{sys.executable} -m meshctl status -o json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {"0", "141"}
    assert done.stderr == ""
    assert json.loads(subprocess.check_output([sys.executable, "-m", "meshctl", "ps", "-o", "json"]))["mesh"] == "shop"


# ------------------------------------------------------------------------------------------ usage


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (("up",), "meshctl up [OPTIONS] [SERVICE]..."),
        (("call",), "meshctl call [OPTIONS] SERVICE/PATH"),
        (("certs", "rotate"), "meshctl certs rotate [OPTIONS] [SERVICE]"),
        (("certs",), "meshctl certs [OPTIONS] COMMAND [ARGS]..."),
    ],
)
def test_usage_shows_words_as_they_are_typed(words: tuple[str, ...], usage: str, run_cli: RunCli, folder: Path) -> None:
    shown = run_cli(*words, "--help").stdout
    assert f"Usage: {usage}" in " ".join(shown.split())
    assert "<bool>" not in shown
