"""Rollouts on real traffic: a good version promoted, bad ones rolled back, and the control plane killed in every state.

Each rollout has a service of its own in one mesh, and their traffic comes at the same time.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest
from tests.e2e.harness import SERVICES, MeshUnderTest, wait_until
from tests.e2e.processes import look as look_at_all
from tests.e2e.processes import pids
from tests.e2e.traffic import ECHO, Load, api, running

pytestmark = pytest.mark.e2e

CANARY = [sys.executable, str(SERVICES / "canary.py")]
QUICK = ("--interval", "1s", "--window", "2s", "--min-requests", "20", "--steps", "20,50,100")
SLOWLY = ("--interval", "1s", "--window", "20s", "--min-requests", "1000")
# Long enough at the first step, and with more requests than that takes, that however slow the machine is, the evidence
# comes before the second.
# The machine that runs this may be anything but quiet: only what lies far beyond is to be taken for slow.
TOLERANT = ("--max-p99-ratio", "20")
LENIENT = (*TOLERANT, "--alpha", "0.0001")


def service(**environ: str) -> dict[str, Any]:
    """A service with a stable v1, and a v2 that is not started yet and is like it but for its environment."""
    versions = {"v1": {}, "v2": {"replicas": 0, "env": environ}}
    return {"command": CANARY, "stable": "v1", "versions": versions, "circuit_breaker": {"enabled": False}}


TOPOLOGY: dict[str, Any] = {
    "services": {
        "front": {"command": ECHO, "upstreams": ["good", "bad", "slow", "kill"]},
        "idle": {"command": ECHO, "upstreams": ["kill"]},
        "good": service(),
        "bad": {**service(ERRORS="5"), "env": {"MS": "25"}},
        # So slow that what the machine does beside is little, and not so many requests that it is all that it does.
        "slow": {**service(MS="320"), "env": {"MS": "160"}},
        "kill": service(AFTER="now"),
    },
}


@pytest.fixture(scope="module")
def mesh() -> Iterator[MeshUnderTest]:
    with running(TOPOLOGY) as mesh:
        yield mesh


@contextmanager
def loads(mesh: MeshUnderTest, **clients: int) -> Iterator[None]:
    """Steady requests from so many clients to each of some services."""
    (front,) = (service for service in look_at_all(mesh)["services"] if service["name"] == "front")
    with ExitStack() as stack:
        for name, count in clients.items():
            stack.enter_context(Load(front["upstreams"][name], clients=count))
        yield


def look(mesh: MeshUnderTest, name: str) -> dict[str, Any]:
    """How the rollout of a service stands; nothing while the control plane is away."""
    try:
        (found,) = api(mesh, f"/rollouts?service={name}")["rollouts"]
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return {"phase": ""}
    return dict(found)


def wait_for(mesh: MeshUnderTest, name: str, phase: str, timeout: float = 60.0) -> dict[str, Any]:
    def in_phase() -> dict[str, Any] | None:
        found = look(mesh, name)
        return found if found["phase"] == phase else None

    try:
        found: dict[str, Any] = wait_until(in_phase, f"the rollout of {name} is {phase}", timeout)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{mesh.must('canary', 'history', name)}\n{mesh.daemon_log[-3000:]}") from None
    return found


def decisions(mesh: MeshUnderTest, name: str) -> list[dict[str, Any]]:
    """Everything that was decided in the newest rollout of a service."""
    found: list[dict[str, Any]] = api(mesh, f"/rollouts/history?service={name}")["rollouts"][-1]["decisions"]
    return found


def weights(mesh: MeshUnderTest, name: str) -> list[int]:
    """Every weight that v2 of a service ever had, in percent and in order: what the revisions of its split say."""
    found = []
    for revision in reversed(json.loads(mesh.must("history", "-o", "json"))["revisions"]):
        for change in revision["changes"]:
            if change.startswith((f"{name} split:", f"{name} split.v2:")):
                told = re.search(r"(?:v2: |^)([0-9]+)", change.partition(" -> ")[2])
                found.append(int(told[1]) if told else 0)
    return found


def test_good_is_promoted_and_bad_is_rolled_back(mesh: MeshUnderTest) -> None:
    with loads(mesh, good=2, bad=4, slow=24):
        judge_all(mesh)
    for name in ("bad", "slow"):
        verdict = [item["verdict"] for item in decisions(mesh, name) if item.get("verdict")][-1]
        finding = verdict["errors" if name == "bad" else "latency"]
        assert finding["evidence"] >= finding["threshold"] == 200
        assert finding["canary"] > finding["bound"]
    refused = mesh.run("canary", "start", "bad", "v2", *QUICK)
    assert refused.code == 1
    assert "this v2 of bad was rolled back" in refused.err


def judge_all(mesh: MeshUnderTest) -> None:
    """Three rollouts at the same time, until each has ended."""
    mesh.must("canary", "start", "good", "v2", *QUICK, *LENIENT)
    mesh.must("canary", "start", "bad", "v2", *SLOWLY, *TOLERANT, "--steps", "50,100")
    mesh.must("canary", "start", "slow", "v2", *SLOWLY, "--steps", "20,100")
    bad = wait_for(mesh, "bad", "rolled_back")
    assert "errors at v2" in bad["why"]
    assert "evidence" in bad["why"]
    slow = wait_for(mesh, "slow", "rolled_back")
    assert "p99" in slow["why"]
    good = wait_for(mesh, "good", "promoted")
    assert good["weight"] == 100
    taken = [item["weight"] for item in decisions(mesh, "good")]
    assert sorted(set(taken)) == [20, 50, 100]
    assert taken == sorted(taken)


def test_killed_in_every_state_it_goes_on_from_what_was_decided(mesh: MeshUnderTest) -> None:
    """Invariant 6, for rollouts. A sidecar is stopped where a state would be over too soon to be met."""
    with loads(mesh, kill=1):
        kill_in_every_state(mesh)
    assert weights(mesh, "kill") == [20, 50, 0]


def kill_in_every_state(mesh: MeshUnderTest) -> None:
    # Starting: v2 does not listen yet.
    settings = ("--interval", "1s", "--window", "2m", "--steps", "20,50,100")
    die_meanwhile(mesh, "start", "kill", "v2", *LENIENT, *settings, phase="starting")
    mesh.must("up", "-d")
    assert look(mesh, "kill")["phase"] == "starting"
    (mesh.folder / "now").touch()
    begun = wait_for(mesh, "kill", "running")
    assert begun["weight"] == begun["applied"] == 20
    # Running: the weight stays, and requests are counted from the beginning.
    wait_until(lambda: look(mesh, "kill").get("requests", 0) > 0, "requests were counted")
    counted = len(decisions(mesh, "kill"))
    kill_and_up(mesh)
    later = wait_until(lambda: find_restart(mesh, counted), "it was taken up again")
    assert (later["phase"], later["weight"]) == ("running", 20)
    assert look(mesh, "kill")["since"] > begun["since"]
    # Paused: it stays so.
    mesh.must("canary", "pause", "kill")
    kill_and_up(mesh)
    assert wait_for(mesh, "kill", "paused")["weight"] == 20
    # Shifting: decided, written down, and not in effect everywhere.
    die_on_the_way(mesh, "promote", phase="shifting")
    assert wait_for(mesh, "kill", "running")["applied"] == 50
    # Rolling back.
    die_on_the_way(mesh, "rollback", phase="rolling_back")
    ended = wait_for(mesh, "kill", "rolled_back")
    assert ended["weight"] == ended["applied"] == 0


def find_restart(mesh: MeshUnderTest, after: int) -> dict[str, Any] | None:
    """The decision about a control plane that came back, after so many decisions."""
    return next((item for item in decisions(mesh, "kill")[after:] if item["event"] == "restarted"), None)


def kill_daemon(mesh: MeshUnderTest) -> None:
    """``kill -9`` the control plane."""
    process = psutil.Process(api(mesh, "/status")["daemon_pid"])
    process.kill()
    process.wait(10)


def kill_and_up(mesh: MeshUnderTest) -> None:
    kill_daemon(mesh)
    mesh.must("up", "-d")


def die_meanwhile(mesh: MeshUnderTest, *words: str, phase: str) -> None:
    """Ask for something that takes its time, and kill the control plane when it has got so far."""
    asked = mesh.start("canary", *words)
    try:
        wait_for(mesh, "kill", phase)
        kill_daemon(mesh)
    finally:
        asked.kill()
        asked.communicate(timeout=20)


def die_on_the_way(mesh: MeshUnderTest, verb: str, *, phase: str) -> None:
    """Ask for a weight that one sidecar does not acknowledge, and kill the control plane meanwhile."""
    sidecar = psutil.Process(pids(mesh)["sidecar.idle"])
    sidecar.send_signal(signal.SIGSTOP)
    try:
        die_meanwhile(mesh, verb, "kill", phase=phase)
        mesh.must("up", "-d")
    finally:
        sidecar.send_signal(signal.SIGCONT)
