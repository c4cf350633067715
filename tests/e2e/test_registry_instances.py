"""Instances that somebody else runs: registered, called, kept alive, expired, and taken out."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import pytest
from tests.e2e.harness import Done, wait_until
from tests.e2e.processes import PATIENT
from tests.e2e.traffic import (
    ECHO,
    LAB,
    Load,
    Map,
    answer_http,
    api,
    ask,
    ask_many,
    free_port,
    outside,
    read_map,
    running,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    topology = {
        "name": "registry",
        # Callers here ask until somebody is there to answer: a circuit that opens meanwhile would hide that he is.
        "defaults": PATIENT,
        "services": {
            "a": {"command": ECHO, "upstreams": ["outer", "mixed", "checked"]},
            "b": {"command": ECHO},
            "outer": {},
            "mixed": {
                "versions": {"v1": {"command": LAB}, "v2": {}},
                "split": {"v1": 50, "v2": 50},
            },
            # Late answers are forgiven.
            "checked": {"load_balancing": {"health_check": {"interval": "200ms", "unhealthy_threshold": 50}}},
            "web": {"address": "127.0.0.1:1"},
            "seed": {"command": "true", "job": True},
        },
    }
    with running(topology) as mesh:
        yield read_map(mesh)


@contextmanager
def registered(world: Map, service: str, name: str, *options: str) -> Iterator[str]:
    """An instance of the test's own, registered until the end; yields its id."""
    with outside(answer_http(name)) as port:
        identity = world.mesh.must("register", service, "--address", f"127.0.0.1:{port}", *options).strip()
        try:
            yield identity
        finally:
            world.mesh.run("deregister", identity)


def instances(world: Map, service: str) -> dict[str, dict[str, object]]:
    found = [item for item in api(world.mesh, "/status")["services"] if item["name"] == service]
    return {item["id"]: item for service in found for item in service["instances"]}


def until_ok(port: int, path: str = "/") -> None:
    wait_until(lambda: ask(port, path).status == 200, "it is reached")


# ---------------------------------------------------------------------------------------------- who answers


def test_a_declared_service_without_a_command_is_called_once_registered(world: Map) -> None:
    port = world.upstream("a", "outer")
    assert ask(port).status == 503
    with registered(world, "outer", "mine") as identity:
        assert identity == "outer-ext-1"
        until_ok(port)
        answer = ask(port, "/x")
        assert (answer.json["name"], answer.json["path"]) == ("mine", "/x")
        assert (answer.headers["x-meshctl-instance"], answer.headers["x-meshctl-version"]) == (identity, "v1")
        seen = wait_until(
            lambda: (found := instances(world, "outer")[identity])["health"] == "healthy" and found, "it is healthy"
        )
        assert (seen["state"], seen["version"], seen["pid"]) == ("registered", "v1", None)
    assert ask(port).status == 503
    assert instances(world, "outer") == {}


def test_an_instance_is_registered_beside_those_of_the_topology_as_another_version(world: Map) -> None:
    port = world.upstream("a", "mixed")
    with registered(world, "mixed", "mine", "--version", "v2") as identity:
        # Until then its half of the split has nobody to answer.
        wait_until(lambda: {answer.status for answer in ask_many(port, "/", 20)} == {200}, "both versions answer")
        answers = ask_many(port, "/", 200)
        assert {answer.status for answer in answers} == {200}
        seen = {(answer.headers["x-meshctl-instance"], answer.headers["x-meshctl-version"]) for answer in answers}
        assert seen == {("mixed-v1-1", "v1"), (identity, "v2")}


def test_an_instance_of_the_same_version_shares_its_traffic(world: Map) -> None:
    port = world.upstream("a", "mixed")
    with registered(world, "mixed", "mine") as identity:
        wait_until(
            lambda: (
                {answer.headers.get("x-meshctl-instance") for answer in ask_many(port, "/", 20)}
                >= {"mixed-v1-1", identity}
            ),
            "both instances answer",
        )


