"""Whatever is killed, the rest goes on; `up` takes over, `down` leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from http.client import HTTPException
from pathlib import Path

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import (
    PATIENT,
    Load,
    answers,
    ask,
    assert_no_trace,
    events,
    instances,
    is_alive,
    keeper_of,
    kill,
    kill_keeper,
    look,
    make_gateway,
    make_service,
    pids,
    ports_of,
    sidecars,
    wait_replaced,
    wait_state,
    words_of,
)

pytestmark = pytest.mark.e2e


def ticks(mesh: MeshUnderTest, name: str) -> list[int]:
    """The numbers that a ticking instance printed, as ``logs`` has them."""
    lines = mesh.must("logs", "--no-prefix", name).splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tick")]


def test_killing_the_control_plane_loses_no_request_no_line_and_no_exit(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("front")
    mesh.write(
        {
            "gateway": gateway,
            "defaults": PATIENT,
            "services": {
                "front": make_service(upstreams=["weak"], replicas=2, TICK="0.02"),
                "weak": make_service(),
                "stubborn": make_service(STUBBORN="1", BROOD="1", stop_grace="500ms"),
            },
        }
    )
    mesh.up()
    before, keeper = pids(mesh), keeper_of(mesh).pid
    weak = instances(mesh)["weak-v1-1"]
    wait_until(lambda: len(mesh.processes()) >= 2 + 4 + 4 + 2, "everything runs")
    with Load(gateway["port"]) as load:
        kill(look(mesh)["daemon_pid"])
        # While nobody controls the mesh a service dies, and everybody else goes on talking and serving.
        with pytest.raises((OSError, HTTPException)):
            ask(weak["port"], "/exit/7")
        load.wait_more(300)
        mesh.up()
        load.wait_more(100)
        after = pids(mesh)
    assert load.failures == []
    assert set(load.answered) == {"front-v1-1", "front-v1-2"}
    assert {name for name in before if before[name] != after[name]} == {"weak-v1-1"}
    assert keeper_of(mesh).pid == keeper
    found = instances(mesh)["weak-v1-1"]
    assert (found["restarts"], found["exit_code"], found["state"]) == (1, 7, "ready")
    assert "exited with 7 while no control plane ran" in [item["message"] for item in events(mesh)]
    numbers = ticks(mesh, "front-v1-1")
    assert numbers == list(range(len(numbers)))
    wait_until(
        lambda: {state["config"] for state in sidecars(mesh).values()} == {"synced"}, "all have what they should"
    )
    assert instances(mesh)["front-v1-1"]["restarts"] == 0

    # And again; now `down` finds no control plane.
    everything, ports = mesh.processes(), ports_of(mesh)
    kill(look(mesh)["daemon_pid"])
    mesh.must("down")
    assert [process for process in everything if is_alive(process)] == []
    assert_no_trace(mesh, ports)


def test_a_killed_service_sidecar_or_keeper_is_replaced_at_once(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("web")
    services = {"web": make_service(TICK="0.02"), "api": make_service()}
    # No circuit that opens while nobody answers would hide that somebody does again.
    mesh.write({"gateway": gateway, "defaults": PATIENT, "services": services})
    mesh.up()
    before = pids(mesh)

    # A service: started again at once, counted and told.
    kill(before["web-v1-1"])
    found = wait_state(mesh, "web-v1-1", restarts=1, health="healthy")
    assert found["pid"] != before["web-v1-1"]
    wait_until(lambda: answers(gateway["port"]), "its callers know")
    assert ask(gateway["port"])[1]["pid"] == found["pid"]
    told = [item["message"] for item in events(mesh) if item["subject"] == "web-v1-1"]
    assert [message for message in told if "killed by SIGKILL" in message], told
    assert "1" in next(line for line in mesh.must("status").splitlines() if "web-v1-1" in line).split()

    # Its sidecar, and the gateway: traffic flows again.
    for name in ("sidecar.web", "gateway"):
        kill(before[name])
        wait_replaced(mesh, name, before[name])
        wait_until(lambda: answers(gateway["port"]), "traffic flows")
        mesh.must("up", "-d", "--wait")
    assert sidecars(mesh)["web"]["restarts"] == 1
    assert instances(mesh)["web-v1-1"]["pid"] == found["pid"]

    # The keeper: everything goes on, its output included, and obeys.
    settled, keeper = pids(mesh), keeper_of(mesh).pid
    kill_keeper(mesh, settled["web-v1-1"])
    written = Path(mesh.paths.log("web-v1-1"))
    known = written.read_text().count(" tick ")
    wait_until(lambda: written.read_text().count(" tick ") > known + 20, "output is captured")
    assert pids(mesh) == settled
    assert keeper_of(mesh).pid != keeper
    mesh.must("restart", "api")
    after = pids(mesh)
    assert {name for name in settled if after[name] != settled[name]} == {"api-v1-1"}
    kill(after["web-v1-1"])
    wait_state(mesh, "web-v1-1", restarts=2, health="healthy")
    wait_until(lambda: answers(gateway["port"]), "its callers know")

    # Keeper and control plane: the next `up` takes over all of it.
    settled = pids(mesh)
    with Load(gateway["port"]) as load:
        kill_keeper(mesh, settled["web-v1-1"])
        kill(look(mesh)["daemon_pid"])
        load.wait_more(50)
        mesh.up()
        load.wait_more(50)
    assert load.failures == []
    assert pids(mesh) == settled
    numbers = ticks(mesh, "web-v1-1")
    last = numbers[len(numbers) - numbers[::-1].index(0) - 1 :]
    assert last == list(range(len(last)))


def test_what_a_power_failure_left_does_not_hinder_the_next_up(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("web")
    mesh.write({"gateway": gateway, "services": {"web": make_service(), "seed": make_service(job=True, JOB="0")}})
    mesh.up()
    settled, ports = pids(mesh), ports_of(mesh)
    # All at once: sockets, pid files and records are stale.
    everything = mesh.processes()
    for process in everything:
        process.send_signal(signal.SIGSTOP)
    for process in everything:
        process.kill()
    wait_until(lambda: not mesh.processes(), "nothing runs")
    mesh.up()
    assert ask(gateway["port"])[0] == 200
    assert not set(settled.values()) & set(pids(mesh).values())
    assert {item["restarts"] for item in instances(mesh).values()} == {0}
    mesh.must("down")
    assert_no_trace(mesh, ports)


def test_a_process_that_got_a_remembered_pid_is_left_alone(mesh: MeshUnderTest) -> None:
    mesh.write({"services": {"web": make_service()}})
    mesh.up()
    (record,) = Path(mesh.paths.runtime, "processes").glob("web-v1-1*.json")
    web = instances(mesh)["web-v1-1"]
    old = web["pid"]
    # Processes are told apart by their start, on some systems to the second; and starts count from a time of boot that
    # Linux tells in whole seconds, so that they lie up to a second before the clock's.
    wait_until(lambda: time.time() > web["started_at"] + 3, "a later second")
    # In this order: nobody is left who would start another keeper, and that one have the record itself.
    kill(look(mesh)["daemon_pid"])
    kill(keeper_of(mesh).pid)
    kill(old)
    bystander = subprocess.Popen(["/bin/sleep", "600"])
    try:
        # What the record says now is what it would say if the system had given the pid away again.
        record.write_text(json.dumps(json.loads(record.read_text()) | {"pid": bystander.pid}))
        mesh.up()
        assert instances(mesh)["web-v1-1"]["pid"] not in (old, bystander.pid)
        mesh.must("down")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert_no_trace(mesh)


def test_down_ends_what_ignores_sigterm_and_what_left_its_group(mesh: MeshUnderTest) -> None:
    mesh.write({"services": {"stubborn": make_service(STUBBORN="1", BROOD="1", stop_grace="300ms")}})
    mesh.up()
    brood = [process for process in mesh.processes() if "-c" in words_of(process)]
    assert len(brood) == 2
    everything, ports = mesh.processes(), ports_of(mesh)
    # A restart leaves none either, but for one that dropped its mark: that is found when the mesh ends.
    mesh.must("restart", "stubborn")
    left = [process for process in brood if is_alive(process)]
    assert [process for process in left if "MESHCTL_PROCESS" in process.environ()] == []
    everything += mesh.processes()
    mesh.must("down")
    assert [process for process in everything if is_alive(process)] == []
    assert_no_trace(mesh, ports)
