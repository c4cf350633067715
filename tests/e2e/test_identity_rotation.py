"""Certificates change under load and nobody notices: leafs, roots, short lives; and what ``certs`` says of them."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import ECHO, LAB, TCP, Load, Map, admin, api, read_map, running

from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.clock import SystemClock
from meshctl.identity.rotation import BACKDATING
from meshctl.identity.served import read_served_serials

pytestmark = pytest.mark.e2e

TOPOLOGY = {
    "name": "certs",
    "services": {
        "a": {"command": ECHO, "upstreams": ["b", "t"]},
        "b": {"command": LAB},
        "t": {"command": TCP, "protocol": "tcp"},
    },
}
NODES = {"a", "b", "t", "gateway"}


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    with running(TOPOLOGY) as mesh:
        yield read_map(mesh)


class Handshakes:
    """Steady TCP connections, each of which is a new mTLS handshake between two sidecars."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.failures: list[str] = []
        self._port = port
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def wait_for_more(self, count: int) -> None:
        """Return when so many more connections have been made, or failed."""
        goal = self.count + count
        wait_until(lambda: self.count >= goal, f"{count} more connections")

    def _work(self) -> None:
        while not self._done.wait(0.01):
            try:
                with socket.create_connection(("127.0.0.1", self._port), 60) as connection:
                    if connection.recv(100) != b"t-v1-1\n":
                        self.failures.append("the connection was closed")
            except OSError as error:
                self.failures.append(repr(error))
            self.count += 1


def certificates(mesh: MeshUnderTest, kind: str) -> dict[str, dict[str, Any]]:
    """The certificates of a kind by name, as ``certs list -o json`` prints them."""
    return {item["name"]: item for item in api(mesh, "/certificates")["certificates"] if item["kind"] == kind}


def served_serials(world: Map, service: str) -> frozenset[str]:
    return frozenset(read_served_serials(admin(world.services[service]["sidecar"]["admin_socket"], "/certs")))


def trusted_serials(mesh: MeshUnderTest, service: str) -> set[str]:
    """The serials of the roots that a sidecar has, as its own dump says."""
    dump = api(mesh, f"/proxies/{service}/secrets")["resources"]
    # Of a service that speaks plain TCP the roots come with the list of those who may connect.
    roots = next(item["secret"] for item in dump if item["name"] in ("roots", "peers"))
    pem = base64.b64decode(roots["validation_context"]["trusted_ca"]["inline_bytes"])
    return {f"{item.serial_number:032x}" for item in x509.load_pem_x509_certificates(pem)}


def trusts(mesh: MeshUnderTest, service: str, serials: set[str]) -> bool:
    return trusted_serials(mesh, service) == serials


def test_rotating_one_leaf_loses_no_request_and_touches_no_other(world: Map) -> None:
    before = certificates(world.mesh, "leaf")
    assert set(before) == NODES
    with Load(world.upstream("a", "b")) as load, Handshakes(world.upstream("a", "t")) as handshakes:
        load.wait_for_more(50)
        handshakes.wait_for_more(10)
        world.mesh.must("certs", "rotate", "t")
        load.wait_for_more(50)
        handshakes.wait_for_more(10)
    after = certificates(world.mesh, "leaf")
    assert {name for name in NODES if after[name]["serial"] != before[name]["serial"]} == {"t"}
    assert served_serials(world, "t") == {after["t"]["serial"]}
    assert (load.failures, handshakes.failures) == ([], [])


def test_rotating_the_root_loses_no_request_and_leaves_no_trace_of_the_old_one(world: Map) -> None:
    mesh = world.mesh
    (old,) = certificates(mesh, "root").values()
    leaves = certificates(mesh, "leaf")
    with Load(world.upstream("a", "b")) as load, Handshakes(world.upstream("a", "t")) as handshakes:
        rotation = mesh.start("certs", "rotate", "--root", "--yes")
        try:
            both = wait_until(
                lambda: len(found := certificates(mesh, "root")) == 2 and {item["serial"] for item in found.values()},
                "both roots are trusted",
            )
            for service in ("a", "b", "t"):
                wait_until(partial(trusts, mesh, service, both), f"{service} trusts both")
            _, complaint = rotation.communicate(timeout=60)
            assert rotation.returncode == 0, complaint
        finally:
            rotation.kill()
            rotation.wait()
        load.wait_for_more(50)
        handshakes.wait_for_more(10)
    assert (load.failures, handshakes.failures) == ([], [])
    (new,) = certificates(mesh, "root").values()
    assert both == {old["serial"], new["serial"]}
    assert new["active"]
    after = certificates(mesh, "leaf")
    assert {item["issuer_serial"] for item in after.values()} == {new["serial"]}
    assert not {item["serial"] for item in after.values()} & {item["serial"] for item in leaves.values()}
    for service in ("a", "b", "t"):
        assert trusted_serials(mesh, service) == {new["serial"]}
        assert served_serials(world, service) == {after[service]["serial"]}
    assert not any(old["serial"] in path.name for path in Path(mesh.paths.ca).rglob("*"))
    assert mesh.must("certs", "verify")


