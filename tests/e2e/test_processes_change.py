"""Restarting and scaling lose no request; restart policies and probes do what the topology says."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import (
    PATIENT,
    QUICK,
    Load,
    active_requests,
    answers,
    ask,
    events,
    instances,
    kill,
    listens,
    make_gateway,
    make_service,
    pids,
    wait_replaced,
    wait_state,
)

pytestmark = pytest.mark.e2e


def test_restarting_and_scaling_under_load_lose_no_request(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("front")
    services = {"front": make_service(replicas=2), "single": make_service()}
    topology = {"gateway": gateway, "defaults": PATIENT, "services": services}
    mesh.write(topology)
    mesh.up()
    before = pids(mesh)
    with Load(gateway["port"]) as load:
        mesh.must("restart", "front")
        after = pids(mesh)
        assert {name for name in before if after[name] != before[name]} == {"front-v1-1", "front-v1-2"}
        mesh.must("scale", "front=4")
        assert set(pids(mesh)) == {*before, "front-v1-3", "front-v1-4"}
        load.count_anew()
        wait_until(lambda: len(load.answered) == 4, "all four answer")
        gone = instances(mesh)
        mesh.must("scale", "front=1")
        assert set(pids(mesh)) == set(before) - {"front-v1-2"}
        assert load.who_answers() == {"front-v1-1"}
        assert [gone[f"front-v1-{n}"]["port"] for n in (2, 3, 4) if listens(gone[f"front-v1-{n}"]["port"])] == []
        # A changed environment rolls through the instances one at a time.
        mesh.must("scale", "front=3")
        services["front"] = make_service(replicas=2, GREETING="new")
        mesh.write(topology)
        mesh.up()
        assert ask(gateway["port"])[1]["greeting"] == "new"
    assert load.failures == []
    assert {item["restarts"] for item in instances(mesh).values()} == {0}


def test_a_request_under_way_is_answered_before_its_instance_goes(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("slow")
    mesh.write({"gateway": gateway, "defaults": PATIENT, "services": {"slow": make_service(replicas=2)}})
    mesh.up()
    answered: list[str] = []

    def work() -> None:
        status, told = ask(gateway["port"], "/wait/done")
        answered.append(f"{status} {told['instance']}")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: active_requests(mesh, "slow") == 4, "all are under way")
        scaling = mesh.start("scale", "slow=1")
        wait_state(mesh, "slow-v1-2", state="draining")
        # Its callers know in milliseconds; it is there until its requests are answered.
        time.sleep(0.5)
        assert instances(mesh)["slow-v1-2"]["state"] == "draining"
    finally:
        (mesh.folder / "done").touch()
    _, complaint = scaling.communicate(timeout=60)
    assert scaling.returncode == 0, complaint
    for thread in threads:
        thread.join(60)
    assert sorted(set(answered)) == ["200 slow-v1-1", "200 slow-v1-2"]
    assert len(answered) == 4
    assert set(instances(mesh)) == {"slow-v1-1"}


def test_restart_policies_are_kept_and_shown(mesh: MeshUnderTest) -> None:
    # However slow the machine is, nobody lives long enough to be forgiven what came before.
    bound = {"mode": "always", "backoff": "100ms", "max_restarts": 2, "reset_after": "10m"}
    mesh.write(
        {
            "services": {
                "never": make_service(restart="no"),
                "failing": make_service(restart={"mode": "on_failure", "backoff": "100ms"}),
                "always": make_service(restart="always"),
                "bounded": make_service(restart=bound),
            }
        }
    )
    mesh.up()

    def end(name: str, code: int) -> None:
        port = instances(mesh)[name]["port"]
        with pytest.raises(OSError):
            ask(port, f"/exit/{code}")

    end("never-v1-1", 0)
    assert wait_state(mesh, "never-v1-1", state="failed")["exit_code"] == 0

    end("failing-v1-1", 5)
    wait_state(mesh, "failing-v1-1", restarts=1, health="healthy", exit_code=5)
    end("failing-v1-1", 0)
    assert wait_state(mesh, "failing-v1-1", state="stopped")["restarts"] == 1

    end("always-v1-1", 0)
    assert wait_state(mesh, "always-v1-1", restarts=1, health="healthy")["exit_code"] == 0

    for count in (1, 2):
        end("bounded-v1-1", 1)
        wait_state(mesh, "bounded-v1-1", restarts=count, health="healthy")
    told = [item["message"] for item in events(mesh) if item["subject"] == "bounded-v1-1"]
    assert any("starting again" in message for message in told), told
    assert any("next try in 0.1 s" in message for message in told), told
    end("bounded-v1-1", 1)
    given_up = wait_state(mesh, "bounded-v1-1", state="failed")
    assert "given up after 2 restarts" in given_up["reason"]
    assert "given up after 2 restarts" in mesh.must("status", "bounded")

    # Asked for, each of them starts again.
    mesh.must("restart", "never", "failing", "bounded")
    assert {item["health"] for item in instances(mesh).values()} == {"healthy"}


def test_liveness_restarts_and_readiness_takes_out_of_traffic(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("ready")
    # What is answered counts, and not how soon.
    quick = {"interval": "100ms", "failure_threshold": 2, "timeout": "30s"}
    alive = {"exec": ["/bin/sh", "-c", 'test ! -e "$$MESH_INSTANCE.dying"'], **quick}
    mesh.write(
        {
            "gateway": gateway,
            # Otherwise callers leave it alone for half a minute when nobody answered for a while.
            "defaults": PATIENT,
            "services": {
                "ready": make_service(replicas=2, readiness={"http": "/health", **quick}, load_balancing=QUICK),
                "exec": make_service(liveness=alive),
                "http": make_service(liveness={"http": "/alive", **quick}),
            },
        }
    )
    mesh.up()
    for name in ("exec-v1-1", "http-v1-1"):
        first = instances(mesh)[name]["pid"]
        marker = mesh.folder / f"{name}.dying"
        marker.touch()
        wait_replaced(mesh, name, first)
        marker.unlink()
        after = wait_state(mesh, name, state="ready", health="healthy")
        assert after["restarts"] >= 1
        assert any("liveness check failed" in item["message"] for item in events(mesh) if item["subject"] == name)

    sick = [Path(mesh.folder / f"ready-v1-{index}.sick") for index in (1, 2)]
    before = {name: pid for name, pid in pids(mesh).items() if name.startswith("ready")}
    with Load(gateway["port"]) as load:
        # One of two: the other answers everything.
        sick[0].touch()
        wait_state(mesh, "ready-v1-1", health="unhealthy")
        wait_until(lambda: load.who_answers() == {"ready-v1-2"}, "its callers know")
        assert load.who_answers() == {"ready-v1-2"}
        sick[0].unlink()
        wait_state(mesh, "ready-v1-1", health="healthy")
        wait_until(lambda: "ready-v1-1" in load.answered, "it gets requests again")
    assert load.failures == []
    # Both: nobody is left to answer, and the gateway says so.
    for marker in sick:
        marker.touch()
    wait_until(lambda: ask(gateway["port"])[0] == 503, "503")
    # Their sidecars refuse at once; the control plane learns of it when it reads them next.
    for name in ("ready-v1-1", "ready-v1-2"):
        wait_state(mesh, name, health="unhealthy")
    for marker in sick:
        marker.unlink()
    wait_until(lambda: answers(gateway["port"]), "they are back")
    assert before.items() <= pids(mesh).items()


def test_one_of_two_instances_dying_under_load_costs_no_request_that_may_be_repeated(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("web")
    mesh.write({"gateway": gateway, "defaults": PATIENT, "services": {"web": make_service(replicas=2)}})
    mesh.up()
    with Load(gateway["port"]) as load:
        kill(instances(mesh)["web-v1-1"]["pid"])
        wait_state(mesh, "web-v1-1", restarts=1, health="healthy")
        load.count_anew()
        wait_until(lambda: len(load.answered) == 2, "both answer")
    assert load.failures == []
