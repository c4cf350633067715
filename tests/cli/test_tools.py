"""`validate`, `schema`, `init`, `doctor` and `version` work with no mesh, and say what to do next."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from tests.cli.conftest import TOPOLOGY, RunCli, ServedMesh

from meshctl import __version__
from meshctl.cli import starter

BROKEN = """\
name: shop
services:
  frontend: {comand: python frontend.py, upstreams: [chekout]}
  checkout: {command: python checkout.py}
"""


def test_a_valid_topology_is_counted(project: Path, run_cli: RunCli) -> None:
    assert run_cli("validate").shown == (
        "--- exit 0\n--- stdout\nmesh.yaml is valid: 3 services, 2 upstreams\n--- stderr\n"
    )


def test_several_files_are_validated_together(project: Path, run_cli: RunCli) -> None:
    (project / "more.yaml").write_text("services:\n  extra: {command: python extra.py}\n")
    out = run_cli("validate", "-f", "mesh.yaml", "-f", "more.yaml").stdout
    assert out == "mesh.yaml, more.yaml together are valid: 4 services, 2 upstreams\n"


def test_validate_as_json_counts_too(project: Path, run_cli: RunCli) -> None:
    assert json.loads(run_cli("validate", "-o", "json").stdout) == {
        "valid": True,
        "files": ["mesh.yaml"],
        "services": 3,
        "upstreams": 2,
        "problems": [],
    }


def test_every_problem_is_shown_with_its_place(folder: Path, run_cli: RunCli) -> None:
    (folder / "mesh.yaml").write_text(BROKEN)
    done = run_cli("validate")
    assert (done.code, done.stdout) == (2, "")
    assert "mesh.yaml:3:14: error: " in done.stderr
    assert "did you mean" in done.stderr
    assert "3 |   frontend: {comand: python frontend.py, upstreams: [chekout]}" in done.stderr


def test_problems_as_json_have_place_and_code(folder: Path, run_cli: RunCli) -> None:
    (folder / "mesh.yaml").write_text(BROKEN)
    done = run_cli("validate", "-o", "json")
    report = json.loads(done.stdout)
    assert (done.code, done.stderr, report["valid"]) == (2, "", False)
    first = report["problems"][0]
    assert (first["file"], first["line"], first["column"]) == ("mesh.yaml", 3, 14)
    assert all(problem["code"] and problem["message"] for problem in report["problems"])


def test_no_topology_at_all_is_a_usage_error(folder: Path, run_cli: RunCli) -> None:
    done = run_cli("validate")
    assert (done.code, "meshctl init" in done.stderr) == (2, True)


def test_the_schema_describes_the_topology(folder: Path, run_cli: RunCli) -> None:
    schema = json.loads(run_cli("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(TOPOLOGY), schema)


def test_the_schemas_help_names_the_editors_line(run_cli: RunCli) -> None:
    assert "yaml-language-server: $schema=mesh.schema.json" in run_cli("schema", "--help").stdout


def test_init_writes_a_topology_that_is_valid(folder: Path, run_cli: RunCli) -> None:
    done = run_cli("init")
    assert done.code == 0
    assert "wrote mesh.yaml\n" in done.stderr
    assert done.stderr.endswith("next: meshctl up\n")
    assert run_cli("validate").code == 0


def test_init_writes_an_example_into_a_new_folder(folder: Path, run_cli: RunCli) -> None:
    done = run_cli("init", "--example", "shop", "my shop")
    assert done.code == 0
    assert done.stderr.endswith("next: cd 'my shop' && meshctl up\n")
    assert run_cli("validate", "-f", "my shop/mesh.yaml").code == 0


def test_init_overwrites_nothing_unless_forced(folder: Path, run_cli: RunCli) -> None:
    (folder / "mesh.yaml").write_text("name: mine\n")
    done = run_cli("init")
    assert done.code == 1
    assert done.stderr == (
        "error: this file exists already; nothing was written\n"
        "  mesh.yaml\n"
        "hint: --force overwrites, or name another folder: meshctl init DIR\n"
    )
    assert [path.name for path in folder.iterdir()] == ["mesh.yaml"]
    assert run_cli("init", "--force").code == 0
    assert "mine" not in (folder / "mesh.yaml").read_text()


@pytest.mark.parametrize("name", ["starter", "shop"])
def test_init_is_all_or_nothing(folder: Path, run_cli: RunCli, name: str) -> None:
    files = starter.starter_files(None if name == "starter" else name)
    last = max(files)
    blocked = folder / "new" / last
    blocked.mkdir(parents=True)  # a folder where a file should go
    done = run_cli("init", *(["--example", "shop"] if name == "shop" else []), "--force", "new")
    assert (done.code, "in the way" in done.stderr) == (1, True)
    assert [path for path in (folder / "new").rglob("*") if path.is_file()] == []


def test_init_refuses_what_it_cannot_do(folder: Path, run_cli: RunCli) -> None:
    (folder / "file").write_text("")
    assert run_cli("init", "file").code == 1
    assert run_cli("init", "file/below").code == 1
    done = run_cli("init", "--example", "bank")
    assert (done.code, "there is: shop" in done.stderr) == (2, True)


def test_version_names_everything(folder: Path, run_cli: RunCli) -> None:
    out = run_cli("version").stdout
    assert out.startswith(f"meshctl   {__version__}\nenvoy     ")
    assert set(json.loads(run_cli("version", "-o", "json").stdout)) == {
        "meshctl",
        "envoy",
        "envoy_path",
        "python",
        "platform",
    }


def test_version_without_envoy_says_how_to_get_one(
    folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHCTL_ENVOY", "/none")
    done = run_cli("version")
    assert (done.code, "envoy     not found\n" in done.stdout) == (0, True)
    assert "hint: MESHCTL_ENVOY is set to /none" in done.stderr
    assert json.loads(run_cli("version", "-o", "json").stdout)["envoy"] == ""


def test_doctor_works_with_nothing_there(folder: Path, run_cli: RunCli) -> None:
    done = run_cli("doctor")
    assert done.code == 0
    assert re.search(r"^ok       envoy +Envoy 1\.", done.stdout, re.MULTILINE)
    assert "no topology file here or above" in done.stdout
    assert list(folder.iterdir()) == []


def test_doctor_as_json_is_the_shape(folder: Path, run_cli: RunCli) -> None:
    report = json.loads(run_cli("doctor", "-o", "json").stdout)
    assert report["ok"] is True
    assert all(set(check) == {"name", "level", "message", "fix"} for check in report["checks"])


def test_doctor_names_whoever_holds_the_gateways_port(folder: Path, run_cli: RunCli) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        text = TOPOLOGY.replace("8080", str(port)).replace("python ", "sh ")
        (folder / "mesh.yaml").write_text(text)
        done = run_cli("doctor")
    assert done.code == 1
    assert re.search(
        rf"^ERROR    port {port} +port {port} is held by \S+ \(pid {os.getpid()}\)", done.stdout, re.MULTILINE
    )
    assert re.search(rf"^ +fix: Stop it \(`kill {os.getpid()}`\)", done.stdout, re.MULTILINE)
    assert done.stderr == "1 error, 0 warnings\n"


def test_doctor_finds_a_broken_topology(folder: Path, run_cli: RunCli) -> None:
    (folder / "mesh.yaml").write_text(BROKEN)
    done = run_cli("doctor")
    assert (done.code, "mesh.yaml has 2 problems" in done.stdout) == (1, True)


def test_doctor_passes_with_warnings(folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    done = run_cli("doctor")
    assert (done.code, "warning  proxy variables" in done.stdout) == (0, True)
    assert "fix: export NO_PROXY=127.0.0.1,localhost" in done.stdout


def test_doctor_sees_the_mesh_that_runs(served: ServedMesh, run_cli: RunCli) -> None:
    assert "mesh shop is degraded (pid 2000000000)" in run_cli("doctor").stdout
