"""Checks certificates as a peer would, and says in words what is wrong with them.  Pure, on ``cryptography``.

Certificates and a time (seconds since the epoch) enter; findings leave: one that is ok, or one for each fault.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509 import verification

from meshctl.adapters.certificates import (
    UnreadableError,
    is_issued_by,
    read_certificate,
    read_pair,
    serial_text,
    uri_names,
    valid_from,
    valid_until,
)
from meshctl.identity.spiffe import trust_domain_id
from meshctl.ports import CertificateFinding, LeafCertificate, RootCertificate

_HOUR = 3600.0
_DAY = 24 * _HOUR


def verify_chain(leaf: LeafCertificate, roots: Iterable[RootCertificate], now: float) -> list[CertificateFinding]:
    """Check a leaf: its chain up to one of the roots at ``now``, its identity, its key, its validity."""
    faults = []
    try:
        certificate = read_pair(leaf.certificate_pem, leaf.private_key_pem).certificate
    except UnreadableError as error:
        return [CertificateFinding(name=leaf.service, ok=False, message=f"its certificate is bad: {error}")]
    found = uri_names(certificate)
    if found != (leaf.spiffe_id,):
        faults.append(f"its identity is {', '.join(found) or 'missing'} instead of {leaf.spiffe_id}")
    lapse = _find_lapse(certificate, now)
    if lapse:
        faults.append(lapse)
    else:
        chain = _find_chain_fault(certificate, roots, now)
        if chain:
            faults.append(chain)
    good = (
        f"{leaf.spiffe_id}, signed by root {leaf.issuer_serial[:8]}, "
        f"valid for another {describe_duration(leaf.not_after - now)}"
    )
    return _sum_up(leaf.service, faults, good)


def verify_root(root: RootCertificate, *, trust_domain: str, now: float) -> list[CertificateFinding]:
    """Check a root: that it has signed itself, may sign leafs, and is valid at ``now`` for the trust domain."""
    name = f"root {root.serial[:8]}"
    try:
        certificate = read_certificate(root.certificate_pem)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (UnreadableError, ValueError, x509.ExtensionNotFound) as error:
        return [CertificateFinding(name=name, ok=False, message=f"it cannot be read as a root: {error}")]
    faults = []
    if serial_text(certificate) != root.serial or not is_issued_by(certificate, certificate):
        faults.append("it has not signed itself")
    if not constraints.ca or not usage.key_cert_sign:
        faults.append("it may not sign certificates")
    identity = trust_domain_id(trust_domain)
    if uri_names(certificate) != (identity,):
        faults.append(f"its identity is {', '.join(uri_names(certificate)) or 'missing'} instead of {identity}")
    lapse = _find_lapse(certificate, now)
    if lapse:
        faults.append(lapse)
    role = "signs" if root.active else "is trusted"
    return _sum_up(name, faults, f"{role}, valid for another {describe_duration(root.not_after - now)}")


def describe_duration(seconds: float) -> str:
    """A stretch of time as a person would say it: ``45 s``, ``12 min``, ``23 h``, ``3650 days``."""
    for unit, name in ((2 * _DAY, "days"), (2 * _HOUR, "h"), (120.0, "min")):
        if seconds >= unit:
            return f"{seconds // (unit / 2):.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def _find_chain_fault(certificate: x509.Certificate, roots: Iterable[RootCertificate], now: float) -> str:
    trusted = [read_certificate(root.certificate_pem) for root in roots]
    if not trusted:
        return "there is no root to trust"
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    # The rules of a client's certificate are asked for because SPIFFE has no host names to match; a leaf is for both.
    policy = verification.PolicyBuilder().store(verification.Store(trusted)).time(moment)
    try:
        policy.build_client_verifier().verify(certificate, [])
    except verification.VerificationError as error:
        return f"no trusted root vouches for it ({error})"
    return ""


def _find_lapse(certificate: x509.Certificate, now: float) -> str:
    if now < valid_from(certificate):
        return f"it is not valid for another {describe_duration(valid_from(certificate) - now)}"
    if now > valid_until(certificate):
        return f"it expired {describe_duration(now - valid_until(certificate))} ago"
    return ""


def _sum_up(name: str, faults: list[str], good: str) -> list[CertificateFinding]:
    if not faults:
        return [CertificateFinding(name=name, ok=True, message=good)]
    return [CertificateFinding(name=name, ok=False, message=fault) for fault in faults]
