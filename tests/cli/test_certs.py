"""`meshctl certs` shows certificates in words, rotates after asking, and fails when verification does."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import T0

from meshctl.cli import render
from meshctl.cli.certificate_text import describe_key
from meshctl.wire.models import Certificate, CertificateCheck, CertificateList, CertificateReport, RotateRequest

LATER = T0 + 3600


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after the fake mesh began."""
    monkeypatch.setattr(render, "read_clock", lambda: LATER)


def make_pem(*, leaf: bool) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.fromtimestamp(T0, UTC)
    root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meshctl shop root")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]) if leaf else root)
        .issuer_name(root)
        .public_key(key.public_key())
        .serial_number(11)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
    )
    if leaf:
        uri = x509.UniformResourceIdentifier("spiffe://shop.mesh/checkout")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def certificates(served: ServedMesh, monkeypatch: pytest.MonkeyPatch) -> CertificateList:
    """The fake's root and leaf, with certificates in them."""
    old = served.backend.certificates()
    made = CertificateList(
        trust_domain=old.trust_domain,
        certificates=[change(item, pem=make_pem(leaf=item.kind == "leaf")) for item in old.certificates],
    )
    monkeypatch.setattr(served.backend, "certificates", lambda: made)
    return made


def change(certificate: Certificate, **changes: object) -> Certificate:
    fields = {name: getattr(certificate, name) for name in certificate.__struct_fields__}
    return Certificate(**{**fields, **changes})


def test_list_tells_expiry_and_rotation_in_words(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("certs", "list").stdout == (
        "NAME      KIND  STATE    EXPIRES     ROTATES  IDENTITY\n"
        "root-1    root  signing  in 364d23h  -        -\n"
        "checkout  leaf  valid    in 23h      in 11h   spiffe://shop.mesh/checkout\n"
    )


def test_a_narrow_terminal_drops_columns(served: ServedMesh, run_cli: RunCli) -> None:
    out = run_cli("certs", "list", width=50).stdout
    assert all(len(line) <= 50 for line in out.splitlines())
    assert "EXPIRES" in out
    assert "IDENTITY" not in out


def test_wide_adds_serials(served: ServedMesh, run_cli: RunCli) -> None:
    assert "ISSUER SERIAL" in run_cli("certs", "list", "-o", "wide").stdout


def test_list_as_json_is_the_shape(served: ServedMesh, run_cli: RunCli) -> None:
    found = json.loads(run_cli("certs", "list", "-o", "json").stdout)
    assert [certificate["name"] for certificate in found["certificates"]] == ["root-1", "checkout"]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"not_after": LATER - 1}, "expired"),
        ({"not_before": LATER + 1}, "not yet valid"),
        ({"kind": "root", "active": False}, "trusted"),
        ({}, "valid"),
    ],
)
def test_the_state_of_a_certificate_is_a_word(
    served: ServedMesh, certificates: CertificateList, run_cli: RunCli, changes: dict[str, object], state: str
) -> None:
    certificates.certificates[:] = [change(certificates.certificates[1], **changes)]
    assert re.search(rf"checkout +(leaf|root) +{state} ", run_cli("certs", "list").stdout)


def test_show_tells_what_a_leaf_holds(served: ServedMesh, certificates: CertificateList, run_cli: RunCli) -> None:
    out = run_cli("certs", "show", "checkout").stdout
    assert re.sub(r"[0-9a-f]{2}(:[0-9a-f]{2}){31}", "<fingerprint>", out) == (
        "Name:               checkout (leaf)\n"
        "Subject:            (empty; the identity is the alternative name)\n"
        "Issuer:             CN=meshctl shop root\n"
        "Alternative names:  spiffe://shop.mesh/checkout\n"
        "Valid from:         2026-02-02T02:40:00.000Z\n"
        "Valid until:        2026-02-03T02:40:00.000Z (in 23h)\n"
        "Rotates:            2026-02-02T14:40:00.000Z (in 11h)\n"
        "Key:                ECDSA P-256\n"
        "Usage:              server authentication, client authentication\n"
        "Serial:             0b\n"
        "SHA-256:            <fingerprint>\n"
        "Chain:              checkout (0b) <- root-1 (0a)\n"
    )


