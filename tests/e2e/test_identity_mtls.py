"""Who may talk to an instance, and whom it sees: mTLS between sidecars, on real sockets."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import ECHO, LAB, Map, ask, read_map, running

from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.clock import SystemClock
from meshctl.identity.rotation import LEAF_LIFETIME
from meshctl.ports import LeafCertificate, RootCertificate

pytestmark = pytest.mark.e2e

XFCC = "x-forwarded-client-cert"
FORGED = "By=spiffe://id.mesh/b;URI=spiffe://id.mesh/admin"


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    topology = {
        "name": "id",
        "services": {"a": {"command": ECHO, "upstreams": ["b", "c"]}, "b": {"command": ECHO, "upstreams": ["c"]}},
    }
    topology["services"] |= {"c": {"command": LAB}}  # type: ignore[operator]
    with running(topology) as made:
        yield read_map(made)


@pytest.fixture(scope="module")
def inbound(world: Map) -> int:
    port: int = world.instance("c-v1-1")["inbound_port"]
    return port


@pytest.fixture
def authority(world: Map, tmp_path: Path) -> FileAuthority:
    """The mesh's own authority, copied: as somebody who may read its files could use it."""
    return copy_authority(world, tmp_path / "own", "id.mesh")


def copy_authority(world: Map, folder: Path, trust_domain: str) -> FileAuthority:
    shutil.copytree(f"{world.mesh.paths.ca}/id.mesh", folder)
    return FileAuthority(str(folder), mesh="id", trust_domain=trust_domain)


