"""A certificate as text for people.  Pure: PEM and the time now enter, lines leave."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshctl.cli.render import format_age, format_time
from meshctl.wire.models import Certificate

_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server authentication",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client authentication",
}


def describe_certificate(certificate: Certificate, *, chain: Sequence[Certificate], now: float) -> str:
    """What a certificate holds, one thing a line; ``chain`` starts with it. Raises ValueError when it is no PEM."""
    parsed = x509.load_pem_x509_certificate(certificate.pem.encode())
    fingerprint = parsed.fingerprint(hashes.SHA256()).hex(":")
    facts = [
        ("Name", f"{certificate.name} ({certificate.kind})"),
        ("Subject", parsed.subject.rfc4514_string() or "(empty; the identity is the alternative name)"),
        ("Issuer", parsed.issuer.rfc4514_string()),
        ("Alternative names", ", ".join(_names(parsed)) or "-"),
        ("Valid from", format_time(parsed.not_valid_before_utc.timestamp())),
        ("Valid until", _until(parsed.not_valid_after_utc.timestamp(), now)),
        ("Rotates", "-" if certificate.rotates_at is None else _until(certificate.rotates_at, now)),
        ("Key", describe_key(parsed)),
        ("Usage", ", ".join(_usages(parsed)) or "-"),
        ("Serial", certificate.serial),
        ("SHA-256", fingerprint),
        ("Chain", " <- ".join(_link(link) for link in chain)),
    ]
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name + ':':<{width + 1}}  {value}" for name, value in facts)


def describe_key(certificate: x509.Certificate) -> str:
    """The kind of the public key: ``ECDSA P-256``, ``RSA 2048 bits``, ``Ed25519``."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        curves = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
        return f"ECDSA {curves.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else type(key).__name__


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.UniformResourceIdentifier), *names.get_values_for_type(x509.DNSName)]


def _usages(certificate: x509.Certificate) -> list[str]:
    usages: list[str] = []
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                usages.append("certificate authority")
            case x509.ExtendedKeyUsage() as extended:
                usages += [_USAGES.get(usage, usage.dotted_string) for usage in extended]
            case _:
                pass
    return usages


def _until(moment: float, now: float) -> str:
    left = f"in {format_age(moment - now)}" if moment >= now else f"{format_age(now - moment)} ago"
    return f"{format_time(moment)} ({left})"


def _link(certificate: Certificate) -> str:
    return f"{certificate.name} ({certificate.serial[:8]})"
