"""What ``proxy status`` and ``proxy config`` say of real sidecars, and that nothing is sent twice."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import (
    ECHO,
    LAB,
    TCP,
    Map,
    admin,
    answer_http,
    api,
    free_port,
    is_reached,
    outside,
    read_map,
    running,
    stats,
)
from tests.support.envoy_validate import envoy_path

pytestmark = pytest.mark.e2e

NODES = ["a", "b", "gateway", "t"]
KINDS = ("clusters", "endpoints", "secrets", "listeners", "routes")
TYPES = (*KINDS, "runtime", "rates")
"""All that a sidecar is sent: what `proxy config` shows, and how much it tells of requests."""


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    topology = {
        "name": "proxy",
        "gateway": {"port": free_port(), "routes": [{"path": "/", "service": "a"}]},
        "services": {
            "a": {"command": ECHO, "upstreams": ["b", "t"]},
            "b": {"command": LAB, "replicas": 2},
            "t": {"command": TCP, "protocol": "tcp"},
        },
    }
    with running(topology) as mesh:
        yield read_map(mesh)


def proxies(mesh: MeshUnderTest) -> dict[str, dict[str, Any]]:
    """The state of every sidecar, by name."""
    return {item["sidecar"]: item for item in api(mesh, "/proxies")["proxies"]}


def config(mesh: MeshUnderTest, sidecar: str, kind: str) -> list[dict[str, Any]]:
    """What a sidecar has of a kind."""
    found = json.loads(mesh.must("proxy", "config", sidecar, kind, "-o", "json"))
    assert (found["sidecar"], found["kind"]) == (sidecar, kind)
    resources: list[dict[str, Any]] = found["resources"]
    return resources


# ---------------------------------------------------------------------------------------------- status


def test_every_sidecar_of_a_mesh_that_is_up_is_synced(world: Map) -> None:
    found = {item["sidecar"]: item for item in json.loads(world.mesh.must("proxy", "status", "-o", "json"))["proxies"]}
    assert sorted(found) == NODES
    for proxy in found.values():
        assert (proxy["state"], proxy["connected"]) == ("synced", True)
        assert {item["type"]: item["state"] for item in proxy["types"]} == dict.fromkeys(TYPES, "synced")
        assert all(item["version"] and not item["error"] for item in proxy["types"])
    counts = {item["type"]: item["resources"] for item in found["b"]["types"]}
    # Two instances: an inbound listener each, and the one by host name.
    assert (counts["listeners"], counts["secrets"]) == (3, 2)
    table = world.mesh.must("proxy", "status").splitlines()
    assert table[0].split() == ["SIDECAR", "CDS", "EDS", "SDS", "LDS", "RDS", "STATE"]
    assert [line.split() for line in table[1:]] == [[node, *["synced"] * 6] for node in NODES]


def test_a_stopped_sidecar_is_stale_until_it_goes_on(world: Map) -> None:
    pid = world.services["a"]["sidecar"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with outside(answer_http("mine")) as port:
            identity = world.mesh.must("register", "b", "--address", f"127.0.0.1:{port}").strip()
            wait_until(lambda: proxies(world.mesh)["a"]["state"] == "stale", "it has not answered")
            types = {item["type"]: item["state"] for item in proxies(world.mesh)["a"]["types"]}
            assert types["endpoints"] == "stale"
            assert types["listeners"] == "synced"
            wait_until(lambda: proxies(world.mesh)["gateway"]["state"] == "synced", "others go on")
            done = world.mesh.run("up", "-d", "--wait", "--wait-timeout", "300ms")
            assert done.code != 0
            assert "sidecar.a: configuration stale" in done.err
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: proxies(world.mesh)["a"]["state"] == "synced", "it has caught up")
            world.mesh.must("deregister", identity)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert world.mesh.pids()["sidecar.a"] == pid


def test_a_sidecar_that_does_not_come_back_is_disconnected(mesh: MeshUnderTest, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    wrapper = tmp_path / "envoy"
    wrapper.write_text(
        f'#!/bin/sh\n[ -e {shlex.quote(str(broken))} ] && exit 3\nexec {shlex.quote(envoy_path())} "$@"\n'
    )
    wrapper.chmod(0o755)
    mesh.environ["MESHCTL_ENVOY"] = str(wrapper)
    services = {"a": {"command": ECHO, "upstreams": ["b"]}, "b": {"command": ECHO}}
    # A circuit that opens while the sidecar comes back would hide that it is back.
    mesh.write({"name": "gone", "defaults": {"circuit_breaker": {"enabled": False}}, "services": services})
    mesh.up()
    world = read_map(mesh)
    broken.touch()
    os.kill(world.services["a"]["sidecar"]["pid"], signal.SIGKILL)
    wait_until(lambda: proxies(mesh)["a"]["state"] == "disconnected", "it is gone")
    found = proxies(mesh)
    assert not found["a"]["connected"]
    assert {item["state"] for item in found["a"]["types"]} == {"disconnected"}
    assert found["b"]["state"] == "synced"
    assert mesh.call("b/")["status"] == 200
    done = mesh.run("proxy", "config", "a", "clusters")
    assert done.code != 0
    assert "the sidecar of a does not answer" in done.err
    broken.unlink()
    wait_until(lambda: proxies(mesh)["a"]["state"] == "synced", "it came back, and has everything again", timeout=60)
    wait_until(lambda: is_reached(world.upstream("a", "b")), "it works")


# ---------------------------------------------------------------------------------------------- config


def test_clusters_are_those_of_the_upstreams_and_the_own_instances(world: Map) -> None:
    names = {item["cluster"]["name"] for item in config(world.mesh, "a", "clusters")}
    assert names == {"collector", "control-plane", "passthrough", "b/v1", "t/v1", "local/a-v1-1"}
    names = {item["cluster"]["name"] for item in config(world.mesh, "b", "clusters")}
    assert names == {"collector", "control-plane", "passthrough", "local/b-v1-1", "local/b-v1-2"}


def test_endpoints_are_the_inbound_ports_of_the_instances(world: Map) -> None:
    ports = sorted(world.services["b"]["sidecar"]["inbound_ports"].values())
    found = next(
        item["endpoint_config"]
        for item in config(world.mesh, "a", "endpoints")
        if item["endpoint_config"]["cluster_name"] == "b/v1"
    )
    addresses = [m["endpoint"]["address"]["socket_address"] for m in found["endpoints"][0]["lb_endpoints"]]
    assert sorted(item["port_value"] for item in addresses) == ports
    table = world.mesh.must("proxy", "config", "a", "endpoints")
    assert all(f"127.0.0.1:{port}" in table for port in ports)


def test_listeners_are_those_that_status_tells(world: Map) -> None:
    table = [line.split() for line in world.mesh.must("proxy", "config", "a", "listeners").splitlines()[1:]]
    sidecar = world.services["a"]["sidecar"]
    assert {(name, address, tls) for name, address, _, tls in table} == {
        ("inbound/a-v1-1", f"127.0.0.1:{sidecar['inbound_ports']['a-v1-1']}", "mTLS"),
        ("outbound", f"127.0.0.1:{sidecar['outbound_port']}", "plain"),
        ("upstream/b", f"127.0.0.1:{world.upstream('a', 'b')}", "plain"),
        ("upstream/t", f"127.0.0.1:{world.upstream('a', 't')}", "plain"),
    }
    names = {item["name"] for item in config(world.mesh, "a", "listeners")}
    assert names == {name for name, *_ in table}


def test_routes_show_where_each_host_leads(world: Map) -> None:
    table = world.mesh.must("proxy", "config", "a", "routes")
    assert {line.split()[0] for line in table.splitlines()[1:]} == {"inbound/a-v1-1", "outbound", "upstream/b"}
    assert any(line.split()[0] == "outbound" and line.endswith("b/v1") for line in map(str.rstrip, table.splitlines()))
    names = {item["route_config"]["name"] for item in config(world.mesh, "a", "routes")}
    assert names == {"inbound/a-v1-1", "outbound", "upstream/b"}


@pytest.mark.parametrize("sidecar", NODES)
def test_private_keys_are_never_shown(world: Map, sidecar: str) -> None:
    found = {item["name"]: item["secret"] for item in config(world.mesh, sidecar, "secrets")}
    # Who may connect to a service that speaks plain TCP is decided in the handshake.
    assert set(found) == {"leaf", "peers" if sidecar == "t" else "roots"}
    assert found["leaf"]["tls_certificate"]["private_key"] == {"inline_bytes": "W3JlZGFjdGVkXQ=="}  # [redacted]
    everything = world.mesh.must("proxy", "config", sidecar, "-o", "json")
    assert [item["kind"] for item in json.loads(everything)] == list(KINDS)
    assert "PRIVATE" not in everything


def test_all_kinds_are_shown_when_none_is_named(world: Map) -> None:
    text = world.mesh.must("proxy", "config", "gateway")
    assert [line for line in text.splitlines() if line.lower() in KINDS] == [kind.upper() for kind in KINDS]


@pytest.mark.parametrize("words", [("nobody",), ("nobody", "routes")])
def test_an_unknown_sidecar_is_refused_with_those_there_are(world: Map, words: tuple[str, ...]) -> None:
    done = world.mesh.run("proxy", "config", *words)
    assert done.code != 0
    assert "no sidecar nobody" in done.err
    assert "a, b, gateway, t" in done.err


# ---------------------------------------------------------------------------------------------- nothing twice


def taken(world: Map) -> dict[str, Any]:
    """What each sidecar has and since when, and how often it was given anything."""
    found: dict[str, Any] = {}
    for name, item in world.services.items():
        dump = json.loads(admin(item["sidecar"]["admin_socket"], "/config_dump"))
        found[name] = sorted(find_versions(dump))
        found[f"{name} updates"] = stats(
            item["sidecar"]["admin_socket"], r"(update_success|_added|_modified|_updated)$"
        )
    return found


def test_a_new_control_plane_sends_nothing_that_a_sidecar_has(world: Map) -> None:
    """Invariant 2."""
    # What was on its way has arrived: what is registered and leaves keeps its listener until it is drained.
    wait_until(lambda: len(config(world.mesh, "b", "listeners")) == 3, "b has its own instances and no other")
    before = wait_until(lambda: (found := taken(world)) == taken(world) and found, "nothing changes any more")
    assert before["a updates"]["cluster_manager.cds.update_success"] > 0
    world.mesh.kill_daemon()
    world.mesh.up()
    assert {proxy["state"] for proxy in proxies(world.mesh).values()} == {"synced"}
    after = taken(world)
    assert {key: (after[key], before[key]) for key in before if after[key] != before[key]} == {}


def find_versions(found: Any) -> Iterator[tuple[str, str]]:
    """Version and time of the last update of everything in a config dump."""
    if isinstance(found, dict):
        if "last_updated" in found:
            yield found.get("version_info", ""), found["last_updated"]
        for value in found.values():
            yield from find_versions(value)
    elif isinstance(found, list):
        for value in found:
            yield from find_versions(value)
