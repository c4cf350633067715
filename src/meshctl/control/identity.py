"""The identity of a running mesh: its authority, what rotates it, and what each sidecar is handed.  I/O."""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.control.certs import CertRunner
from meshctl.envoy.translate import Credentials
from meshctl.ports import CertificateAuthority


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshIdentity:
    """The authority of one trust domain, with its runner."""

    trust_domain: str
    authority: CertificateAuthority
    runner: CertRunner

    def credentials(self, node: str) -> Credentials:
        """What a sidecar proves itself with, and whom it trusts; its leaf has been issued before."""
        leaf = self.authority.leaf(node)
        assert leaf is not None, f"no certificate was issued for {node}"
        return Credentials(
            leaf_chain=leaf.certificate_pem,
            leaf_key=leaf.private_key_pem,
            roots=b"".join(root.certificate_pem for root in self.authority.roots()),
        )
