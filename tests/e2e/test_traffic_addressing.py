"""How a service finds what it calls: by host name, by URL, outside the mesh, and what it is told when it does not."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.traffic import (
    ECHO,
    LAB,
    PATIENT,
    TCP,
    Answer,
    Map,
    answer_http,
    ask,
    free_port,
    outside,
    read_map,
    running,
)
from tests.support.certificates import Authority

pytestmark = pytest.mark.e2e


UPSTREAMS = ["b", "forged", "gift-cards", "gone", "misnamed", "secure", "secure-ip", "shout", "t", "web"]


@dataclass(frozen=True, slots=True)
class World:
    """A mesh, and the ports of servers around it by name."""

    map: Map
    outside: dict[str, int]

    def ask(self, path: str) -> Answer:
        """A request of ``a`` through its proxy."""
        return ask(self.map.proxy("a"), path)

    def upstream(self, name: str) -> int:
        return self.map.upstream("a", name)


def over_tls(context: ssl.SSLContext, handler: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            handler(secure)

    return handle


def shout(connection: socket.socket) -> None:
    while block := connection.recv(1 << 16):
        connection.sendall(block.upper())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("outside")
    authority, stranger = Authority(folder, "trusted"), Authority(folder, "stranger")
    trusted = authority.server_context("localhost", "127.0.0.1")
    misnamed = authority.server_context("elsewhere.example")
    forged = stranger.server_context("localhost", "127.0.0.1")
    with ExitStack() as stack:
        ports = {
            "http": stack.enter_context(outside(answer_http("http"))),
            "https": stack.enter_context(outside(over_tls(trusted, answer_http("https")))),
            "misnamed": stack.enter_context(outside(over_tls(misnamed, answer_http("misnamed")))),
            "forged": stack.enter_context(outside(over_tls(forged, answer_http("forged")))),
            "tcp": stack.enter_context(outside(shout)),
            "closed": free_port(),
        }
        topology = {
            "name": "addr",
            "defaults": PATIENT,
            "services": {
                "a": {
                    "command": ECHO,
                    "upstreams": UPSTREAMS,
                },
                "b": {"command": LAB},
                "gift-cards": {"command": LAB},
                "t": {"command": TCP, "protocol": "tcp"},
                "hidden": {"command": LAB, "upstreams": ["b"]},
                "web": {"address": f"localhost:{ports['http']}"},
                "secure": {"address": f"https://localhost:{ports['https']}"},
                "secure-ip": {"address": f"https://127.0.0.1:{ports['https']}"},
                "forged": {"address": f"https://localhost:{ports['forged']}"},
                "misnamed": {"address": f"https://localhost:{ports['misnamed']}"},
                "shout": {"address": f"127.0.0.1:{ports['tcp']}", "protocol": "tcp"},
                "gone": {"address": f"127.0.0.1:{ports['closed']}", "retry_policy": {"max_attempts": 1}},
            },
        }
        with running(topology, SSL_CERT_FILE=str(authority.path)) as mesh:
            yield World(read_map(mesh), ports)


@pytest.mark.parametrize("host", ["b", "b:80", "b:8080", "gift-cards"])
def test_a_service_is_reached_by_its_name_through_the_proxy(world: World, host: str) -> None:
    answer = world.ask(f"http://{host}/x?y=1")
    assert answer.status == 200
    assert answer.json["instance"] == f"{host.partition(':')[0]}-v1-1"
    assert answer.json["path"] == "/x?y=1"
    assert answer.json["headers"]["host"] == host


def test_a_client_that_heeds_http_proxy_needs_no_change(world: World) -> None:
    said = ask(world.map.own("a-v1-1"), "/proxy/b/x").json["said"]
    assert said["status"] == 200
    assert '"instance": "b-v1-1"' in said["body"]


def test_a_service_is_reached_by_its_url_whatever_the_host(world: World) -> None:
    answer = ask(world.upstream("b"), "/x", headers={"host": "nonsense.example"})
    assert (answer.status, answer.json["instance"]) == (200, "b-v1-1")


def test_every_answer_names_instance_and_version(world: World) -> None:
    headers = ask(world.upstream("b")).headers
    assert (headers["x-meshctl-instance"], headers["x-meshctl-version"]) == ("b-v1-1", "v1")


@pytest.mark.parametrize("host", ["nope", "nope:8080"])
def test_an_unknown_host_is_answered_with_the_upstreams_there_are(world: World, host: str) -> None:
    answer = world.ask(f"http://{host}/")
    assert answer.status == 502
    assert answer.text.startswith(f'meshctl: a has no upstream "{host}". Its upstreams: {", ".join(UPSTREAMS)}. ')
    assert "services.a.upstreams" in answer.text


def test_a_service_that_is_not_declared_cannot_be_called(world: World) -> None:
    answer = world.ask("http://hidden/")
    assert answer.status == 502
    assert 'a has no upstream "hidden"' in answer.text
    answer = ask(world.map.proxy("hidden"), "http://gift-cards/")
    assert answer.status == 502
    assert "Its upstreams: b." in answer.text


def test_a_tcp_service_called_by_host_name_is_explained(world: World) -> None:
    answer = world.ask("http://t/")
    assert answer.status == 502
    assert "$T_HOST and $T_PORT" in answer.text


def test_any_host_outside_is_reached_through_the_proxy(world: World) -> None:
    port = world.outside["http"]
    answer = world.ask(f"http://127.0.0.1:{port}/x")
    assert (answer.status, answer.json) == (200, {"name": "http", "host": f"127.0.0.1:{port}", "path": "/x"})


def test_localhost_is_no_service_but_outside(world: World) -> None:
    answer = world.ask(f"http://localhost:{world.outside['http']}/x")
    assert (answer.status, answer.json["name"]) == (200, "http")


def test_an_external_service_is_reached_by_name_and_by_url(world: World) -> None:
    want = {"name": "http", "host": f"localhost:{world.outside['http']}", "path": "/x"}
    assert world.ask("http://web/x").json == want
    assert ask(world.upstream("web"), "/x").json == want


@pytest.mark.parametrize("name", ["secure", "secure-ip"])
def test_tls_to_an_external_service_is_verified(world: World, name: str) -> None:
    answer = ask(world.upstream(name), "/x")
    assert (answer.status, answer.json["name"]) == (200, "https")


@pytest.mark.parametrize(("name", "why"), [("forged", "fail_verify_error"), ("misnamed", "fail_verify_san")])
def test_an_external_service_that_cannot_prove_its_name_is_refused(world: World, name: str, why: str) -> None:
    assert ask(world.upstream(name)).status == 503
    assert world.map.stats("a")[f"cluster.external/{name}.ssl.{why}"] > 0


def test_an_external_tcp_service_is_reached(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.upstream("shout")), 60) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"HELLO"


def test_an_external_service_that_is_down_is_answered_for(world: World) -> None:
    assert ask(world.upstream("gone")).status == 503


def test_registry_only_refuses_the_outside_and_no_service() -> None:
    topology = {
        "name": "closed",
        "egress": "registry_only",
        "defaults": PATIENT,
        "services": {"a": {"command": ECHO, "upstreams": ["b"]}, "b": {"command": LAB}},
    }
    with outside(answer_http("http")) as port, running(topology) as mesh:
        proxy = mesh.service("a")["sidecar"]["outbound_port"]
        assert ask(proxy, "http://b/").status == 200
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "example.com"):
            answer = ask(proxy, f"http://{host}/")
            assert answer.status == 502
            assert f'a has no upstream "{host}". Its upstreams: b.' in answer.text
        # What the file says is followed without a restart.
        pids = mesh.pids()
        mesh.write(topology | {"egress": "allow_any"})
        mesh.up()
        assert ask(proxy, f"http://127.0.0.1:{port}/").status == 200
        assert mesh.pids() == pids