def test_a_name_that_no_file_knows_may_be_called_by_all(world: Map) -> None:
    pids = world.mesh.pids()
    with registered(world, "brand-new", "mine"):
        for caller in ("a", "b"):
            port = world.proxy(caller)
            until_ok(port, "http://brand-new/x")
            assert ask(port, "http://brand-new/x").json["name"] == "mine"
        wait_until(lambda: world.mesh.call("brand-new/x")["status"] == 200, "the gateway knows it, too")
        assert world.mesh.service("brand-new")["kind"] == "registered"
        assert world.mesh.service("brand-new")["identity"] == "spiffe://registry.mesh/brand-new"
    assert {name: pid for name, pid in world.mesh.pids().items() if name in pids} == pids
    wait_until(lambda: ask(world.proxy("b"), "http://brand-new/x").status == 502, "nobody knows it any more")
    wait_until(lambda: "sidecar.brand-new" not in world.mesh.pids(), "its sidecar is gone")


def test_several_instances_share_the_traffic_of_a_registered_name(world: Map) -> None:
    with registered(world, "pair", "one") as one, registered(world, "pair", "two") as two:
        assert (one, two) == ("pair-ext-1", "pair-ext-2")
        port = world.proxy("b")
        wait_until(
            lambda: {ask(port, "http://pair/").headers.get("x-meshctl-instance") for _ in range(8)} == {one, two},
            "both answer",
        )


def test_registering_the_same_address_again_renews_it(world: Map) -> None:
    with outside(answer_http("mine")) as port:
        words = ("register", "outer", "--address", f"127.0.0.1:{port}", "-o", "json", "--ttl", "60s")
        first, second = (json.loads(world.mesh.must(*words)) for _ in range(2))
        assert first["id"] == second["id"]
        assert second["expires_at"] > first["expires_at"]
        world.mesh.must("deregister", first["id"])


# ---------------------------------------------------------------------------------------------- how long