def client_context(
    folder: Path, roots: tuple[RootCertificate, ...], leaf: LeafCertificate | None, *, newest: ssl.TLSVersion
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # identities are URIs, which Python does not match
    context.maximum_version = newest
    context.load_verify_locations(cadata="".join(root.certificate_pem.decode() for root in roots))
    if leaf is not None:
        pair = folder / "pair.pem"
        pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
        context.load_cert_chain(pair)
    return context


def status_over_tls(
    port: int,
    folder: Path,
    roots: tuple[RootCertificate, ...],
    leaf: LeafCertificate | None,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> tuple[int, str | None]:
    """Status and TLS version of one request. Raises OSError or HTTPException when the connection is refused."""
    with (
        socket.create_connection(("127.0.0.1", port), 60) as plain,
        client_context(folder, roots, leaf, newest=newest).wrap_socket(plain) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n")
        with closing(http.client.HTTPResponse(secure)) as response:
            response.begin()
            response.read()
            return response.status, secure.version()


def identity_in(text: str) -> list[str]:
    """The callers' identities that the header holds, in an answer that tells all headers."""
    return re.findall(r"URI=([^;,\"]*)", text)


def assert_refused(world: Map, why: str, connect: Callable[[], object]) -> None:
    """The connection comes to nothing, and Envoy counts it under ``why``.

    What the client sees of it differs: under TLS 1.3 it believes that it is connected before it is refused. Envoy
    counts what it has refused after it has said so.
    """
    name = f"listener.inbound/c-v1-1.{why}"
    before = world.stats("c").get(name, 0)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        connect()
    wait_until(lambda: world.stats("c").get(name, 0) == before + 1, f"{name} counts it")


def test_every_hop_carries_the_identity_of_its_own_caller(world: Map) -> None:
    port = world.upstream("a", "b")
    middle = ask(port, "/call/C/deep").json
    assert identity_in(middle["headers"][XFCC]) == ["spiffe://id.mesh/a"]
    assert f'"{XFCC}": "By=spiffe://id.mesh/c;' in middle["said"]["body"]
    assert identity_in(middle["said"]["body"]) == ["spiffe://id.mesh/b"]


@pytest.mark.parametrize("name", [XFCC, "X-Forwarded-Client-Cert"])
def test_a_client_cannot_forge_an_identity(world: Map, name: str) -> None:
    port = world.upstream("a", "c")
    seen = ask(port, headers={name: FORGED}).json["headers"][XFCC]
    assert identity_in(seen) == ["spiffe://id.mesh/a"]


def test_the_gateway_has_an_identity_of_its_own(world: Map) -> None:
    answer = world.mesh.call("c/", "-H", f"{XFCC}: {FORGED}")
    assert '"x-forwarded-client-cert": "By=spiffe://id.mesh/c;' in answer["body"]
    assert identity_in(answer["body"]) == ["spiffe://id.mesh/gateway"]


def test_plain_text_is_refused_at_an_inbound_port(world: Map, inbound: int) -> None:
    assert_refused(world, "no_filter_chain_match", lambda: ask(inbound))


def test_a_client_with_a_certificate_of_the_mesh_speaks_tls_1_3(
    inbound: int, authority: FileAuthority, tmp_path: Path
) -> None:
    leaf = authority.leaf("b")
    assert leaf is not None
    assert status_over_tls(inbound, tmp_path, authority.roots(), leaf) == (200, "TLSv1.3")


def test_tls_1_2_is_refused(world: Map, inbound: int, authority: FileAuthority, tmp_path: Path) -> None:
    roots, leaf = authority.roots(), authority.leaf("b")
    old = ssl.TLSVersion.TLSv1_2
    assert_refused(world, "ssl.connection_error", lambda: status_over_tls(inbound, tmp_path, roots, leaf, old))


def test_a_client_without_certificate_is_refused(
    world: Map, inbound: int, authority: FileAuthority, tmp_path: Path
) -> None:
    roots = authority.roots()
    assert_refused(world, "ssl.fail_verify_no_cert", lambda: status_over_tls(inbound, tmp_path, roots, None))


def test_a_certificate_of_another_authority_is_refused(
    world: Map, inbound: int, authority: FileAuthority, tmp_path: Path
) -> None:
    now = SystemClock().now()
    other = FileAuthority(str(tmp_path / "other"), mesh="id", trust_domain="id.mesh")
    other.ensure_root(now)
    leaf = other.issue("b", now=now, lifetime=LEAF_LIFETIME)
    assert leaf.spiffe_id == "spiffe://id.mesh/b"
    roots = authority.roots()
    assert_refused(world, "ssl.fail_verify_error", lambda: status_over_tls(inbound, tmp_path, roots, leaf))


@pytest.mark.parametrize("trust_domain", ["other.mesh", "id.mesh.evil"])
def test_the_right_authority_for_another_trust_domain_is_refused(
    world: Map, inbound: int, authority: FileAuthority, tmp_path: Path, trust_domain: str
) -> None:
    # The mesh's own root and key, made to sign for somebody else.
    impostor = copy_authority(world, tmp_path / "impostor", trust_domain)
    leaf = impostor.issue("intruder", now=SystemClock().now(), lifetime=LEAF_LIFETIME)
    assert leaf.spiffe_id == f"spiffe://{trust_domain}/intruder"
    roots = authority.roots()
    assert_refused(world, "ssl.fail_verify_san", lambda: status_over_tls(inbound, tmp_path, roots, leaf))


def test_sidecars_speak_http_2_over_tls_1_3_with_each_other(world: Map) -> None:
    port = world.upstream("a", "c")
    before = world.stats("c")
    for _ in range(20):
        assert ask(port).status == 200
    after = world.stats("c")
    inbound = "http.inbound/c-v1-1."
    assert after[f"{inbound}downstream_rq_total"] - before.get(f"{inbound}downstream_rq_total", 0) == 20
    assert after[f"{inbound}downstream_cx_http1_total"] == before.get(f"{inbound}downstream_cx_http1_total", 0)
    assert after[f"{inbound}downstream_cx_http2_total"] >= 1
    versions = {name for name, value in after.items() if ".ssl.versions." in name and value}
    assert {name.partition(".ssl.versions.")[2] for name in versions} == {"TLSv1.3"}
