"""Makes and reads X.509 certificates as SPIFFE wants them.  I/O: keys and serials come from the system's randomness.

Enters: names, times, keys.  Leaves: certificates and PEM.  Sources: X509-SVID
(https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md) and RFC 5280
(https://www.rfc-editor.org/rfc/rfc5280).
"""

from __future__ import annotations

import datetime as dt
import math
import secrets
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshctl.identity.spiffe import trust_domain_id

SERIAL_BITS = 128
_UTC = dt.UTC
_UB_COMMON_NAME = 64


class UnreadableError(ValueError):
    """A certificate or key that cannot be read, or the two of which do not belong together."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key; the key never shows in a repr."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def make_root(*, mesh: str, trust_domain: str, not_before: float, not_after: float) -> KeyPair:
    """A self-signed root that may sign leafs and nothing that signs in turn; times are seconds since the epoch."""
    key = ec.generate_private_key(ec.SECP256R1())
    # RFC 5280, appendix A.1: a common name has at most 64 characters.
    common_name = f"meshctl {mesh[: _UB_COMMON_NAME - len('meshctl  root')]} root"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _start(subject=subject, issuer=subject, key=key, not_before=not_before, not_after=not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(own_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False)
        .add_extension(_uri_name(trust_domain_id(trust_domain)), critical=False)
    )
    return KeyPair(builder.sign(key, hashes.SHA256()), key)


def make_leaf(*, spiffe_id: str, issuer: KeyPair, not_before: float, not_after: float) -> KeyPair:
    """A leaf for one SPIFFE ID, for both ends of mTLS; times are seconds since the epoch."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_id = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _start(
            subject=x509.Name([]),
            issuer=issuer.certificate.subject,
            key=key,
            not_before=not_before,
            not_after=not_after,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
        # RFC 5280, section 4.2.1.6: critical, because the subject is empty.
        .add_extension(_uri_name(spiffe_id), critical=True)
    )
    return KeyPair(builder.sign(issuer.key, hashes.SHA256()), key)


def read_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM text. Raises UnreadableError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UnreadableError("it holds no certificate that can be read") from error


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The private key of a PEM text. Raises UnreadableError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise UnreadableError("it holds no private key that can be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnreadableError("its private key is not an elliptic-curve one")
    return key


def read_pair(certificate_pem: bytes, key_pem: bytes) -> KeyPair:
    """A certificate with its private key. Raises UnreadableError, also when the key is that of another one."""
    pair = KeyPair(read_certificate(certificate_pem), read_key(key_pem))
    if pair.certificate.public_key() != pair.key.public_key():
        raise UnreadableError("its private key is not that of its certificate")
    return pair


def encode_certificate(certificate: x509.Certificate) -> bytes:
    """PEM of a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM (PKCS #8) of a private key, not encrypted: the file's permissions protect it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def serial_text(certificate: x509.Certificate) -> str:
    """The serial as 32 hexadecimal digits."""
    return f"{certificate.serial_number:0{SERIAL_BITS // 4}x}"


def uri_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The URIs among the subject's alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def valid_from(certificate: x509.Certificate) -> float:
    """Start of its validity, in seconds since the epoch."""
    return certificate.not_valid_before_utc.timestamp()


def valid_until(certificate: x509.Certificate) -> float:
    """End of its validity, in seconds since the epoch."""
    return certificate.not_valid_after_utc.timestamp()


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """True when the issuer's name and key fit the certificate's signature."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _start(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    not_before: float,
    not_after: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(secrets.randbits(SERIAL_BITS) or 1)
        .not_valid_before(_moment(math.floor(not_before)))
        .not_valid_after(_moment(math.ceil(not_after)))
    )


def _moment(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, _UTC)


def _uri_name(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