@contextmanager
def kept_alive(world: Map, ttl: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An instance of outer that a command keeps alive, once it is reached; yields the command and the id."""
    with outside(answer_http("mine")) as own:
        words = ("register", "outer", "--address", f"127.0.0.1:{own}", "--ttl", ttl, "--keep-alive")
        with world.mesh.start(*words) as process:
            try:
                assert process.stdout is not None
                identity = process.stdout.readline().strip()
                until_ok(world.upstream("a", "outer"))
                yield process, identity
            finally:
                process.kill()


def read_expiry(world: Map, identity: str) -> float:
    """When a registration ends unless it is renewed, as it is stored."""
    with closing(sqlite3.connect(world.mesh.paths.database)) as database:
        (body,) = database.execute("SELECT body FROM documents WHERE name = 'registrations'").fetchone()
    found: float = next(item["expires_at"] for item in json.loads(body) if item["id"] == identity)
    return found


def test_an_instance_that_is_not_heard_of_in_time_is_taken_out(world: Map) -> None:
    port = world.upstream("a", "outer")
    with kept_alive(world, "1s") as (keeping, identity):
        # Who keeps it alive has no time to say good-bye.
        keeping.kill()
        wait_until(lambda: identity not in instances(world, "outer"), "it has expired")
        wait_until(lambda: ask(port).status == 503, "its callers know")
        done = world.mesh.run("deregister", identity)
        assert done.code != 0
        assert f"no instance is registered as {identity}" in done.err


def test_keep_alive_renews_again_and_again(world: Map) -> None:
    with kept_alive(world, "6s") as (keeping, identity):
        with Load(world.upstream("a", "outer"), clients=1) as load:
            for _ in range(2):
                before = read_expiry(world, identity)
                wait_until(partial(is_renewed, world, identity, before), "it is renewed")
        assert load.failures == []
        keeping.kill()
        keeping.wait()
        # It may have ended by itself before the command is there.
        world.mesh.run("deregister", identity)
        assert identity not in instances(world, "outer")


def is_renewed(world: Map, identity: str, before: float) -> bool:
    return read_expiry(world, identity) > before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_keep_alive_deregisters_when_it_is_interrupted(world: Map, signum: int) -> None:
    with kept_alive(world, "60s") as (keeping, identity):
        keeping.send_signal(signum)
        _, said = keeping.communicate(timeout=60)
        assert f"deregistered {identity}" in said
        assert keeping.returncode == 128 + signum
        assert identity not in instances(world, "outer")
        assert ask(world.upstream("a", "outer")).status == 503


def test_registrations_outlive_the_control_plane(world: Map) -> None:
    mesh, port = world.mesh, world.upstream("a", "outer")
    with registered(world, "outer", "mine") as identity:
        until_ok(port)
        sidecars = mesh.pids()
        with Load(port) as load:
            load.wait_for_more(20)
            mesh.kill_daemon()
            load.wait_for_more(50)
            mesh.up()
            load.wait_for_more(50)
        assert load.failures == []
        assert mesh.pids() == sidecars
        assert instances(world, "outer")[identity]["health"] == "healthy"


# ---------------------------------------------------------------------------------------------- health


def test_a_registered_instance_that_is_unwell_or_does_not_listen_gets_no_traffic(world: Map) -> None:
    port = world.upstream("a", "checked")
    with ExitStack() as stack:
        well = stack.enter_context(outside(answer_http("well")))
        unwell = stack.enter_context(outside(answer_status(500)))
        silent = free_port()
        ids = [
            world.mesh.must("register", "checked", "--address", f"127.0.0.1:{own}").strip()
            for own in (unwell, silent, well)
        ]
        until_ok(port)
        wait_until(
            lambda: (
                [instances(world, "checked")[name]["health"] for name in ids] == ["unhealthy", "unhealthy", "healthy"]
            ),
            "the mesh knows how they are",
        )
        wait_until(lambda: who_answers(port, 20) == {(200, ids[2])}, "its callers know, too")
        assert who_answers(port, 40) == {(200, ids[2])}
        world.mesh.must("deregister", *ids)


def who_answers(port: int, count: int) -> set[tuple[int, str]]:
    """The statuses of some requests, and the instances that gave them."""
    return {(item.status, item.headers.get("x-meshctl-instance", "")) for item in ask_many(port, "/", count)}


def answer_status(status: int) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            connection.sendall(f"HTTP/1.1 {status} Unwell\r\ncontent-length: 0\r\n\r\n".encode())

    return handle


# ---------------------------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("outer", "--address", "nowhere"), "'nowhere' is no address"),
        (("outer", "--address", "127.0.0.1:0"), "is no address"),
        (("outer", "--address", "127.0.0.1:99999"), "is no address"),
        (("outer", "--address", "somewhere.example:80"), "'somewhere.example' is no IP address"),
        (("Outer", "--address", "127.0.0.1:80"), "'Outer' cannot be a service's name"),
        (("gateway", "--address", "127.0.0.1:80"), "'gateway' cannot be a service's name"),
        (("localhost", "--address", "127.0.0.1:80"), "'localhost' cannot be a service's name"),
        (("outer", "--address", "127.0.0.1:80", "--version", "V!"), "'V!' cannot be a version's name"),
        (("outer", "--address", "127.0.0.1:80", "--ttl", "soon"), "--ttl"),
        (("outer", "--address", "127.0.0.1:80", "--ttl", "10ms"), "--ttl: at least 1s"),
        (("web", "--address", "127.0.0.1:80"), "web lies outside the mesh"),
        (("seed", "--address", "127.0.0.1:80"), "seed is a job"),
    ],
)
def test_what_cannot_be_registered_is_explained(world: Map, words: tuple[str, ...], complaint: str) -> None:
    done: Done = world.mesh.run("register", *words)
    assert done.code != 0
    assert complaint in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
