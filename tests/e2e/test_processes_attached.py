"""`meshctl up` in a terminal: everybody's lines, and what Ctrl+C, SIGTERM, a closed window and a lost daemon do."""

from __future__ import annotations

import signal

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import (
    Terminal,
    ask,
    assert_no_trace,
    instances,
    is_alive,
    journal,
    kill,
    look,
    make_gateway,
    make_service,
    pids,
    ports_of,
)

pytestmark = pytest.mark.e2e


def test_ctrl_c_stops_gracefully_with_130(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("web")
    mesh.write({"name": "tty", "gateway": gateway, "services": {"web": make_service(), "api": make_service()}})
    with Terminal(mesh, "up", environ={"NO_COLOR": ""}) as terminal:
        terminal.wait_for("tty is ready")
        ask(gateway["port"], "/print/hello")
        ask(instances(mesh)["api-v1-1"]["port"], "/print/good-day")
        terminal.wait_for("hello")
        terminal.wait_for("good-day")
        prefixes = {
            line.split("|")[0].split("│")[0].strip()
            for line in terminal.text.splitlines()
            if line.rstrip().endswith(("hello", "good-day"))
        }
        assert prefixes == {"web-v1-1", "api-v1-1"}, terminal.text

        # A second `up` meanwhile says that all is as it should be, and changes nothing.
        before, ports = pids(mesh), ports_of(mesh)
        second = mesh.run("up", "-d", "--wait")
        assert (second.code, "nothing changed" in second.err) == (0, True), second.err
        assert pids(mesh) == before

        terminal.press_interrupt()
        assert terminal.wait() == 130
        assert "press Ctrl+C again to force" in terminal.text
        assert "Traceback" not in terminal.text
    assert {"web ends", "api ends"} <= set(journal(mesh))
    assert_no_trace(mesh, ports)


def test_ctrl_c_twice_forces(mesh: MeshUnderTest) -> None:
    mesh.write({"name": "tty", "services": {"slow": make_service(STUBBORN="1", BROOD="1", stop_grace="10m")}})
    with Terminal(mesh, "up") as terminal:
        terminal.wait_for("tty is ready")
        everything = mesh.processes()
        terminal.press_interrupt()
        terminal.wait_for("press Ctrl+C again to force")
        wait_until(lambda: instances(mesh)["slow-v1-1"]["state"] == "stopping", "it is asked to stop")
        terminal.press_interrupt()
        assert terminal.wait() == 130
    assert [process for process in everything if is_alive(process)] == []
    assert_no_trace(mesh)


def test_ctrl_c_while_it_starts_takes_down_what_was_started(mesh: MeshUnderTest) -> None:
    mesh.write({"name": "tty", "services": {"web": make_service(), "late": make_service(NAP="600", STUBBORN="1")}})
    for words in (("up",), ("up", "-d", "--wait")):
        with Terminal(mesh, *words) as terminal:
            wait_until(lambda: "late begins" in journal(mesh), "it starts")
            terminal.press_interrupt()
            # Asked a second time, it does not wait for the grace of what ignores SIGTERM.
            terminal.wait_for("press Ctrl+C again to force")
            terminal.press_interrupt()
            assert terminal.wait() == 130, terminal.text
        assert_no_trace(mesh)
        (mesh.folder / "journal").unlink()


@pytest.mark.parametrize("how", ["SIGTERM", "a closed window"])
def test_an_attached_up_that_is_ended_stops_the_mesh_like_ctrl_c(mesh: MeshUnderTest, how: str) -> None:
    mesh.write({"name": "tty", "services": {"web": make_service(TICK="0.01")}})
    with Terminal(mesh, "up") as terminal:
        terminal.wait_for("tty is ready")
        ports = ports_of(mesh)
        if how == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.hang_up()
        code = terminal.wait()
        assert code in (130, 143, 129), code
    assert "web ends" in journal(mesh)
    assert_no_trace(mesh, ports)


def test_an_attached_up_that_is_killed_leaves_a_mesh_that_obeys(mesh: MeshUnderTest) -> None:
    mesh.write({"name": "tty", "services": {"web": make_service(TICK="0.01")}})
    with Terminal(mesh, "up") as terminal:
        terminal.wait_for("tty is ready")
        before = pids(mesh)
        terminal.process.kill()
        terminal.process.wait(10)
    assert pids(mesh) == before
    with Terminal(mesh, "up") as terminal:
        # Attaching again shows what is to come, and nothing is started twice.
        terminal.wait_for("nothing changed")
        terminal.wait_for("tick")
        assert pids(mesh) == before
        # A mesh that is stopped from elsewhere ends the attachment.
        mesh.must("down")
        assert terminal.wait() == 0, terminal.text
        assert "the mesh was stopped" in terminal.text
    assert_no_trace(mesh)


def test_a_control_plane_that_dies_is_told_to_who_is_attached(mesh: MeshUnderTest) -> None:
    mesh.write({"name": "tty", "services": {"web": make_service()}})
    with Terminal(mesh, "up") as terminal:
        terminal.wait_for("tty is ready")
        before = pids(mesh)
        kill(look(mesh)["daemon_pid"])
        assert terminal.wait() == 1
        assert "control plane ended unexpectedly" in terminal.text
        assert "`meshctl up` takes over" in terminal.text
        assert "Traceback" not in terminal.text
    # Commands say what is so, and what to do.
    done = mesh.run("status")
    assert (done.code, "meshctl up" in done.err) == (3, True), done.err
    mesh.up()
    assert pids(mesh) == before
