"""``meshctl experiment``: verdicts as exit codes, what is shown, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import RunCli, ServedMesh

TEXT = """\
title: does the world go on
description: it should
configuration: {wanted: 0}
steady-state-hypothesis:
  title: programs work
  probes:
  - type: probe
    name: works
    tolerance: "${wanted}"
    provider: {type: process, path: sh, arguments: [-c, "test ! -e broken"]}
method:
- {type: action, name: break, provider: {type: process, path: sh, arguments: [-c, "%s"]}}
rollbacks:
- {type: action, name: mend, provider: {type: process, path: rm, arguments: [-f, broken]}}
"""


@pytest.fixture
def write(project: Path) -> Any:
    def put(script: str = "true", name: str = "e.yaml") -> str:
        (project / name).write_text(TEXT % script)
        return name

    return put


def test_a_steady_state_that_holds(write: Any, run_cli: RunCli, project: Path) -> None:
    outcome = run_cli("experiment", "run", write())
    assert outcome.code == 0
    assert "works         0       ok 0    ok 0" in outcome.stdout
    assert outcome.stdout.endswith("HELD: The steady state held.\n")
    lines = outcome.stderr.splitlines()
    assert [line for line in lines if not line.startswith(("  ", "journal: "))] == [
        "steady state, before",
        "method",
        "steady state, after",
        "rollbacks",
    ]
    assert lines[-1].startswith("journal: .meshctl/experiments/")
    assert len(list((project / ".meshctl" / "experiments").glob("*.json"))) == 1


def test_a_steady_state_that_deviates_is_put_right_and_reported(write: Any, run_cli: RunCli, project: Path) -> None:
    words = ("--html", "r.html", "--journal", "j.json")
    outcome = run_cli("experiment", "run", write("touch broken"), *words, "-o", "json")
    assert outcome.code == 1
    journal = json.loads(outcome.stdout)
    assert (journal["deviated"], journal["meshctl"]["verdict"]) == (True, "deviated")
    assert not (project / "broken").exists()
    assert json.loads((project / "j.json").read_text()) == journal
    assert "a weakness was found" in (project / "r.html").read_text()


def test_values_of_the_command_line_hold(write: Any, run_cli: RunCli) -> None:
    outcome = run_cli("experiment", "run", write(), "--var", "wanted=1")
    assert outcome.code == 5
    assert "UNSTEADY" in outcome.stdout
    assert run_cli("experiment", "run", write(), "--var", "wanted").code == 2


def test_no_mesh_is_needed_where_none_is_asked(write: Any, run_cli: RunCli, project: Path) -> None:
    assert run_cli("experiment", "run", write()).code == 0
    text = "{type: probe, name: p, provider: {type: meshctl, verb: faults}}"
    (project / "m.yaml").write_text(f"title: t\ndescription: d\nmethod:\n- {text}\n")
    assert run_cli("experiment", "run", "m.yaml").code == 3


def test_a_verb_is_asked_of_the_control_plane(served: ServedMesh, run_cli: RunCli, project: Path) -> None:
    provider = "{type: meshctl, verb: inject pause, arguments: {target: payment, duration: 5s}}"
    pause = f"{{type: action, name: a, provider: {provider}}}"
    count = "{type: probe, name: p, tolerance: 0, provider: {type: meshctl, verb: faults}}"
    (project / "m.yaml").write_text(f"title: t\ndescription: d\nmethod:\n- {pause}\n- {count}\n")
    outcome = run_cli("experiment", "run", "m.yaml", "-o", "json")
    assert outcome.code == 0, outcome.stderr
    journal = json.loads(outcome.stdout)
    assert journal["run"][0]["output"]["id"] == "f1"
    request = next(what for name, what in served.backend.asked if name == "disturb")
    assert (request.kind, request.target, request.duration, request.reason) == ("pause", "payment", 5.0, "experiment")


def test_problems_have_their_places(run_cli: RunCli, project: Path) -> None:
    (project / "bad.yaml").write_text("title: t\ndescription: d\nmethod:\n- {type: action, nam: x}\n")
    for verb in ("run", "validate"):
        outcome = run_cli("experiment", verb, "bad.yaml")
        assert outcome.code == 2
        assert "bad.yaml:4:18: error: unknown key `nam`; did you mean `name`? [unknown-key]" in outcome.stderr
    outcome = run_cli("experiment", "validate", "bad.yaml", "-o", "json")
    report = json.loads(outcome.stdout)
    assert (outcome.code, report["valid"], report["problems"][0]["line"]) == (2, False, 4)


def test_a_valid_file_is_said_to_be_so(write: Any, run_cli: RunCli) -> None:
    outcome = run_cli("experiment", "validate", write())
    assert outcome.stdout == "e.yaml is valid: 1 probe of the steady state, 1 in the method, 1 rollback\n"
    assert json.loads(run_cli("experiment", "validate", "e.yaml", "-o", "json").stdout)["valid"] is True


def test_runs_are_listed_and_shown_again(write: Any, run_cli: RunCli) -> None:
    assert run_cli("experiment", "report").code == 1
    run_cli("experiment", "run", write("touch broken"))
    runs = json.loads(run_cli("experiment", "list", "-o", "json").stdout)["runs"]
    assert [run["verdict"] for run in runs] == ["deviated"]
    table = run_cli("experiment", "list").stdout
    assert table.splitlines()[0].split() == ["RUN", "VERDICT", "AGE", "TOOK", "TITLE"]
    for words in ((), (runs[0]["run"],), (runs[0]["journal"],)):
        assert "DEVIATED" in run_cli("experiment", "report", *words).stdout
    assert run_cli("experiment", "report", "nothing").code == 1


@pytest.mark.parametrize("width", [60, 100])
def test_a_report_fits_the_terminal(write: Any, run_cli: RunCli, width: int) -> None:
    outcome = run_cli("experiment", "run", write("touch broken"), width=width)
    *lines, _verdict = outcome.stdout.splitlines()
    assert max(map(len, lines)) <= width


def test_one_experiment_runs_at_a_time(write: Any, run_cli: RunCli, project: Path) -> None:
    inner = "meshctl experiment run e.yaml"
    (project / "e.yaml").write_text(TEXT % "true")
    outcome = run_cli("experiment", "run", write(f"{inner} 2> said; true", "outer.yaml"))
    assert outcome.code == 0
    said = (project / "said").read_text()
    assert "another experiment runs on this mesh" in said or "not found" in said


def test_a_file_that_is_not_there_is_told(run_cli: RunCli, folder: Path) -> None:
    outcome = run_cli("experiment", "run", "nowhere.yaml")
    assert (outcome.code, "no such file: nowhere.yaml" in outcome.stderr) == (2, True)
