"""What cannot come up is named, with its last words, and leaves nothing behind."""

from __future__ import annotations

import http.server
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import (
    assert_no_trace,
    free_port,
    instances,
    journal,
    look,
    make_gateway,
    make_service,
    pids,
    ports_of,
    wait_state,
)

pytestmark = pytest.mark.e2e

BROKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "exits at once": (
        {"command": ["/bin/sh", "-c", "echo opening the database; echo no such table >&2; exit 3"]},
        ["exited with 3", "exit code: 3", "opening the database", "no such table", "logs/bad-v1-1.log"],
    ),
    "ends with 0": (
        {"command": ["/bin/sh", "-c", "echo all done"]},
        ["exited with 0", "all done", "logs/bad-v1-1.log"],
    ),
    "is killed": (
        {"command": ["/bin/sh", "-c", "echo too big; kill -9 $$$$"]},
        ["killed by SIGKILL", "too big", "logs/bad-v1-1.log"],
    ),
    "no such command": ({"command": ["no-such-program", "--flag"]}, ["no-such-program"]),
    "not executable": ({"command": ["./data.txt"]}, ["data.txt"]),
    "no such folder": ({"command": ["/bin/true"], "working_dir": "missing"}, ["missing"]),
    "a job that fails": (
        {"command": ["/bin/sh", "-c", "echo migrating; exit 4"], "job": True},
        ["exited with 4", "exit code: 4", "migrating"],
    ),
}


def test_what_was_started_is_gone_when_a_service_does_not_come_up(mesh: MeshUnderTest) -> None:
    bad, words = BROKEN["exits at once"]
    # Nobody waits for what waits for something that failed.
    services = {"good": make_service(), "bad": bad, "after": make_service(depends_on={"bad": "healthy"})}
    mesh.write({"services": services})
    done = mesh.run("up", "-d", "--wait")
    assert done.code == 1, done.err
    assert [word for word in words if word not in done.err] == [], done.err
    assert "after" not in [line.split()[0] for line in journal(mesh)]
    assert_no_trace(mesh)
    # The next try is not haunted by this one.
    services["bad"] = make_service()
    mesh.write({"services": services})
    mesh.up()


def test_a_service_that_does_not_come_up_beside_a_running_mesh_takes_nothing_down(mesh: MeshUnderTest) -> None:
    (mesh.folder / "data.txt").write_text("no program\n")
    mesh.write({"services": {"good": make_service()}})
    mesh.up()
    good = pids(mesh)
    for case, (bad, words) in BROKEN.items():
        mesh.write({"services": {"good": make_service(), "bad": bad}})
        done = mesh.run("up", "-d", "--wait")
        assert (case, done.code) == (case, 1), done.err
        assert [word for word in ["bad-v1-1", *words] if word not in done.err] == [], f"{case}: {done.err}"
        assert "Traceback" not in done.err
        assert good.items() <= pids(mesh).items(), case
    # Not even what failed is haunted by it.
    mesh.write({"services": {"good": make_service(), "bad": make_service()}})
    mesh.up()
    assert good.items() <= pids(mesh).items()


def test_what_never_gets_ready_is_awaited_as_long_as_asked_and_named(mesh: MeshUnderTest) -> None:
    slow = make_service(readiness={"exec": ["/bin/sh", "-c", "echo the cache is cold; exit 1"]})
    mesh.write(
        {"services": {"good": make_service(), "slow": slow, "after": make_service(depends_on={"slow": "healthy"})}}
    )
    done = mesh.run("up", "-d", "--wait", "--wait-timeout", "500ms")
    assert done.code == 4, done.err
    assert "slow-v1-1" in done.err
    assert "waiting for slow to be healthy" in done.err
    # The mesh runs on, and says the same.
    wait_state(mesh, "good-v1-1", state="ready")
    wait_until(lambda: "the cache is cold" in instances(mesh)["slow-v1-1"]["reason"], "its check was made")
    assert instances(mesh)["after-v1-1"]["state"] == "pending"
    assert "slow" in mesh.must("status")
    done = mesh.run("up", "-d", "--wait", "--wait-timeout", "100ms")
    assert done.code == 4, done.err
    assert "waiting for its readiness check" in done.err
    # A changed probe takes effect without a restart.
    pid = instances(mesh)["slow-v1-1"]["pid"]
    slow["readiness"] = {"exec": ["/bin/true"]}
    mesh.write(
        {"services": {"good": make_service(), "slow": slow, "after": make_service(depends_on={"slow": "healthy"})}}
    )
    mesh.up()
    assert instances(mesh)["slow-v1-1"]["pid"] == pid


