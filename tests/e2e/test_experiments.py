"""Experiments on a real mesh: verdicts, rollbacks whatever happens, and Chaos Toolkit's own command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.harness import Done, MeshUnderTest, wait_until
from tests.e2e.traffic import LAB, Map, api, ask, free_port, read_map, running

pytestmark = pytest.mark.e2e

CHAOS = Path(sys.executable).with_name("chaos")


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    topology = {
        "name": "lab",
        "gateway": {"port": free_port(), "routes": [{"path": "/", "service": "web"}]},
        "defaults": {"timeout": "60s", "retry_policy": {"max_attempts": 1}, "circuit_breaker": {"enabled": False}},
        "services": {"web": {"command": LAB, "upstreams": ["back"]}, "back": {"command": LAB}},
    }
    with running(topology) as mesh:
        yield read_map(mesh)


@pytest.fixture(autouse=True)
def healthy(world: Map) -> None:
    """What an experiment that was cut short left behind is gone."""
    if timeout_of_web(world.mesh):
        world.mesh.must("delete", "timeout", "web", "--yes")
    assert ask(world.gateway, "/set-echo/200/0").status == 200


def verb(sort: str, name: str, words: str, **arguments: Any) -> dict[str, Any]:
    return {"type": sort, "name": name, "provider": {"type": "meshctl", "verb": words, "arguments": arguments}}


def set_echo(world: Map, status: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{world.gateway}/set-echo/{status}/0"
    return {"type": "action", "name": f"answer {status}", "provider": {"type": "http", "url": url}}


def sleep(seconds: float) -> dict[str, Any]:
    return {"type": "action", "name": "wait", "provider": {"type": "process", "path": "sleep", "arguments": [seconds]}}


def wait_for(file: Path) -> dict[str, Any]:
    words = ["-c", f"until [ -e '{file}' ]; do sleep 0.05; done"]
    return {"type": "action", "name": "wait", "provider": {"type": "process", "path": "sh", "arguments": words}}


PROBES = [
    verb("probe", "load", "load", service="web", path="/x", rps=20, duration="500ms")
    | {"tolerance": {"type": "range", "range": [0.99, 1], "target": "success"}},
    verb("probe", "call", "call", service="web", path="/x") | {"tolerance": 200},
]
STEADY = {"title": "web answers", "probes": PROBES}
TIGHTEN = verb("action", "tighten", "apply", policies={"services": {"web": {"timeout": "3s"}}})
UNDO = verb("action", "undo", "rollback")


def write(mesh: MeshUnderTest, method: list[dict[str, Any]], rollbacks: list[dict[str, Any]], **more: Any) -> str:
    experiment = {
        "title": "a question",
        "description": "an answer",
        "steady-state-hypothesis": STEADY,
        "method": method,
        "rollbacks": rollbacks,
    } | more
    (mesh.folder / "e.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    return "e.yaml"


def run(mesh: MeshUnderTest, file: str) -> tuple[Done, dict[str, Any]]:
    done = mesh.run("experiment", "run", file, "-o", "json")
    return done, json.loads(done.out)


def timeout_of_web(mesh: MeshUnderTest) -> list[Any]:
    policies = api(mesh, "/policies?owner=web")["policies"]
    return [policy["value"] for policy in policies if (policy["owner"], policy["kind"]) == ("web", "timeout")]


def test_a_steady_state_that_holds_ends_with_0_and_everything_is_as_before(world: Map) -> None:
    mesh = world.mesh
    # Windows as long as the mesh is old: nothing that is looked for has left them, and nothing is just about to.
    back = {"service": "back", "window": "10m"}
    figures = [
        verb("probe", "state", "success", source="web", **back) | {"tolerance": [0.99, 1]},
        verb("probe", "quick", "latency", quantile=50, **back) | {"tolerance": [0, 10_000]},
        verb("probe", "once", "tries", service="web", window="10m") | {"tolerance": [0.8, 1.2]},
        verb("probe", "retries", "retries", **back) | {"tolerance": 0},
    ]
    method = [
        TIGHTEN,
        verb("action", "traffic", "load", service="back", source="web", rps=60, duration="500ms"),
        verb("action", "more", "scale", service="back", replicas=2),
        verb("probe", "instances", "instances", service="back") | {"tolerance": 2},
        *(probe | {"background": True} for probe in figures),
    ]
    done, journal = run(mesh, write(mesh, method, [verb("action", "less", "scale", service="back", replicas=1), UNDO]))
    assert (done.code, journal["meshctl"]["verdict"]) == (0, "held"), done.err
    assert [entry["status"] for entry in journal["run"]] == ["succeeded"] * len(method)
    edges = [(s["source"], s["destination"]) for s in journal["meshctl"]["series"]]
    assert ("gateway", "web") in edges
    assert timeout_of_web(mesh) == []
    assert len(mesh.service("back")["instances"]) == 1
    mesh.must("experiment", "report", "--html", "r.html")
    assert "gateway → web" in (mesh.folder / "r.html").read_text()


def test_a_steady_state_that_deviates_ends_with_1_and_is_put_right(world: Map) -> None:
    done, journal = run(world.mesh, write(world.mesh, [set_echo(world, 500), TIGHTEN], [set_echo(world, 200), UNDO]))
    assert (done.code, journal["deviated"], journal["status"]) == (1, True, "completed")
    assert [probe["tolerance_met"] for probe in journal["steady_states"]["after"]["probes"]] == [False, False]
    assert ask(world.gateway, "/x").status == 200
    assert timeout_of_web(world.mesh) == []


def test_a_steady_state_that_is_not_there_ends_with_5_and_nothing_is_tried(world: Map) -> None:
    assert ask(world.gateway, "/set-echo/500/0").status == 200
    done, journal = run(world.mesh, write(world.mesh, [TIGHTEN], [set_echo(world, 200)]))
    assert (done.code, journal["run"]) == (5, [])
    assert ask(world.gateway, "/x").status == 200


def test_an_action_that_cannot_be_done_ends_with_6_after_the_rollbacks(world: Map) -> None:
    method = [TIGHTEN, verb("action", "nobody", "scale", service="nobody", replicas=2), sleep(60)]
    done, journal = run(world.mesh, write(world.mesh, method, [UNDO]))
    assert done.code == 6
    assert "nobody" in journal["meshctl"]["reason"]
    assert timeout_of_web(world.mesh) == []


def test_ctrl_c_rolls_back(world: Map) -> None:
    mesh = world.mesh
    running_it = mesh.start("experiment", "run", write(mesh, [TIGHTEN, sleep(60)], [UNDO]))
    wait_until(lambda: timeout_of_web(mesh), "the method is under way")
    running_it.send_signal(signal.SIGINT)
    out, err = running_it.communicate(timeout=30)
    assert running_it.returncode == 130, out + err
    assert "the rollbacks are run now" in err
    assert timeout_of_web(mesh) == []


def test_rollbacks_wait_for_a_control_plane_that_was_killed(world: Map) -> None:
    mesh = world.mesh
    go = mesh.folder / "go"
    running_it = mesh.start("experiment", "run", write(mesh, [TIGHTEN, wait_for(go)], [UNDO]), "-o", "json")
    wait_until(lambda: timeout_of_web(mesh), "the method is under way")
    mesh.kill_daemon()
    go.touch()
    assert running_it.stderr is not None
    assert "rollbacks" in (line.strip() for line in running_it.stderr)
    mesh.up()
    out, err = running_it.communicate(timeout=60)
    journal = json.loads(out)
    assert [entry["status"] for entry in journal["rollbacks"]] == ["succeeded"], err
    assert timeout_of_web(mesh) == []


def test_a_run_that_was_killed_leaves_a_journal_without_end(world: Map) -> None:
    mesh = world.mesh
    running_it = mesh.start("experiment", "run", write(mesh, [TIGHTEN, sleep(60)], [UNDO]))
    wait_until(lambda: timeout_of_web(mesh), "the method is under way")
    os.killpg(running_it.pid, signal.SIGKILL)
    running_it.communicate(timeout=30)
    newest = json.loads(mesh.must("experiment", "list", "-o", "json"))["runs"][0]
    assert newest["verdict"] == "unfinished"
    mesh.must("delete", "timeout", "web", "--yes")


def to_chaos(activity: dict[str, Any]) -> dict[str, Any]:
    """The same activity in the form that Chaos Toolkit takes."""
    provider = activity["provider"]
    if provider["type"] != "meshctl":
        return activity
    module = f"meshctl.chaostoolkit.{activity['type']}s"
    function = provider["verb"].replace(" ", "_")
    arguments = provider["arguments"]
    return activity | {"provider": {"type": "python", "module": module, "func": function, "arguments": arguments}}


def chaos(mesh: MeshUnderTest, method: list[dict[str, Any]], rollbacks: list[dict[str, Any]]) -> dict[str, Any]:
    steady = STEADY | {"probes": [to_chaos(each) for each in PROBES]}
    experiment = {
        "title": "a question",
        "description": "an answer",
        "steady-state-hypothesis": steady,
        "method": [to_chaos(each) for each in method],
        "rollbacks": [to_chaos(each) for each in rollbacks],
    }
    (mesh.folder / "e.json").write_text(json.dumps(experiment))
    done = subprocess.run(
        [CHAOS, "--no-version-check", "--settings", "none.yaml", "run", "--rollback-strategy=always", "e.json"],
        cwd=mesh.folder,
        env=mesh.environ | {"HOME": str(mesh.folder)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    journal = json.loads((mesh.folder / "journal.json").read_text())
    assert all(entry["status"] == "succeeded" for entry in journal["run"]), done.stdout + done.stderr
    found: dict[str, Any] = journal
    return found


def test_the_command_of_chaos_toolkit_drives_the_mesh(world: Map) -> None:
    mesh = world.mesh
    undo = verb("action", "undo", "delete", owner="web", kind="timeout")
    held = chaos(mesh, [TIGHTEN, verb("probe", "weights", "weights", service="web")], [undo])
    assert (held["status"], held["deviated"]) == ("completed", False)
    assert held["run"][1]["output"] == {"v1": 100}
    assert timeout_of_web(mesh) == []
    deviated = chaos(mesh, [set_echo(world, 500)], [set_echo(world, 200)])
    assert deviated["deviated"] is True
    assert ask(world.gateway, "/x").status == 200
    # The same file is taken by meshctl itself, and its journal by both.
    done, journal = run(mesh, "e.json")
    assert (done.code, journal["deviated"]) == (1, True)
    assert mesh.run("experiment", "report", "journal.json").code == 0
