"""The authority in files: what its certificates say, who may read its keys, and what survives a crash."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshctl.adapters import cert_files
from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.certificates import read_certificate
from meshctl.errors import MeshctlError
from meshctl.identity.rotation import LEAF_LIFETIME, ROOT_LIFETIME, recover

NOW = 1_800_000_000.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".meshctl" / "ca"


def open_authority(directory: Path, trust_domain: str = "shop.local") -> FileAuthority:
    return FileAuthority(str(directory), mesh="shop", trust_domain=trust_domain)


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------- what they say


def test_a_root_may_sign_leafs_only_and_carries_the_trust_domain(directory: Path) -> None:
    """Source: X509-SVID, sections 2 and 4; RFC 5280, sections 4.2.1.3 and 4.2.1.9."""
    root = read_certificate(open_authority(directory).ensure_root(NOW).certificate_pem)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://shop.local")]
    assert root.subject.rfc4514_string() == "CN=meshctl shop root"
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    assert root.signature_hash_algorithm is not None
    assert root.signature_hash_algorithm.name == "sha256"


def test_a_leaf_has_one_critical_uri_and_serves_both_ends(directory: Path) -> None:
    """Source: X509-SVID, sections 2, 4 and 5; RFC 5280, section 4.2.1.6 for an empty subject."""
    authority = open_authority(directory)
    root = read_certificate(authority.ensure_root(NOW).certificate_pem)
    leaf = read_certificate(authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME).certificate_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (names.critical, list(names.value)) == (True, [x509.UniformResourceIdentifier("spiffe://shop.local/web")])
    assert leaf.subject.rfc4514_string() == ""
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.digital_signature, usage.value.key_cert_sign, usage.value.crl_sign) == (True, False, False)
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own.digest
    assert leaf.not_valid_before_utc.timestamp() == NOW - 60
    assert leaf.not_valid_after_utc.timestamp() == NOW + LEAF_LIFETIME
    assert leaf.serial_number.bit_length() > 64


def test_a_long_mesh_name_is_cut_to_what_a_common_name_holds(directory: Path) -> None:
    """Source: RFC 5280, appendix A.1, ub-common-name."""
    authority = FileAuthority(str(directory), mesh="m" * 200, trust_domain="shop.local")
    root = read_certificate(authority.ensure_root(NOW).certificate_pem)
    (name,) = root.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert len(name.value) == 64


def test_openssl_accepts_the_chain_by_its_strict_rules(directory: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl on this machine")
    authority = open_authority(directory)
    (tmp_path / "roots.pem").write_bytes(authority.ensure_root(NOW).certificate_pem)
    (tmp_path / "leaf.pem").write_bytes(authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME).certificate_pem)
    for purpose in ("sslclient", "sslserver"):
        command = [openssl, "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(NOW))]
        command += ["-CAfile", str(tmp_path / "roots.pem"), str(tmp_path / "leaf.pem")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------------------------------- files


def test_directories_are_0700_and_files_0600_whatever_the_umask(directory: Path) -> None:
    before = os.umask(0)
    try:
        authority = open_authority(directory)
        authority.ensure_root(NOW)
        authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    finally:
        os.umask(before)
    modes = {str(p.relative_to(directory)): stat.S_IMODE(p.stat().st_mode) for p in directory.rglob("*")}
    modes["."] = stat.S_IMODE(directory.stat().st_mode)
    assert {mode for path, mode in modes.items() if (directory / path).is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if (directory / path).is_file()} == {0o600}


def test_loosened_permissions_are_mended_on_opening(directory: Path) -> None:
    authority = open_authority(directory)
    authority.ensure_root(NOW)
    authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)
    assert not authority.verify(["web"], NOW)[0].ok
    authority = open_authority(directory)
    assert all(finding.ok for finding in authority.verify(["web"], NOW))


def test_everything_is_there_again_after_a_restart(directory: Path) -> None:
    authority = open_authority(directory)
    authority.ensure_root(NOW)
    new = authority.add_root(now=NOW, lifetime=ROOT_LIFETIME)
    authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    authority.activate_root(new.serial)
    authority.issue("orders", now=NOW, lifetime=LEAF_LIFETIME)
    again = open_authority(directory)
    assert again.roots() == authority.roots()
    assert again.leaf("web") == authority.leaf("web")
    assert again.leaf("orders") == authority.leaf("orders")
    assert again.ensure_root(NOW) == authority.ensure_root(NOW)


def test_a_dropped_root_leaves_no_file_behind(directory: Path) -> None:
    authority = open_authority(directory)
    old = authority.ensure_root(NOW)
    new = authority.add_root(now=NOW, lifetime=ROOT_LIFETIME)
    authority.activate_root(new.serial)
    authority.drop_root(old.serial)
    assert files_below(directory) == ["active", f"roots/{new.serial}.crt", f"roots/{new.serial}.key"]


# ---------------------------------------------------------------------------------------------- damage


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap_key(path: Path) -> None:
    other = path.with_name("orders.pem").read_bytes()
    own = path.read_bytes()
    marker = b"-----BEGIN PRIVATE KEY-----"
    path.write_bytes(own[: own.index(marker)] + other[other.index(marker) :])


def swap_identity(path: Path) -> None:
    path.write_bytes(path.with_name("orders.pem").read_bytes())


@pytest.mark.parametrize("damage", [tear, empty, swap_key, swap_identity, Path.unlink])
def test_a_leaf_that_is_not_whole_counts_as_absent_and_is_issued_anew(
    directory: Path, damage: Callable[[Path], None]
) -> None:
    authority = open_authority(directory)
    authority.ensure_root(NOW)
    authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    authority.issue("orders", now=NOW, lifetime=LEAF_LIFETIME)
    damage(directory / "leafs" / "web.pem")
    again = open_authority(directory)
    assert again.leaf("web") is None
    assert again.leaf("orders") is not None
    assert [item.ok for item in again.verify(["web"], NOW) if item.name == "web"] == [False]
    made = again.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    assert open_authority(directory).leaf("web") == made


def test_a_leaf_of_another_authority_counts_as_absent(directory: Path, tmp_path: Path) -> None:
    authority = open_authority(directory)
    authority.ensure_root(NOW)
    other = open_authority(tmp_path / "other")
    other.ensure_root(NOW)
    other.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
    shutil.copy(tmp_path / "other" / "leafs" / "web.pem", directory / "leafs" / "web.pem")
    assert authority.leaf("web") is None
    assert [item.message for item in authority.verify(["web"], NOW) if item.name == "web"] == [
        "its certificate is bad: no trusted root has signed it"
    ]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda root, _key, _active: tear(root), "no certificate that can be read"),
        (lambda root, _key, _active: empty(root), "no certificate that can be read"),
        (lambda root, _key, _active: root.rename(root.with_name("00.crt")), "its serial is"),
        (lambda _root, key, _active: tear(key), "missing, damaged, or of another root"),
        (lambda _root, key, _active: key.unlink(), "missing, damaged, or of another root"),
        (lambda _root, _key, active: active.write_text("00"), "names a root that is not there"),
        (lambda _root, _key, active: active.write_bytes(b"\xff"), "names a root that is not there"),
    ],
    ids=["torn root", "empty root", "renamed root", "torn key", "no key", "wrong active", "binary active"],
)
def test_a_root_that_cannot_be_read_is_refused_with_what_to_do(
    directory: Path, damage: Callable[[Path, Path, Path], None], reason: str
) -> None:
    authority = open_authority(directory)
    serial = authority.ensure_root(NOW).serial
    damage(directory / "roots" / f"{serial}.crt", directory / "roots" / f"{serial}.key", directory / "active")
    with pytest.raises(MeshctlError, match=reason) as caught:
        open_authority(directory)
    assert str(directory) in caught.value.hint
    (finding,) = authority.verify(["web"], NOW)
    assert not finding.ok
    assert reason in finding.message


def test_a_trusted_root_without_its_key_is_trusted_but_cannot_be_activated(directory: Path) -> None:
    authority = open_authority(directory)
    authority.ensure_root(NOW)
    new = authority.add_root(now=NOW, lifetime=ROOT_LIFETIME)
    (directory / "roots" / f"{new.serial}.key").unlink()
    again = open_authority(directory)
    assert len(again.roots()) == 2
    with pytest.raises(MeshctlError, match=r"key of root .* cannot be read"):
        again.activate_root(new.serial)


def test_what_a_crash_left_half_done_is_tidied(directory: Path) -> None:
    authority = open_authority(directory)
    root = authority.ensure_root(NOW)
    for place in (".new-1", "roots/.new-2", "leafs/.new-3", "roots/00.key"):
        (directory / place).write_bytes(b"half")
    again = open_authority(directory)
    assert files_below(directory) == ["active", f"roots/{root.serial}.crt", f"roots/{root.serial}.key"]
    assert again.ensure_root(NOW) == root


def test_a_first_root_that_was_not_activated_yet_is_taken(directory: Path) -> None:
    open_authority(directory).add_root(now=NOW, lifetime=ROOT_LIFETIME)
    again = open_authority(directory)
    (found,) = again.roots()
    assert not found.active
    assert again.ensure_root(NOW).serial == found.serial


def test_a_full_disk_changes_nothing_and_is_said(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = open_authority(directory)
    root = authority.ensure_root(NOW)
    leaf = authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)

    def fail(path: Path, content: bytes, *, durable: bool) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(cert_files, "write_private", fail)
    for act in (
        lambda: authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME),
        lambda: authority.add_root(now=NOW, lifetime=ROOT_LIFETIME),
        lambda: authority.activate_root(root.serial),
    ):
        with pytest.raises(MeshctlError, match="No space left on device"):
            act()
    assert authority.roots() == (root,)
    assert authority.leaf("web") == leaf


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_at_any_file_of_a_replacement_leaves_an_authority_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Every write and removal is one step; the crash comes right before or right after each of them in turn."""
    finished = False
    at = 0
    while not finished:
        directory = tmp_path / str(at)
        authority = open_authority(directory)
        old = authority.ensure_root(NOW)
        authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
        with monkeypatch.context() as patch:
            count = iter(range(100))
            for name in ("write_private", "remove_file"):
                patch.setattr(cert_files, name, crashing(getattr(cert_files, name), count, at=at, before=before))
            try:
                new = authority.add_root(now=NOW, lifetime=ROOT_LIFETIME)
                authority.activate_root(new.serial)
                authority.issue("web", now=NOW, lifetime=LEAF_LIFETIME)
                authority.drop_root(old.serial)
                finished = True
            except Crash:
                pass
        again = open_authority(directory)
        active = again.ensure_root(NOW)
        assert {root.serial for root in again.roots()} >= {active.serial}
        assert recover(again.roots()).phase in ("none", "introduced", "switched")
        leaf = again.leaf("web")
        assert leaf is not None
        assert leaf.issuer_serial in {root.serial for root in again.roots()}
        assert all(item.ok for item in again.verify(["web"], NOW))
        at += 1
    assert at == 7


