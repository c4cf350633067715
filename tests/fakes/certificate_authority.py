"""An authority in memory, whose certificates are only names. Passes the contract of the real one
(tests/contracts/test_certificate_authority.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from meshctl.errors import MeshctlError
from meshctl.identity.rotation import BACKDATING, ROOT_LIFETIME
from meshctl.identity.spiffe import spiffe_id
from meshctl.ports import CertificateAuthority, CertificateFinding, LeafCertificate, RootCertificate


class FakeAuthority(CertificateAuthority):
    """Implements ports.CertificateAuthority. While ``broken`` is not empty, everything that stores raises it."""

    def __init__(self, trust_domain: str = "shop.local") -> None:
        self.broken = ""
        self.issued: list[str] = []
        self._trust_domain = trust_domain
        self._roots: list[RootCertificate] = []
        self._leaves: dict[str, LeafCertificate] = {}
        self._count = 0

    @property
    def trust_domain(self) -> str:
        return self._trust_domain

    def ensure_root(self, now: float) -> RootCertificate:
        active = next((root for root in self._roots if root.active and now < root.not_after), None)
        if active is not None:
            return active
        usable = next((root for root in self._roots if now < root.not_after), None)
        self.activate_root((usable or self.add_root(now=now, lifetime=ROOT_LIFETIME)).serial)
        return next(root for root in self._roots if root.active)

    def roots(self) -> tuple[RootCertificate, ...]:
        return tuple(self._roots)

    def leaf(self, service: str) -> LeafCertificate | None:
        spiffe_id(self._trust_domain, service)
        return self._leaves.get(service)

    def issue(self, service: str, *, now: float, lifetime: float) -> LeafCertificate:
        identity = spiffe_id(self._trust_domain, service)
        active = next((root for root in self._roots if root.active), None)
        if active is None:
            raise MeshctlError("it has no root to sign with")
        self._check_stores()
        serial = self._next_serial()
        leaf = LeafCertificate(
            service=service,
            spiffe_id=identity,
            serial=serial,
            issuer_serial=active.serial,
            not_before=max(now - BACKDATING, active.not_before),
            not_after=min(now + lifetime, active.not_after),
            certificate_pem=f"certificate {serial}".encode(),
            private_key_pem=f"key {serial}".encode(),
        )
        self._leaves[service] = leaf
        self.issued.append(service)
        return leaf

    def add_root(self, *, now: float, lifetime: float) -> RootCertificate:
        self._check_stores()
        serial = self._next_serial()
        root = RootCertificate(
            serial=serial,
            not_before=now - BACKDATING,
            not_after=now + lifetime,
            certificate_pem=f"root {serial}".encode(),
            active=False,
        )
        self._roots.append(root)
        return root

    def activate_root(self, serial: str) -> None:
        self._check_known(serial)
        self._check_stores()
        self._roots = [replace(root, active=root.serial == serial) for root in self._roots]

    def drop_root(self, serial: str) -> None:
        self._check_known(serial)
        if any(root.active and root.serial == serial for root in self._roots):
            raise ValueError(f"root {serial} signs: activate another one first")
        self._check_stores()
        self._roots = [root for root in self._roots if root.serial != serial]
        self._leaves = {name: leaf for name, leaf in self._leaves.items() if leaf.issuer_serial != serial}

    def verify(self, services: Iterable[str], now: float) -> tuple[CertificateFinding, ...]:
        return tuple(
            CertificateFinding(name=service, ok=leaf is not None and now < leaf.not_after, message="")
            for service in sorted(set(services))
            for leaf in (self._leaves.get(service),)
        )

    def _check_known(self, serial: str) -> None:
        if serial not in {root.serial for root in self._roots}:
            raise ValueError(f"no root {serial} is trusted")

    def _check_stores(self) -> None:
        if self.broken:
            raise MeshctlError(self.broken)

    def _next_serial(self) -> str:
        self._count += 1
        return f"{self._count:032x}"
