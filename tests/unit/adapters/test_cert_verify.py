"""What verification finds, and that real TLS peers agree with it at every step of a rotation."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.cert_verify import describe_duration, verify_chain, verify_root
from meshctl.adapters.clock import SystemClock
from meshctl.identity.rotation import LEAF_LIFETIME, ROOT_LIFETIME
from meshctl.ports import LeafCertificate, RootCertificate

NOW = 1_800_000_000.0


@pytest.fixture
def authority(tmp_path: Path) -> FileAuthority:
    return FileAuthority(str(tmp_path / "ca"), mesh="shop", trust_domain="shop.local")


def test_a_good_leaf_is_one_finding_that_says_what_it_is(authority: FileAuthority) -> None:
    root = authority.ensure_root(NOW)
    leaf = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    (finding,) = verify_chain(leaf, authority.roots(), NOW + 3600)
    assert (finding.name, finding.ok) == ("web", True)
    assert finding.message == f"spiffe://shop.local/web, signed by root {root.serial[:8]}, valid for another 23 h"


def test_a_leaf_of_a_root_that_is_not_trusted_is_found(authority: FileAuthority, tmp_path: Path) -> None:
    authority.ensure_root(NOW)
    other = FileAuthority(str(tmp_path / "other"), mesh="shop", trust_domain="shop.local")
    other.ensure_root(NOW)
    leaf = other.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    (finding,) = verify_chain(leaf, authority.roots(), NOW)
    assert not finding.ok
    assert "no trusted root vouches for it" in finding.message
    (finding,) = verify_chain(leaf, (), NOW)
    assert finding.message == "there is no root to trust"


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (NOW - 120, "it is not valid for another 60 s"),
        (NOW + LEAF_LIFETIME + 7200, "it expired 2 h ago"),
    ],
)
def test_a_leaf_outside_its_validity_is_found(authority: FileAuthority, now: float, message: str) -> None:
    authority.ensure_root(NOW)
    leaf = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    (finding,) = verify_chain(leaf, authority.roots(), now)
    assert (finding.ok, finding.message) == (False, message)


def test_another_identity_and_another_key_are_found(authority: FileAuthority) -> None:
    authority.ensure_root(NOW)
    web = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    orders = authority.issue("orders", now=NOW, lifetime=LEAF_LIFETIME)
    (finding,) = verify_chain(replace(web, spiffe_id=orders.spiffe_id), authority.roots(), NOW)
    assert finding.message == f"its identity is {web.spiffe_id} instead of {orders.spiffe_id}"
    (finding,) = verify_chain(replace(web, private_key_pem=orders.private_key_pem), authority.roots(), NOW)
    assert finding.message == "its certificate is bad: its private key is not that of its certificate"


def test_roots_are_checked_for_what_a_root_must_be(authority: FileAuthority) -> None:
    root = authority.ensure_root(NOW)
    leaf = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)

    def verify(subject: RootCertificate, trust_domain: str = "shop.local", now: float = NOW) -> list[str]:
        findings = verify_root(subject, trust_domain=trust_domain, now=now)
        assert len({finding.ok for finding in findings}) == 1
        return [f"{'ok' if finding.ok else 'bad'}: {finding.message}" for finding in findings]

    assert verify(root) == ["ok: signs, valid for another 3650 days"]
    assert verify(root, "other") == ["bad: its identity is spiffe://shop.local instead of spiffe://other"]
    assert verify(root, now=root.not_after + 60) == ["bad: it expired 60 s ago"]
    assert verify(replace(root, certificate_pem=b"none")) == [
        "bad: it cannot be read as a root: it holds no certificate that can be read"
    ]
    assert verify(replace(root, certificate_pem=leaf.certificate_pem)) == [
        "bad: it has not signed itself",
        "bad: it may not sign certificates",
        "bad: its identity is spiffe://shop.local/web instead of spiffe://shop.local",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (86400, "24 h"), (172800, "2 days")],
)
def test_durations_are_said_in_the_unit_that_a_person_would_take(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text


# ---------------------------------------------------------------------------------------------- real handshakes


def make_context(
    purpose: int, leaf: LeafCertificate, roots: tuple[RootCertificate, ...], folder: Path
) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata="".join(root.certificate_pem.decode() for root in roots))
    pair = folder / f"{leaf.serial}.pem"
    pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
    context.load_cert_chain(pair)
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A TLS handshake in memory in which both ends show certificates. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    # In TLS 1.3 the client is done before the server has judged its certificate: reading tells.
    ends[1].write(b"ok")
    assert ends[0].read(2) == b"ok"


def test_peers_shake_hands_at_every_step_of_a_root_rotation_whichever_step_each_is_at(tmp_path: Path) -> None:
    now = SystemClock().now()
    authority = FileAuthority(str(tmp_path / "ca"), mesh="shop", trust_domain="shop.local")
    old = authority.ensure_root(now)

    def configure() -> tuple[LeafCertificate, tuple[RootCertificate, ...]]:
        return authority.issue("web", now=now, lifetime=LEAF_LIFETIME), authority.roots()

    stages = [configure()]
    new = authority.add_root(now=now, lifetime=ROOT_LIFETIME)
    stages.append((stages[0][0], authority.roots()))
    authority.activate_root(new.serial)
    stages.append(configure())
    leaf = stages[-1][0]
    authority.drop_root(old.serial)
    stages.append((leaf, authority.roots()))

    def pair(one: int, other: int) -> None:
        client = make_context(ssl.PROTOCOL_TLS_CLIENT, *stages[one], tmp_path)
        server = make_context(ssl.PROTOCOL_TLS_SERVER, *stages[other], tmp_path)
        shake_hands(client, server)

    # A step begins when every peer has finished the one before: two peers are at most one step apart.
    for one in range(4):
        for other in range(4):
            if abs(one - other) <= 1:
                pair(one, other)
    # Two steps apart they would not trust each other, which is why each step awaits every acknowledgement.
    for one, other in ((0, 2), (1, 3), (0, 3)):
        with pytest.raises(ssl.SSLError, match=r"verify failed|unknown ca"):
            pair(one, other)
