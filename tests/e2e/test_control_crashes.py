"""What the control plane leaves when it ends in the middle of something, and how the next one goes on from there."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.harness import SERVICES, MeshUnderTest, wait_until
from tests.e2e.processes import free_port, listens, look, pids, sidecars

pytestmark = pytest.mark.e2e

ECHO = [sys.executable, str(SERVICES / "echo.py")]

TELLING = """
import runpy, sys
print("started", flush=True)
runpy.run_path(sys.argv[1], run_name="__main__")
"""

DEAF = """
import os, signal
from pathlib import Path
def asked(*_):
    if Path("listen").exists():
        os._exit(0)
    Path("asked").touch()
signal.signal(signal.SIGTERM, asked)
Path("begun").touch()
while True:
    signal.pause()
"""

SLOW = """
import os, signal, time
from pathlib import Path
def end(*_):
    while not Path("end").exists():
        time.sleep(0.02)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
Path("begun").touch()
while True:
    signal.pause()
"""

UNHURRIED: dict[str, Any] = {"stop_grace": "10m", "readiness": {"exec": ["true"]}}


def topology(**services: dict[str, Any]) -> dict[str, Any]:
    return {"services": {name: {"command": ECHO, **more} for name, more in services.items()}}


def starts(mesh: MeshUnderTest, name: str) -> int:
    """How often a process said that it was started."""
    return (Path(mesh.paths.logs) / f"{name}.log").read_text().count("started")


def test_down_after_a_crash_needs_no_envoy_and_starts_nothing(mesh: MeshUnderTest) -> None:
    """Invariant 5."""
    command = [sys.executable, "-c", TELLING, ECHO[1]]
    mesh.write(topology(front={"upstreams": ["back"]}, back={"command": command}))
    mesh.up()
    wait_until(lambda: starts(mesh, "back-v1-1") == 1, "what it said is written")
    victim = psutil.Process(mesh.pids()["back-v1-1"])
    mesh.kill_daemon()
    victim.kill()
    mesh.environ["MESHCTL_ENVOY"] = "/nowhere/envoy"
    mesh.must("down")
    assert starts(mesh, "back-v1-1") == 1
    assert mesh.processes() == []
    assert not Path(mesh.paths.runtime).exists()


def test_up_without_envoy_leaves_nothing_behind(mesh: MeshUnderTest) -> None:
    mesh.write(topology(front={}))
    mesh.environ["MESHCTL_ENVOY"] = "/nowhere/envoy"
    done = mesh.run("up", "-d")
    assert done.code != 0
    assert "/nowhere/envoy" in done.err
    assert mesh.processes() == []


@pytest.mark.parametrize("text", ["services: [nothing", "services: {}\n"], ids=["broken", "empty"])
def test_a_stored_topology_that_cannot_be_read_strands_nothing(mesh: MeshUnderTest, text: str) -> None:
    mesh.write(topology(front={}))
    mesh.up()
    mesh.kill_daemon()
    with sqlite3.connect(mesh.paths.database) as database:
        (body,) = database.execute("SELECT body FROM documents WHERE name = 'topology'").fetchone()
        whole = (mesh.folder / "mesh.yaml").read_text()
        quoted = [part.replace("\n", "\\n") for part in (whole, text)]
        database.execute("UPDATE documents SET body = ? WHERE name = 'topology'", (body.decode().replace(*quoted),))
    database.close()
    before = {process.pid for process in mesh.processes()}
    mesh.up()
    assert mesh.service("front")["state"] == "ready"
    assert not before & set(mesh.pids().values())
    mesh.must("down")
    assert mesh.processes() == []


def test_a_control_plane_that_is_ended_while_it_stops_leaves_the_rest_to_the_next(mesh: MeshUnderTest) -> None:
    """Invariant 5."""
    mesh.write(topology(front={}, deaf={"command": [sys.executable, "-c", DEAF], **UNHURRIED}))
    mesh.must("up", "-d")
    wait_until((mesh.folder / "begun").exists, "the stubborn service ignores what it is told")
    deaf = psutil.Process(wait_until(lambda: pids(mesh).get("deaf-v1-1"), "it is known to run"))
    daemon = psutil.Process(look(mesh)["daemon_pid"])
    down = mesh.start("down")
    wait_until((mesh.folder / "asked").exists, "it was asked to end")
    assert look(mesh)["state"] == "stopping"
    # It ends when it is asked once more, which this control plane would not do for ten minutes.
    (mesh.folder / "listen").touch()
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(60)
    # The command that waits for it notices, and has the rest stopped by another control plane.
    _, complaint = down.communicate(timeout=60)
    assert down.returncode == 0, complaint
    assert not deaf.is_running()
    assert mesh.processes() == []
    assert not Path(mesh.paths.runtime).exists()


def test_down_beside_another_down_returns_when_nothing_is_left(mesh: MeshUnderTest) -> None:
    mesh.write(topology(front={}, slow={"command": [sys.executable, "-c", SLOW], **UNHURRIED}))
    mesh.must("up", "-d")
    wait_until((mesh.folder / "begun").exists, "the slow service has set its handler")
    daemon = psutil.Process(look(mesh)["daemon_pid"])
    first = mesh.start("down")
    wait_until(lambda: look(mesh)["state"] == "stopping", "the mesh is being stopped")
    second = mesh.start("down")
    # Each of them follows the events and waits for the end, beside the socket that listens.
    wait_until(lambda: count_sockets(daemon, mesh.paths.api_socket) >= 1 + 2 * 2, "both wait")
    (mesh.folder / "end").touch()
    _, complaint = second.communicate(timeout=60)
    left = mesh.processes()
    first.communicate(timeout=60)
    assert second.returncode == 0, complaint
    assert left == []
    assert first.returncode == 0


def count_sockets(process: psutil.Process, path: str) -> int:
    """How many sockets of a path a process has open, the one that listens included."""
    return sum(str(connection.laddr) == path for connection in process.net_connections(kind="unix"))


def test_a_port_that_was_taken_is_told_and_listened_on_once_it_is_free(mesh: MeshUnderTest) -> None:
    mesh.write(topology(front={"upstreams": ["back"]}, back={}))
    mesh.up()
    sidecar = psutil.Process(mesh.pids()["sidecar.front"])
    port = mesh.service("front")["sidecar"]["outbound_port"]
    mesh.kill_daemon()
    sidecar.kill()
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def take() -> bool:
            try:
                taker.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True

        wait_until(take, "the sidecar's port is free")
        taker.listen()
        mesh.must("up", "-d")
        wait_until(lambda: sidecars(mesh)["front"]["config"] == "rejected", "the listener is refused")
        found = wait_until(lambda: "cannot listen" in (out := mesh.run("events").out) and out, "the event is there")
        assert f"port {port} is held by" in found
        assert f"(pid {os.getpid()})" in found
    mesh.up()
    assert mesh.service("front")["sidecar"]["config"] == "synced"
    assert mesh.service("front")["sidecar"]["outbound_port"] == port


def test_a_new_up_gives_what_failed_another_chance(mesh: MeshUnderTest) -> None:
    mesh.write(topology(front={"command": ["./missing.sh"], "restart": {"policy": "no"}}, back={}))
    mesh.must("up", "-d")
    wait_until(lambda: mesh.service("front")["state"] == "failed", "it has failed")
    back = wait_until(lambda: pids(mesh).get("back-v1-1"), "the other one runs")
    script = mesh.folder / "missing.sh"
    script.write_text(f"#!/bin/sh\nexec {' '.join(ECHO)}\n")
    script.chmod(0o755)
    mesh.up()
    assert mesh.service("front")["state"] == "ready"
    assert mesh.pids()["back-v1-1"] == back


def test_waiting_for_up_is_waiting_for_every_instance_to_be_what_the_file_says(mesh: MeshUnderTest) -> None:
    mesh.write(topology(front={"replicas": 3, "env": {"GREETING": "one"}}))
    mesh.up()
    before = mesh.pids()
    mesh.write(topology(front={"replicas": 3, "env": {"GREETING": "two"}}))
    mesh.up()
    after = mesh.pids()
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"front-v1-1", "front-v1-2", "front-v1-3"}


def test_the_gateway_moves_to_another_port_while_the_mesh_runs(mesh: MeshUnderTest) -> None:
    first, second = free_port(), free_port()
    routes = [{"path": "/", "service": "front"}]
    mesh.write({"gateway": {"port": first, "routes": routes}, **topology(front={})})
    mesh.up()
    assert listens(first)
    mesh.write({"gateway": {"port": second, "routes": routes}, **topology(front={})})
    mesh.up()
    assert listens(second)
    wait_until(lambda: not listens(first), "the old port is closed")