@pytest.mark.parametrize("name", ["root-1", "root", "0a"])
def test_a_root_is_found_by_name_word_and_serial(
    served: ServedMesh, certificates: CertificateList, run_cli: RunCli, name: str
) -> None:
    out = run_cli("certs", "show", name).stdout
    assert "Name:               root-1 (root)" in out
    assert "Usage:              certificate authority" in out


def test_pem_holds_the_whole_chain(served: ServedMesh, certificates: CertificateList, run_cli: RunCli) -> None:
    leaf, root = certificates.certificates[1], certificates.certificates[0]
    assert run_cli("certs", "show", "checkout", "--pem").stdout == leaf.pem + root.pem


def test_show_as_json_is_the_shape(served: ServedMesh, run_cli: RunCli) -> None:
    assert json.loads(run_cli("certs", "show", "checkout", "-o", "json").stdout)["serial"] == "0b"


def test_a_misspelt_certificate_is_corrected(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("certs", "show", "chekout").shown == (
        "--- exit 1\n--- stdout\n--- stderr\nerror: there is no certificate chekout\nhint: did you mean checkout?\n"
    )


def test_a_certificate_that_cannot_be_read_is_an_error(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("certs", "show", "checkout")
    assert (done.code, "certs verify" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        ((), RotateRequest(service="", root=False)),
        (("checkout",), RotateRequest(service="checkout", root=False)),
        (("--root", "--yes"), RotateRequest(service="", root=True)),
    ],
)
def test_rotate_tells_that_it_is_in_effect(
    served: ServedMesh, run_cli: RunCli, arguments: tuple[str, ...], request_: RotateRequest
) -> None:
    done = run_cli("certs", "rotate", *arguments)
    assert done.stderr == "rotated; applied to 2/2 sidecars in 12 ms\n"
    assert served.backend.asked == [("rotate", request_)]


def test_rotating_the_root_wants_a_yes_where_nobody_can_be_asked(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("certs", "rotate", "--root")
    assert (done.code, served.backend.asked) == (2, [])
    assert "add --yes" in done.stderr


@pytest.mark.parametrize(("answer", "code", "asked"), [("n", 1, 0), ("y", 0, 1)])
def test_rotating_the_root_asks_on_a_terminal(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, *, answer: str, code: int, asked: int
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer == "y")
    assert run_cli("certs", "rotate", "--root").code == code
    assert len(served.backend.asked) == asked


def test_a_service_and_the_root_cannot_be_rotated_together(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("certs", "rotate", "checkout", "--root", "--yes").code == 2


def test_verify_passes_and_fails_with_the_report(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("certs", "verify").shown == (
        "--- exit 0\n--- stdout\n"
        "CHECK     RESULT  MESSAGE\n"
        "checkout  ok      served as it is stored\n"
        "--- stderr\n1 check, all passed\n"
    )

    async def verify() -> CertificateReport:
        return CertificateReport(ok=False, checks=[CertificateCheck(name="payment", ok=False, message="expired")])

    monkeypatch.setattr(served.backend, "verify_certificates", verify)
    done = run_cli("certs", "verify")
    assert (done.code, "payment  failed  expired" in done.stdout) == (1, True)
    assert json.loads(run_cli("certs", "verify", "-o", "json").stdout)["ok"] is False


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384"),
        (lambda: rsa.generate_private_key(65537, 2048), "RSA 2048 bits"),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519"),
    ],
)
def test_keys_of_all_kinds_are_named(make, words: str) -> None:  # type: ignore[no-untyped-def]
    key = make()
    name = x509.Name([])
    start = datetime.fromtimestamp(T0, UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + timedelta(days=1))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    assert describe_key(builder.sign(key, algorithm)) == words
