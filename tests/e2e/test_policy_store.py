"""Policies as revisions on real sidecars: in effect when a command returns, undone when refused, whole after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import ECHO, LAB, Load, Map, api, ask, free_port, outside, read_map, running
from tests.support.certificates import Authority

from meshctl.client.client import MeshClient
from meshctl.errors import ConflictError, MeshctlError
from meshctl.wire.models import SourceFileShape
from meshctl.wire.policies import ApplyRequest, PolicyResult

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the sidecars take for the roots of this machine."""
    return Path(Authority(tmp_path_factory.mktemp("roots"), "trusted").path)


@pytest.fixture(scope="module")
def world(roots: Path) -> Iterator[Map]:
    with outside(lambda _: None) as port:
        topology: dict[str, Any] = {
            "name": "store",
            "gateway": {"port": free_port(), "routes": [{"path": "/", "service": "a"}]},
            "defaults": {"timeout": "50s"},
            "services": {
                "a": {"command": ECHO, "upstreams": ["b", "vault"]},
                "b": {"command": LAB, "timeout": "40s", "retry_policy": {"max_attempts": 1}},
                "c": {"command": ECHO},
                "vault": {"address": f"https://localhost:{port}"},
            },
        }
        with running(topology, SSL_CERT_FILE=str(roots)) as mesh:
            yield read_map(mesh)


@pytest.fixture
def fresh(world: Map) -> Map:
    """The mesh with the policies of its file and no others."""
    world.mesh.must("up", "-d", "--wait", "--reset")
    return world


def write_policy(mesh: MeshUnderTest, text: str) -> str:
    (mesh.folder / "policy.yaml").write_text(text)
    return "policy.yaml"


def timeout_policy(mesh: MeshUnderTest, timeout: str) -> str:
    return write_policy(mesh, f"services: {{b: {{timeout: {timeout}}}}}\n")


