"""`up` starts things in order, in part or whole, and a later `up` touches only what changed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import (
    assert_no_trace,
    instances,
    journal,
    listens,
    look,
    make_gateway,
    make_service,
    pids,
    ports_of,
    sidecars,
)

pytestmark = pytest.mark.e2e


def test_services_start_when_what_they_depend_on_is_started_healthy_or_completed(mesh: MeshUnderTest) -> None:
    mesh.write(
        {
            "services": {
                "web": make_service(depends_on=["api"]),
                "api": make_service(depends_on={"seed": "completed_successfully"}),
                "seed": make_service(depends_on={"db": {"condition": "healthy"}}, job=True, JOB="0", NAP="0.3"),
                "db": make_service(NAP="0.4"),
            }
        }
    )
    mesh.up()
    noted = journal(mesh)
    order = [noted.index(line) for line in ("db begins", "db listens", "seed begins", "seed is done", "api begins")]
    assert order == sorted(order), noted
    found = instances(mesh)
    assert found["web-v1-1"]["started_at"] >= found["api-v1-1"]["started_at"]
    assert {name: item["state"] for name, item in found.items()} == {
        "api-v1-1": "ready",
        "db-v1-1": "ready",
        "seed-v1-1": "completed",
        "web-v1-1": "ready",
    }
    assert {item["health"] for item in found.values()} == {"healthy"}
    assert (found["seed-v1-1"]["pid"], found["seed-v1-1"]["exit_code"]) == (None, 0)

    # A second `up` finds nothing to do; a job that has completed does not run again.
    done = mesh.run("up", "-d", "--wait")
    assert (done.code, "nothing changed" in done.err) == (0, True), done.err
    assert instances(mesh) == found
    assert journal(mesh) == noted

    # What depends on others stops before them.
    ports = ports_of(mesh)
    mesh.must("down")
    assert journal(mesh)[len(noted) :] == ["web ends", "api ends", "db ends"]
    assert_no_trace(mesh, ports)


def test_a_later_up_touches_only_what_changed(mesh: MeshUnderTest) -> None:
    back: dict[str, Any] = {
        "versions": {"v1": make_service(), "v2": make_service(GREETING="two")},
        "split": {"v1": 100, "v2": 0},
    }
    services = {"front": make_service(upstreams=["back"]), "back": back, "other": make_service(upstreams=["front"])}
    topology = {"name": "story", "gateway": make_gateway("front"), "services": services}

    def apply(*words: str) -> tuple[dict[str, int], str]:
        mesh.write(topology)
        done = mesh.run("up", "-d", "--wait", *words)
        assert done.code == 0, done.err
        return pids(mesh), done.err

    # A part, with what it needs; then the rest.
    part, _ = apply("front")
    parts = {"front-v1-1", "back-v1-1", "back-v2-1", "sidecar.front", "sidecar.back", "gateway"}
    assert set(part) == parts
    assert {service["name"] for service in look(mesh)["services"]} == {"front", "back"}
    whole, _ = apply()
    assert set(whole) == parts | {"other-v1-1", "sidecar.other"}
    assert {name: whole[name] for name in part} == part

    # Environment: that service's instances alone, and no sidecar.
    services["front"] = make_service(upstreams=["back"], GREETING="hello")
    changed, said = apply()
    assert {name for name in whole if changed[name] != whole[name]} == {"front-v1-1"}
    assert "front" in said
    assert mesh.call("front/", "--from", "other")["status"] == 200
    back["versions"]["v2"] = make_service(GREETING="zwei")
    again, _ = apply()
    assert {name for name in changed if again[name] != changed[name]} == {"back-v2-1"}

    # Split and policies: nobody is restarted, and it holds when the command returns.
    back["split"] = {"v1": 0, "v2": 100}
    back["timeout"] = "3s"
    back["retry_policy"] = {"max_attempts": 2}
    split, said = apply()
    assert split == again
    assert mesh.call("back/", "--from", "front")["version"] == "v2"

    # More instances, and fewer: the others stay.
    services["other"]["replicas"] = 3
    more, _ = apply()
    assert set(more) - set(split) == {"other-v1-2", "other-v1-3"}
    assert {name: more[name] for name in split} == split
    gone = [instances(mesh)[f"other-v1-{index}"] for index in (2, 3)]
    services["other"]["replicas"] = 1
    less, _ = apply()
    assert less == split
    assert [item["port"] for item in gone if listens(item["port"])] == []
    # Envoy says that it has let go of a listener before it has closed it.
    wait_until(lambda: not any(listens(item["inbound_port"]) for item in gone), "nobody listens for them")

    # A removed service is gone: process, sidecar, ports.
    other, sidecar = instances(mesh)["other-v1-1"], sidecars(mesh)["other"]
    del services["other"]
    rest, _ = apply()
    assert rest == {name: pid for name, pid in split.items() if "other" not in name}
    ports = [other["port"], other["inbound_port"], sidecar["outbound_port"]]
    assert [port for port in ports if listens(port)] == []
    everything = ports_of(mesh)
    mesh.must("down")
    assert_no_trace(mesh, everything)
