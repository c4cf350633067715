"""A sidecar that refuses what it is sent: shown in Envoy's words, harmless to what works, and mended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import PATIENT, look, sidecars
from tests.e2e.traffic import ECHO, LAB, Load, Map, api, ask, is_reached, outside, read_map
from tests.support.certificates import Authority

from meshctl.adapters.cert_files import FileAuthority

pytestmark = pytest.mark.e2e

SERVICES: dict[str, Any] = {
    "a": {"command": ECHO, "upstreams": ["b", "c"]},
    "b": {"command": LAB, "retry_policy": {"max_attempts": 1}},
    "c": {"command": LAB},
}
# With no circuit that stays open for half a minute after somebody was out of reach.
TOPOLOGY: dict[str, Any] = {"name": "nack", "defaults": PATIENT, "services": SERVICES}


def states(mesh: MeshUnderTest) -> dict[str, str]:
    """The state of every sidecar."""
    return {item["sidecar"]: item["state"] for item in api(mesh, "/proxies")["proxies"]}


def errors(mesh: MeshUnderTest, sidecar: str) -> dict[str, str]:
    """What a sidecar says of each type that it refused."""
    proxies = api(mesh, "/proxies")["proxies"]
    types = next(item["types"] for item in proxies if item["sidecar"] == sidecar)
    return {item["type"]: item["error"] for item in types if item["state"] == "rejected"}


def complaint(mesh: MeshUnderTest) -> str:
    """What is said of a mesh that does not get ready."""
    done = mesh.run("up", "-d", "--wait", "--wait-timeout", "300ms")
    assert done.code != 0
    return done.err


@contextmanager
def take_port_of(mesh: MeshUnderTest, service: str, port: int) -> Iterator[socket.socket]:
    """Kill a sidecar and listen at one of its ports; whoever would start its successor is held meanwhile."""
    daemon = psutil.Process(look(mesh)["daemon_pid"])
    pid = sidecars(mesh)[service]["pid"]
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def is_taken() -> bool:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True

        daemon.suspend()
        try:
            os.kill(pid, signal.SIGKILL)
            wait_until(is_taken, "the port is free")
            listener.listen()
        finally:
            daemon.resume()
        yield listener


def test_a_port_that_was_taken_is_named_and_the_rest_goes_on(mesh: MeshUnderTest) -> None:
    mesh.write(TOPOLOGY)
    mesh.up()
    world = read_map(mesh)
    port = world.upstream("a", "b")
    with take_port_of(mesh, "a", port):
        error = wait_until(lambda: errors(mesh, "a").get("listeners"), "the listener is refused")
        assert error.startswith("upstream/b: ")
        assert f"cannot bind '127.0.0.1:{port}': Address already in use" in error
        wanted = {"a": "rejected", "b": "synced", "c": "synced", "gateway": "synced"}
        wait_until(lambda: states(mesh) == wanted, "the others have all they should")
        assert f"a: listeners rejected: {error}" in mesh.must("proxy", "status")
        assert mesh.service("a")["sidecar"]["config"] == "rejected"
        assert mesh.service("a")["sidecar"]["config_error"] == error
        assert mesh.status()["state"] == "degraded"
        # Everything else of this sidecar works.
        wait_until(lambda: is_reached(world.upstream("a", "c")), "other upstreams are reached")
        wait_until(lambda: is_reached(world.proxy("a"), "http://b/"), "the same is reached by its name")
        wait_until(lambda: "Address already in use" in complaint(mesh), "`up` says what it is waiting for")
    wait_until(lambda: states(mesh)["a"] == "synced", "it is tried again once the port is free")
    assert ask(port).status == 200


def test_who_takes_an_inbound_port_gets_no_request_without_the_services_identity(
    mesh: MeshUnderTest, tmp_path: Path
) -> None:
    """The caller's sidecar wants the identity of the service, whoever listens where it should be."""
    mesh.write(TOPOLOGY)
    mesh.up()
    world = read_map(mesh)
    inbound = world.instance("b-v1-1")["inbound_port"]
    shutil.copytree(f"{mesh.paths.ca}/nack.mesh", tmp_path / "ca")
    authority = FileAuthority(str(tmp_path / "ca"), mesh="nack", trust_domain="nack.mesh")
    with take_port_of(mesh, "b", inbound) as listener:
        assert take_request(world, listener, authority, "c", tmp_path) == b""
        # The same, with the right certificate: the request is sent, unless the handshake took longer than callers wait.
        wait_until(
            lambda: take_request(world, listener, authority, "b", tmp_path).startswith(b"PRI * HTTP/2.0"),
            "the request is sent",
        )
    wait_until(lambda: is_reached(world.upstream("a", "b")), "b's own sidecar listens again")


def take_request(world: Map, listener: socket.socket, authority: FileAuthority, identity: str, folder: Path) -> bytes:
    """What a server with a service's certificate gets to read when ``a`` calls ``b``."""
    leaf = authority.leaf(identity)
    assert leaf is not None
    pair = folder / f"{identity}.pem"
    pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.set_alpn_protocols(["h2"])
    read: list[bytes] = []
    accepted = threading.Event()

    def serve() -> None:
        plain, _ = listener.accept()
        accepted.set()
        plain.settimeout(60)
        try:
            with context.wrap_socket(plain, server_side=True) as secure:
                read.append(secure.recv(1000))
        except OSError:
            return  # the caller broke the handshake off

    def is_asked() -> bool:
        assert ask(world.upstream("a", "b")).status == 503
        return accepted.is_set()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    # While its sidecar is new b may pass for unwell, and nobody connects to it.
    wait_until(is_asked, "the caller's sidecar connects")
    server.join(60)
    return b"".join(read)


def test_a_refused_cluster_leaves_what_was_there_and_is_taken_once_it_can_be(
    mesh: MeshUnderTest, tmp_path: Path
) -> None:
    roots = Authority(tmp_path, "trusted").path
    good = roots.read_text()
    mesh.environ["SSL_CERT_FILE"] = str(roots)
    mesh.write(TOPOLOGY)
    mesh.up()
    world = read_map(mesh)
    pids = mesh.pids()
    with Load(world.upstream("a", "b")) as load, outside(lambda _: None) as port:
        # Only the sidecar reads this file: the topology is as good as before.
        roots.write_text("no certificates")
        external = {"vault": {"address": f"https://localhost:{port}"}}
        mesh.write(TOPOLOGY | {"services": SERVICES | external})
        words = (
            "external/vault: Error adding/updating cluster(s) external/vault: "
            f"Failed to load trusted CA certificates from {roots}"
        )
        wait_until(lambda: f"gateway: configuration rejected: {words}" in complaint(mesh), "the cluster is refused")
        wait_until(lambda: errors(mesh, "gateway") == {"clusters": words}, "it is refused again")
        assert states(mesh) == {"a": "synced", "b": "synced", "c": "synced", "gateway": "rejected"}
        assert mesh.call("b/")["status"] == 200
        load.wait_for_more(20)
        roots.write_text(good)
        mesh.up()
        assert set(states(mesh).values()) == {"synced"}
        mesh.write(TOPOLOGY)
        mesh.up()
        assert set(states(mesh).values()) == {"synced"}
        load.wait_for_more(20)
    assert load.failures == []
    assert mesh.pids() == pids