def timeouts(mesh: MeshUnderTest, sidecar: str = "a") -> set[str]:
    """How long a sidecar lets calls of b take, as Envoy itself says; upgraded connections may take any time."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("route"), dict) and node.get("name", "").startswith("b"):
                found.add(node["route"].get("timeout", ""))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(api(mesh, f"/proxies/{sidecar}/routes")["resources"])
    return found - {"0s"}


def has_timeout(mesh: MeshUnderTest, milliseconds: int) -> bool:
    return {round(float(timeout.removesuffix("s")) * 1000) for timeout in timeouts(mesh)} == {milliseconds}


def newest(mesh: MeshUnderTest) -> dict[str, Any]:
    found: dict[str, Any] = api(mesh, "/revisions")["revisions"][0]
    return found


def written_timeout(mesh: MeshUnderTest) -> str:
    """The timeout of b in the store."""
    (policy,) = api(mesh, "/policies?owner=b&kind=timeout")["policies"]
    value: str = policy["value"]
    return value


def test_a_change_is_in_effect_when_the_command_returns(fresh: Map) -> None:
    mesh, port = fresh.mesh, fresh.upstream("a", "b")
    assert ask(port, "/sleep/0.5").status == 200
    file = timeout_policy(mesh, "200ms")
    plan = mesh.run("apply", "-f", file, "--dry-run")
    assert plan.err.splitlines()[0] == "b timeout: 40s -> 200ms"
    assert "Envoy would take it at 2/2 sidecars" in plan.err
    assert ask(port, "/sleep/0.5").status == 200
    done = mesh.run("apply", "-f", file, "-m", "b is fast")
    # a calls b, and the gateway calls anyone; b and c are told nothing.
    assert done.code == 0
    assert "applied to 2/2 sidecars in" in done.err
    assert ask(port, "/sleep/0.5").status == 504
    head = newest(mesh)
    assert (head["state"], head["reason"], head["changes"]) == ("applied", "b is fast", ["b timeout: 40s -> 200ms"])
    assert "policy.yaml:1:25" in mesh.must("get", "timeout", "b")
    explained = " ".join(mesh.must("explain", "b", "/sleep/0.5", "--from", "a").split())
    assert f"200ms for the whole answer, retries included revision {head['number']}, " in explained
    mesh.must("delete", "timeout", "b")
    assert ask(port, "/sleep/0.5").status == 200
    assert timeouts(mesh) == {"50s"}
    mesh.must("rollback", str(head["number"]))
    assert ask(port, "/sleep/0.5").status == 504


def test_of_many_writers_one_wins_and_the_others_are_told_to_whom(fresh: Map) -> None:
    mesh = fresh.mesh
    base = newest(mesh)["number"]

    async def race() -> list[PolicyResult | BaseException]:
        async with MeshClient(mesh.paths.api_socket) as client:
            requests = [
                ApplyRequest(
                    files=[
                        SourceFileShape(
                            path=f"{n}.yaml",
                            directory=str(mesh.folder),
                            text=f"services: {{b: {{timeout: {n}s}}, c: {{timeout: {n}s}}}}",
                        )
                    ],
                    variables={},
                    author=f"writer{n}@apply",
                    base=base,
                )
                for n in range(1, 9)
            ]
            return await asyncio.gather(*(client.policies.apply(r) for r in requests), return_exceptions=True)

    results = asyncio.run(race())
    (won,) = (result for result in results if isinstance(result, PolicyResult))
    lost = [result for result in results if isinstance(result, ConflictError)]
    author = newest(mesh)["author"]
    assert (won.revision, len(lost)) == (base + 1, 7)
    assert all(f"revision {won.revision} by {author} came first" in error.message for error in lost)
    values = {p["value"] for p in api(mesh, "/policies?kind=timeout")["policies"] if p["owner"] in ("b", "c")}
    assert values == {f"{author.removeprefix('writer').removesuffix('@apply')}s"}


def test_what_envoy_refuses_is_undone_under_load_and_its_words_are_told(fresh: Map, roots: Path) -> None:
    mesh = fresh.mesh
    good = roots.read_text()
    base = newest(mesh)["number"]
    file = write_policy(mesh, "services: {vault: {load_balancing: {algorithm: random}}, b: {timeout: 30s}}\n")
    with Load(fresh.upstream("a", "b")) as load:
        try:
            # Only the sidecars read this file: the policy is as good as any.
            roots.write_text("no certificates")
            plan = mesh.run("apply", "-f", file, "--dry-run")
            assert plan.code == 1
            assert "would refuse this" in plan.err
            assert newest(mesh)["number"] == base
            done = mesh.run("apply", "-f", file)
        finally:
            roots.write_text(good)
        assert done.code == 1
        assert f"Failed to load trusted CA certificates from {roots}" in done.err
        assert f"revision {base + 1} was undone: the policies are those before it, as revision {base + 2}" in done.err
        load.wait_for_more(20)
    assert load.failures == []
    wait_until(lambda: newest(mesh)["state"] == "applied", "every sidecar has acknowledged what was before")
    heads = api(mesh, "/revisions")["revisions"]
    assert [(head["number"], head["state"]) for head in heads[:2]] == [(base + 2, "applied"), (base + 1, "refused")]
    assert {proxy["state"] for proxy in api(mesh, "/proxies")["proxies"]} == {"synced"}
    assert (written_timeout(mesh), timeouts(mesh)) == ("40s", {"40s"})
    mesh.must("apply", "-f", file)
    assert timeouts(mesh) == {"30s"}


def test_a_sidecar_that_does_not_answer_is_named_and_gets_it_later(fresh: Map) -> None:
    mesh = fresh.mesh
    sidecar = psutil.Process(fresh.services["a"]["sidecar"]["pid"])
    sidecar.send_signal(signal.SIGSTOP)
    try:
        done = mesh.run("apply", "-f", timeout_policy(mesh, "30s"))
    finally:
        sidecar.send_signal(signal.SIGCONT)
    assert done.code == 4
    assert "1 of 2 sidecars did not acknowledge within 10 s: a (" in done.err
    assert "is in force all the same" in done.err
    wait_until(lambda: newest(mesh)["state"] == "applied", "the revision is acknowledged")
    assert timeouts(mesh) == {"30s"}


def test_a_locked_database_changes_nothing(fresh: Map) -> None:
    mesh = fresh.mesh
    base = newest(mesh)["number"]
    with sqlite3.connect(mesh.paths.database, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        done = mesh.run("apply", "-f", timeout_policy(mesh, "30s"))
        other.execute("ROLLBACK")
    other.close()
    assert done.code == 1
    assert "is held by another process" in done.err
    assert (newest(mesh)["number"], written_timeout(mesh), timeouts(mesh)) == (base, "40s", {"40s"})


def test_what_commands_set_survives_a_restart_until_the_file_is_taken(fresh: Map) -> None:
    mesh = fresh.mesh
    mesh.must("apply", "-f", timeout_policy(mesh, "30s"))
    number = newest(mesh)["number"]
    mesh.kill_daemon()
    again = mesh.run("up", "-d")
    assert again.code == 0
    assert f"b timeout: 30s (revision {number}, " in again.err
    assert "differs from 40s in mesh.yaml:" in again.err
    assert "`meshctl up --reset` takes what the files say" in again.err
    assert (written_timeout(mesh), timeouts(mesh)) == ("30s", {"30s"})
    assert "b timeout\n  - 30s  revision" in mesh.must("diff")
    assert "differs" not in mesh.run("up", "-d", "--reset").err
    wait_until(lambda: timeouts(mesh) == {"40s"}, "the file holds again")
    assert newest(mesh)["author"].endswith("@up")


def test_a_control_plane_killed_while_it_applies_leaves_store_and_sidecars_at_one_revision(fresh: Map) -> None:
    """Invariant 6, and 4: the load does not notice."""
    mesh = fresh.mesh
    chance = random.Random(7)
    with Load(fresh.upstream("a", "b")) as load:
        for turn in range(3):
            kill_in_the_middle(mesh, chance.uniform(0.0, 0.03), turn)
            mesh.must("up", "-d")
            wait_until(lambda: newest(mesh)["state"] in ("applied", "superseded"), "the newest revision is settled")
            stored = int(written_timeout(mesh).removesuffix("ms"))
            wait_until(partial(has_timeout, mesh, stored), f"a has {stored} ms")
        load.wait_for_more(20)
    assert load.failures == []


def kill_in_the_middle(mesh: MeshUnderTest, delay: float, turn: int) -> None:
    """``kill -9`` the control plane some time after it began to apply one policy after another."""
    pid = mesh.status()["daemon_pid"]
    begun = threading.Event()

    async def apply_many() -> None:
        async with MeshClient(mesh.paths.api_socket) as client:
            for number in range(1000):
                text = f"services: {{b: {{timeout: {30001 + 100 * turn + number % 99}ms}}}}"
                file = SourceFileShape(path="p.yaml", directory=str(mesh.folder), text=text)
                try:
                    await client.policies.apply(ApplyRequest(files=[file], variables={}, author="load@apply"))
                except MeshctlError:
                    return
                if number == 2:
                    begun.set()

    worker = threading.Thread(target=lambda: asyncio.run(apply_many()))
    worker.start()
    assert begun.wait(30)
    threading.Event().wait(delay)
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    process.wait(10)
    worker.join(30)


def test_the_whole_is_printed_as_a_file_that_can_be_applied(fresh: Map) -> None:
    mesh = fresh.mesh
    text = mesh.must("get", "-o", "yaml")
    done = mesh.run("apply", "-f", "-", stdin=text)
    assert (done.code, "nothing changed" in done.err) == (0, True)
    found = json.loads(mesh.must("get", "-o", "json"))
    assert {(p["owner"], p["kind"]) for p in found["policies"]} == {
        ("defaults", "timeout"),
        ("b", "timeout"),
        ("b", "retry_policy"),
    }
