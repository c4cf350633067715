"""What every CertificateAuthority does: the one in files and the fake."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes.certificate_authority import FakeAuthority

from meshctl.adapters.cert_files import FileAuthority
from meshctl.errors import MeshctlError
from meshctl.identity.rotation import LEAF_LIFETIME, ROOT_LIFETIME, recover
from meshctl.ports import CertificateAuthority

NOW = 1_800_000_000.25
DAY = 24 * 3600.0


@pytest.fixture(params=["files", "fake"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> CertificateAuthority:
    if request.param == "fake":
        return FakeAuthority("shop.local")
    return FileAuthority(str(tmp_path / "ca"), mesh="shop", trust_domain="shop.local")


def test_a_new_authority_has_no_root_and_cannot_issue(authority: CertificateAuthority) -> None:
    assert authority.roots() == ()
    assert authority.leaf("web") is None
    with pytest.raises(MeshctlError, match="no root to sign with"):
        authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)


def test_ensuring_a_root_makes_one_that_is_active_and_then_keeps_it(authority: CertificateAuthority) -> None:
    made = authority.ensure_root(NOW)
    assert made.active
    assert authority.ensure_root(NOW + DAY) == made
    assert authority.roots() == (made,)
    assert made.not_before == pytest.approx(NOW - 60, abs=1)
    assert made.not_after == pytest.approx(NOW + ROOT_LIFETIME, abs=1)


def test_an_expired_root_is_replaced_and_stays_trusted_until_it_is_dropped(authority: CertificateAuthority) -> None:
    old = authority.ensure_root(NOW)
    later = old.not_after + DAY
    new = authority.ensure_root(later)
    assert new.serial != old.serial
    assert [(root.serial, root.active) for root in authority.roots()] == [(old.serial, False), (new.serial, True)]
    assert recover(authority.roots()).phase == "switched"


def test_a_leaf_holds_the_identity_the_issuer_and_the_lifetime(authority: CertificateAuthority) -> None:
    root = authority.ensure_root(NOW)
    leaf = authority.issue("web", now=NOW + DAY, lifetime=LEAF_LIFETIME)
    assert (leaf.service, leaf.spiffe_id, leaf.issuer_serial) == ("web", "spiffe://shop.local/web", root.serial)
    assert leaf.not_before == pytest.approx(NOW + DAY - 60, abs=1)
    assert leaf.not_after == pytest.approx(NOW + DAY + LEAF_LIFETIME, abs=1)
    assert authority.leaf("web") == leaf


def test_issuing_again_replaces_the_leaf_by_one_with_another_serial_and_key(authority: CertificateAuthority) -> None:
    authority.ensure_root(NOW)
    first = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    second = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    assert first.serial != second.serial
    assert first.private_key_pem != second.private_key_pem
    assert authority.leaf("web") == second


def test_a_leaf_never_outlives_its_root(authority: CertificateAuthority) -> None:
    root = authority.ensure_root(NOW)
    leaf = authority.issue("web", now=root.not_after - 100, lifetime=LEAF_LIFETIME)
    assert leaf.not_after == root.not_after


def test_a_root_signs_only_once_it_is_activated(authority: CertificateAuthority) -> None:
    old = authority.ensure_root(NOW)
    new = authority.add_root(now=NOW, lifetime=ROOT_LIFETIME)
    assert not new.active
    assert [(root.serial, root.active) for root in authority.roots()] == [(old.serial, True), (new.serial, False)]
    assert authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME).issuer_serial == old.serial
    authority.activate_root(new.serial)
    assert [(root.serial, root.active) for root in authority.roots()] == [(old.serial, False), (new.serial, True)]
    assert authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME).issuer_serial == new.serial


def test_roots_come_oldest_first_however_fast_they_are_made(authority: CertificateAuthority) -> None:
    authority.ensure_root(NOW)
    made = [authority.add_root(now=NOW, lifetime=ROOT_LIFETIME).serial for _ in range(5)]
    assert [root.serial for root in authority.roots()][1:] == made


def test_the_active_root_cannot_be_dropped(authority: CertificateAuthority) -> None:
    root = authority.ensure_root(NOW)
    with pytest.raises(ValueError, match="activate another one first"):
        authority.drop_root(root.serial)
    assert authority.roots() == (root,)


def test_a_dropped_root_is_trusted_no_more_and_leafs_of_it_are_gone(authority: CertificateAuthority) -> None:
    old = authority.ensure_root(NOW)
    authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    new = authority.add_root(now=NOW, lifetime=ROOT_LIFETIME)
    authority.activate_root(new.serial)
    authority.issue("orders", now=NOW, lifetime=LEAF_LIFETIME)
    authority.drop_root(old.serial)
    assert [root.serial for root in authority.roots()] == [new.serial]
    assert authority.leaf("web") is None
    assert authority.leaf("orders") is not None


def test_an_unknown_root_can_neither_be_activated_nor_dropped(authority: CertificateAuthority) -> None:
    authority.ensure_root(NOW)
    for act in (authority.activate_root, authority.drop_root):
        with pytest.raises(ValueError, match="no root 00 is trusted"):
            act("00")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../active", "a b", "\u00e4", "a\n"])
def test_a_name_that_cannot_be_an_identity_is_refused(authority: CertificateAuthority, name: str) -> None:
    authority.ensure_root(NOW)
    with pytest.raises(ValueError, match="segment"):
        authority.issue(name, now=NOW, lifetime=LEAF_LIFETIME)
    with pytest.raises(ValueError, match="segment"):
        authority.leaf(name)


def test_a_private_key_shows_in_no_repr(authority: CertificateAuthority) -> None:
    authority.ensure_root(NOW)
    leaf = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    key = leaf.private_key_pem.decode().splitlines()
    assert all(line not in repr(leaf) for line in key)
    assert all(line not in repr(authority) for line in key)


def test_verifying_finds_good_leafs_good_and_missing_or_expired_ones_bad(authority: CertificateAuthority) -> None:
    authority.ensure_root(NOW)
    authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)

    def verdicts(now: float) -> dict[str, bool]:
        found = {item.name: item.ok for item in authority.verify(("web", "orders"), now)}
        return {name: found[name] for name in ("web", "orders")}

    assert verdicts(NOW) == {"web": True, "orders": False}
    assert verdicts(NOW + LEAF_LIFETIME + 2) == {"web": False, "orders": False}