def crashing(act: Callable[..., None], count: Iterator[int], *, at: int, before: bool) -> Callable[..., None]:
    def run(*args: object, **options: object) -> None:
        number = next(count)
        if number == at and before:
            raise Crash
        act(*args, **options)
        if number == at:
            raise Crash

    return run


WRITER = """
import sys
from meshctl.adapters.cert_files import FileAuthority
from meshctl.identity.rotation import LEAF_LIFETIME, ROOT_LIFETIME
authority = FileAuthority(sys.argv[1], mesh="shop", trust_domain="shop.local")
now = float(sys.argv[2])
authority.ensure_root(now)
print("ready", flush=True)
while True:
    now += 5
    old = authority.ensure_root(now)
    for root in authority.roots():
        if root.serial != old.serial:
            authority.drop_root(root.serial)
    new = authority.add_root(now=now, lifetime=ROOT_LIFETIME)
    authority.activate_root(new.serial)
    for service in ("web", "orders", "stock"):
        authority.issue(service, now=now, lifetime=LEAF_LIFETIME)
    authority.drop_root(old.serial)
    print(new.serial, flush=True)
"""


def test_killed_at_any_instant_it_opens_with_a_root_that_signs(directory: Path) -> None:
    now = NOW
    for round_ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), str(now)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            # It goes on meanwhile, so that the kill falls somewhere into the replacement after these.
            for _ in range(round_ % 4):
                writer.stdout.readline()
            writer.kill()
        now += 1000
        authority = open_authority(directory)
        assert not [name for name in files_below(directory) if ".new-" in name]
        assert sum(root.active for root in authority.roots()) == 1
        assert recover(authority.roots()).phase in ("none", "introduced", "switched")
        authority.issue("web", now=now, lifetime=LEAF_LIFETIME)
        findings = authority.verify(["web"], now)
        assert all(finding.ok for finding in findings), findings