def test_show_prints_what_a_certificate_holds(world: Map) -> None:
    listed = json.loads(world.mesh.must("certs", "list", "-o", "json"))["certificates"]
    (leaf,) = (item for item in listed if (item["kind"], item["name"]) == ("leaf", "b"))
    assert leaf == certificates(world.mesh, "leaf")["b"]
    text = world.mesh.must("certs", "show", "b")
    assert "spiffe://certs.mesh/b" in text
    assert leaf["serial"] in text.replace(":", "").lower()
    chain = x509.load_pem_x509_certificates(world.mesh.must("certs", "show", "b", "--pem").encode())
    assert [f"{item.serial_number:032x}" for item in chain] == [leaf["serial"], leaf["issuer_serial"]]
    root = json.loads(world.mesh.must("certs", "show", "root", "-o", "json"))
    assert (root["kind"], root["serial"]) == ("root", leaf["issuer_serial"])


def test_show_of_an_unknown_certificate_names_those_there_are(world: Map) -> None:
    done = world.mesh.run("certs", "show", "nobody")
    assert done.code != 0
    assert "there is no certificate nobody" in done.err


# ---------------------------------------------------------------------------------------------- verify


def findings(mesh: MeshUnderTest) -> tuple[int, dict[str, str]]:
    """The exit code of ``certs verify``, and its failed checks: name -> message."""
    done = mesh.run("certs", "verify", "-o", "json")
    report = json.loads(done.out)
    assert report["ok"] == (done.code == 0)
    return done.code, {item["name"]: item["message"] for item in report["checks"] if not item["ok"]}


@pytest.fixture
def leaf_file(world: Map) -> Iterator[Path]:
    """The file of one service's certificate; put back afterwards."""
    path = Path(world.mesh.paths.ca) / "certs.mesh" / "leafs" / "b.pem"
    kept, mode = path.read_bytes(), path.stat().st_mode
    yield path
    path.write_bytes(kept)
    path.chmod(mode)
    assert findings(world.mesh) == (0, {})


def test_verify_finds_nothing_wrong_with_a_new_mesh(world: Map) -> None:
    assert findings(world.mesh) == (0, {})


def test_verify_finds_a_damaged_certificate(world: Map, leaf_file: Path) -> None:
    text = leaf_file.read_text().splitlines()
    text[2] = text[2][::-1]
    leaf_file.write_text("\n".join(text))
    code, failed = findings(world.mesh)
    assert (code, set(failed)) == (1, {"b"})
    assert "its certificate is bad" in failed["b"]


def test_verify_finds_the_certificate_of_another_service(world: Map, leaf_file: Path) -> None:
    leaf_file.write_bytes((leaf_file.parent / "a.pem").read_bytes())
    code, failed = findings(world.mesh)
    assert (code, set(failed)) == (1, {"b"})
    assert "it is not for spiffe://certs.mesh/b" in failed["b"]


def test_verify_finds_a_key_that_others_can_read(world: Map, leaf_file: Path) -> None:
    leaf_file.chmod(0o644)
    code, failed = findings(world.mesh)
    assert (code, set(failed)) == (1, {"files"})
    assert str(leaf_file) in failed["files"]


def test_verify_finds_an_expired_certificate(world: Map, leaf_file: Path, tmp_path: Path) -> None:
    shutil.copytree(leaf_file.parents[1], tmp_path / "ca")
    copy = FileAuthority(str(tmp_path / "ca"), mesh="certs", trust_domain="certs.mesh")
    copy.issue("b", now=SystemClock().now() - 10, lifetime=5)
    leaf_file.write_bytes((tmp_path / "ca" / "leafs" / "b.pem").read_bytes())
    code, failed = findings(world.mesh)
    assert (code, set(failed)) == (1, {"b"})
    assert "expired" in failed["b"]


# ---------------------------------------------------------------------------------------------- short lives


def test_short_lived_certificates_renew_themselves_in_time() -> None:
    lifetime = 20.0
    with running(TOPOLOGY, MESHCTL_LEAF_LIFETIME=f"{lifetime:g}s") as mesh:
        world = read_map(mesh)
        first = certificates(mesh, "leaf")
        for leaf in first.values():
            assert leaf["not_after"] - leaf["not_before"] - BACKDATING == pytest.approx(lifetime, abs=1.5)
        renewed: dict[str, dict[str, Any]] = {}

        def all_are_renewed() -> bool:
            for name, leaf in certificates(mesh, "leaf").items():
                if leaf["serial"] != first[name]["serial"]:
                    renewed.setdefault(name, leaf)
            return set(renewed) == NODES

        with Load(world.upstream("a", "b")) as load, Handshakes(world.upstream("a", "t")) as handshakes:
            wait_until(all_are_renewed, "every certificate was renewed")
            load.wait_for_more(20)
            handshakes.wait_for_more(10)
        assert (load.failures, handshakes.failures) == ([], [])
        for name in NODES:
            renewed_after = renewed[name]["not_before"] - first[name]["not_before"]
            # At two thirds at the latest, but on a machine that stands still for a while.
            assert lifetime * 0.4 < renewed_after < lifetime
        wait_until(lambda: findings(mesh) == (0, {}), "every sidecar serves what was issued")


def test_a_lifetime_that_cannot_be_is_refused(tmp_path: Path) -> None:
    mesh = MeshUnderTest(tmp_path)
    mesh.write(TOPOLOGY)
    mesh.environ |= {"MESHCTL_LEAF_LIFETIME": "1s"}
    done = mesh.run("up", "-d")
    assert done.code != 0
    assert "MESHCTL_LEAF_LIFETIME is 1s: at least 10s are needed" in done.err
    assert mesh.processes() == []
