"""Rollouts from the command line: what is refused, what each verb brings into effect, watching, beginning by `up`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.harness import SERVICES, MeshUnderTest
from tests.e2e.processes import look as look_at_all
from tests.e2e.traffic import ECHO, Load, api, read_map, running

pytestmark = pytest.mark.e2e

CANARY = [sys.executable, str(SERVICES / "canary.py")]
CRASHING = [sys.executable, "-c", "import sys; print('no database', file=sys.stderr); sys.exit(3)"]
HELD = ("--steps", "20,60,100", "--interval", "1s", "--window", "10m", "--deadline", "0")
# No step is over before somebody says so.
RULES = {
    "version": "v2",
    "steps": [50, 100],
    "interval": "1s",
    "window": "1s",
    "min_requests": 10,
    "max_p99_ratio": 50,
    "alpha": 0.001,
    "deadline": 0,
}


def service(**more: Any) -> dict[str, Any]:
    versions = {"v1": {}, "v2": {"replicas": 0}, "v3": {"replicas": 0, "command": CRASHING, "restart": "no"}}
    return {"command": CANARY, "versions": versions, "circuit_breaker": {"enabled": False}, **more}


def topology(**rules: Any) -> dict[str, Any]:
    declared = {"rollout": rules} if rules else {}
    return {
        "services": {
            "front": {"command": ECHO, "upstreams": ["hand", "file", "spare"]},
            "hand": service(),
            "spare": service(),
            "file": service(**declared),
        }
    }


@pytest.fixture(scope="module")
def mesh() -> Iterator[MeshUnderTest]:
    with running(topology()) as mesh:
        yield mesh


def look(mesh: MeshUnderTest, name: str) -> dict[str, Any]:
    """How the rollout of a service stands."""
    (found,) = api(mesh, f"/rollouts?service={name}")["rollouts"]
    return dict(found)


def weights(mesh: MeshUnderTest, name: str) -> dict[str, int]:
    (found,) = (service for service in look_at_all(mesh)["services"] if service["name"] == name)
    return dict(found["weights"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("v9",), 1, "spare has no version v9"),
        (("v1",), 1, "v1 is the stable version of spare"),
        (("v2", "--steps", "50,10,100"), 2, "the steps 50, 10, 100 do not rise"),
        (("v2", "--steps", "10,50"), 2, "do not end with 100"),
        (("v2", "--window", "5s", "--interval", "10s"), 2, "the window (5s) is shorter than the interval (10s)"),
        (("v2", "--alpha", "0.9"), 2, "an alpha of 0.9 is none"),
        (("v3",), 1, "v3 of spare is not rolled out: spare-v3-1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_way_out(
    mesh: MeshUnderTest, words: tuple[str, ...], code: int, said: str
) -> None:
    done = mesh.run("canary", "start", "spare", *words)
    assert done.code == code, done.err
    assert said in done.err
    assert "hint: " in done.err
    assert code == 2 or weights(mesh, "spare") == {"v1": 100}


def test_each_verb_returns_when_its_weight_is_in_effect(mesh: MeshUnderTest) -> None:
    started = mesh.run("canary", "start", "hand", "v2", *HELD, "-m", "try it")
    assert started.code == 0, started.err
    assert "v2 has 20% of the traffic now" in started.err
    assert weights(mesh, "hand") == {"v1": 80, "v2": 20}
    refused = mesh.run("canary", "start", "hand", "v2", *HELD)
    assert (refused.code, "--replace" in refused.err) == (1, True)
    watching = mesh.start("canary", "watch", "hand", "-o", "json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["weight"] == 20
    mesh.must("canary", "pause", "hand", "-m", "lunch")
    assert look(mesh, "hand")["phase"] == "paused"
    assert "hand: rollout to v2 is paused at 20%" in mesh.must("status", "hand")
    assert mesh.run("canary", "pause", "hand").code == 1
    mesh.must("canary", "resume", "hand")
    mesh.must("canary", "promote", "hand")
    assert weights(mesh, "hand") == {"v1": 40, "v2": 60}
    assert "and sets the split" in mesh.must("explain", "hand", "--from", "front")
    replaced = mesh.run("canary", "start", "hand", "v2", *HELD, "--replace")
    assert replaced.code == 0, replaced.err
    lines, _ = watching.communicate(timeout=30)
    assert watching.returncode == 1
    assert json.loads(lines.splitlines()[-1])["phase"] == "cancelled"
    mesh.must("canary", "rollback", "hand", "-m", "enough")
    assert weights(mesh, "hand") == {"v1": 100}
    latched = mesh.run("canary", "start", "hand", "v2", *HELD)
    assert (latched.code, "canary retry hand" in latched.err) == (1, True)
    mesh.must("canary", "retry", "hand")
    mesh.must("canary", "promote", "hand", "--full")
    (ended,) = json.loads(mesh.must("canary", "status", "hand", "-o", "json"))["rollouts"]
    assert (ended["phase"], ended["applied"]) == ("promoted", 100)
    history = json.loads(mesh.must("canary", "history", "hand", "-o", "json"))["rollouts"]
    assert [record["rollout"]["phase"] for record in history] == ["cancelled", "rolled_back", "promoted"]
    paused = next(item for item in history[0]["decisions"] if item["event"] == "pause")
    assert (paused["reason"], paused["author"].endswith("@canary pause")) == ("lunch", True)


def test_up_begins_what_is_new_and_a_watch_outlives_the_control_plane(mesh: MeshUnderTest) -> None:
    mesh.write(topology(**RULES))
    assert "file: v2 is rolled out when all is ready" in mesh.run("up", "-d", "--wait").err
    watching = mesh.start("canary", "watch", "file")
    assert watching.stdout is not None
    assert "at 50%" in watching.stdout.readline()
    # Without traffic it waits there.
    mesh.kill_daemon()
    assert mesh.run("up", "-d", "--wait").code == 0
    with Load(read_map(mesh).upstream("front", "file"), clients=1) as load:
        lines, said = watching.communicate(timeout=90)
    assert watching.returncode == 0, lines + said
    assert "promoted at 100%" in lines.splitlines()[-1]
    assert "waiting for the next one" in said
    assert load.failures == []
    # It was rolled out as it is: no `up` does it again.
    assert "rolled out" not in mesh.run("up", "-d", "--wait").err
    assert len(json.loads(mesh.must("canary", "history", "file", "-o", "json"))["rollouts"]) == 1
    kinds = [json.loads(line)["kind"] for line in mesh.must("events", "--kind", "rollout", "-o", "json").splitlines()]
    assert {"rollout.begin", "rollout.running", "rollout.shifting", "rollout.promoted"} <= set(kinds)
    assert weights(mesh, "file") == {"v2": 100}