def test_a_broken_file_starts_nothing(mesh: MeshUnderTest) -> None:
    (mesh.folder / "mesh.yaml").write_text("services:\n  web:\n    comand: python web.py\n    upstreams: [nobody]\n")
    done = mesh.run("up", "-d", "--wait")
    assert done.code == 2
    assert "mesh.yaml:3:5" in done.err
    assert "comand" in done.err
    assert "nobody" in done.err
    assert not (mesh.folder / ".meshctl").exists()
    assert_no_trace(mesh)


def test_a_broken_file_changes_nothing_of_a_running_mesh(mesh: MeshUnderTest) -> None:
    mesh.write({"services": {"web": make_service()}})
    mesh.up()
    before = look(mesh)
    (mesh.folder / "mesh.yaml").write_text("services: {web: {comand: x}}\n")
    assert mesh.run("up", "-d", "--wait").code == 2
    assert look(mesh) == before
    # Neither reading nor stopping a mesh needs a file that is right.
    assert "web" in mesh.must("status")
    mesh.must("down")
    assert_no_trace(mesh)


def test_a_port_that_another_process_holds_is_named_with_it(mesh: MeshUnderTest) -> None:
    with listen_above_a_free_port() as holder:
        taken = holder.server_address[1]
        gateway = {"port": taken, "routes": [{"path": "/", "service": "web"}]}
        for topology in (
            {"gateway": gateway, "services": {"web": make_service()}},
            {"services": {"web": make_service(), "api": make_service(port=taken)}},
            {"services": {"web": make_service(port=taken - 1, replicas=2)}},
        ):
            mesh.write(topology)
            done = mesh.run("up", "-d", "--wait")
            assert done.code == 1, done.err
            assert str(taken) in done.err
            assert f"pid {os.getpid()}" in done.err
            assert Path(sys.executable).name in done.err
            assert_no_trace(mesh)


def listen_above_a_free_port() -> http.server.HTTPServer:
    """This process holds a port, and the one below is free."""
    while True:
        with suppress(OSError):
            return http.server.HTTPServer(("127.0.0.1", free_port() + 1), http.server.BaseHTTPRequestHandler)


def test_a_remembered_port_that_somebody_else_took_is_replaced(mesh: MeshUnderTest) -> None:
    mesh.write({"gateway": make_gateway("web"), "services": {"web": make_service(), "api": make_service()}})
    mesh.up()
    before = instances(mesh)
    mesh.must("down")
    mesh.up()
    assert {name: item["port"] for name, item in instances(mesh).items()} == {
        name: item["port"] for name, item in before.items()
    }
    mesh.must("down")
    with socket.create_server(("127.0.0.1", before["web-v1-1"]["port"])):
        mesh.up()
        after = instances(mesh)
        assert after["web-v1-1"]["port"] != before["web-v1-1"]["port"]
        assert after["api-v1-1"]["port"] == before["api-v1-1"]["port"]
        assert mesh.call("web/")["status"] == 200
        ports = ports_of(mesh)
        mesh.must("down")
        assert_no_trace(mesh, ports)


def test_a_service_that_comes_up_at_its_second_try_is_no_failure(mesh: MeshUnderTest) -> None:
    # The first try finds no marker: services that wait for each other by crashing are common.
    script = 'test -e tried || { touch tried; echo not yet; exit 1; }; exec "$0" "$@"'
    web = make_service(restart={"backoff": "100ms"}, port=free_port())
    web["command"] = ["/bin/sh", "-c", script, *web["command"]]
    mesh.write({"services": {"web": web}})
    mesh.up()
    assert wait_state(mesh, "web-v1-1", health="healthy")["restarts"] == 1
