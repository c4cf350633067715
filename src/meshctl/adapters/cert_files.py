"""The certificate authority of one mesh, in files.  I/O; implements ports.CertificateAuthority.

Enters: services, times.  Leaves: certificates; files below one directory that belongs to this authority alone::

    roots/<serial>.crt   a trusted root            roots/<serial>.key   its private key
    active               the serial of the root that signs
    leafs/<service>.pem  certificate and private key of a service, in one file so that they always fit

Invariants: directories are 0700 and files 0600 (Invariant 8); a key is on the disk before its root is, a root before
it is the active one; every file is replaced in one step.  Roots and ``active`` are synced to the disk.  Leafs are not:
after a power failure a torn one is recognised and issued anew, and ten of them are issued in a few milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.x509 import Certificate

from meshctl.adapters.cert_verify import verify_chain, verify_root
from meshctl.adapters.certificates import (
    KeyPair,
    UnreadableError,
    encode_certificate,
    encode_key,
    is_issued_by,
    make_leaf,
    make_root,
    read_certificate,
    read_key,
    read_pair,
    serial_text,
    uri_names,
    valid_from,
    valid_until,
)
from meshctl.adapters.private_files import (
    DIRECTORY_MODE,
    FILE_MODE,
    find_exposure,
    mend_file,
    open_private_directory,
    remove_file,
    remove_temporaries,
    write_private,
)
from meshctl.errors import MeshctlError
from meshctl.identity.rotation import BACKDATING, ROOT_LIFETIME
from meshctl.identity.spiffe import spiffe_id, trust_domain_id
from meshctl.ports import CertificateAuthority, CertificateFinding, LeafCertificate, RootCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Root:
    certificate: Certificate
    certificate_pem: bytes
    serial: str
    not_before: float
    not_after: float
    pair: KeyPair | None = field(repr=False)
    """None for a root whose key cannot be read: good enough to trust, not to sign with."""


class FileAuthority(CertificateAuthority):
    """The CA of one trust domain in ``directory`` (absolute), which one control plane uses at a time.

    What is in the directory is read once; permissions that a copy or a restore has loosened are mended.

    Args:
        directory: the CA's own; made with its parents when it is not there.
        mesh: the mesh's name, which the roots' subject shows.
        trust_domain: of the identities that are certified.

    Raises:
        MeshctlError: the directory is somebody else's, or what is in it cannot be read.
    """

    def __init__(self, directory: str, *, mesh: str, trust_domain: str) -> None:
        self._directory = Path(directory)
        self._mesh = mesh
        self._trust_domain = trust_domain
        trust_domain_id(trust_domain)
        self._leaves: dict[str, LeafCertificate | None] = {}
        for path in (self._directory, self._roots_directory, self._leafs_directory):
            open_private_directory(path)
        try:
            self._tidy()
            self._roots = self._read_roots()
            self._active = self._read_active(self._roots)
        except OSError as error:
            raise self._unusable(str(error)) from error

    def __repr__(self) -> str:
        return f"FileAuthority({str(self._directory)!r}, trust_domain={self._trust_domain!r})"

    @property
    def trust_domain(self) -> str:
        """The trust domain of every identity that it certifies."""
        return self._trust_domain

    # ------------------------------------------------------------------------------------------ roots

    def ensure_root(self, now: float) -> RootCertificate:
        """The root that signs; made when there is none yet, or when the one there is has expired at ``now``.

        Raises MeshctlError when it cannot be stored.
        """
        active = self._roots.get(self._active)
        if active is not None and now < active.not_after:
            return self._show(active)
        # A crash between making the first root and activating it leaves one that nothing speaks against.
        usable = next((root for root in _in_order(self._roots) if root.pair is not None and now < root.not_after), None)
        serial = usable.serial if usable is not None else self.add_root(now=now, lifetime=ROOT_LIFETIME).serial
        self.activate_root(serial)
        return self._show(self._roots[serial])

    def roots(self) -> tuple[RootCertificate, ...]:
        """Trusted roots, oldest first."""
        return tuple(self._show(root) for root in _in_order(self._roots))

    def add_root(self, *, now: float, lifetime: float) -> RootCertificate:
        """Make a new root that is trusted but does not sign yet. Raises MeshctlError when it cannot be stored."""
        # Certificates tell time in whole seconds: each root starts a second after the one before, so that their
        # order is always known. It does no harm within the backdating.
        newest = max((root.not_before for root in self._roots.values()), default=0.0)
        start = math.floor(now - BACKDATING)
        pair = make_root(
            mesh=self._mesh,
            trust_domain=self._trust_domain,
            not_before=newest + 1 if start <= newest < now - 1 else start,
            not_after=now + lifetime,
        )
        root = _take_root(pair.certificate, pair)
        try:
            write_private(self._key_path(root.serial), encode_key(pair.key), durable=True)
            write_private(self._root_path(root.serial), root.certificate_pem, durable=True)
        except OSError as error:
            raise self._unusable(str(error)) from error
        self._roots[root.serial] = root
        return self._show(root)

    def activate_root(self, serial: str) -> None:
        """Make a trusted root the one that signs.

        Raises:
            ValueError: it is not trusted.
            MeshctlError: its key cannot be read, or the choice cannot be stored.
        """
        root = self._roots.get(serial)
        if root is None:
            raise ValueError(f"no root {serial} is trusted")
        if root.pair is None:
            raise self._unusable(f"the key of root {serial} cannot be read")
        try:
            write_private(self._active_path, f"{serial}\n".encode(), durable=True)
        except OSError as error:
            raise self._unusable(str(error)) from error
        self._active = serial

    def drop_root(self, serial: str) -> None:
        """Stop trusting a root, and delete it with its key.

        Raises:
            ValueError: it is the active one, or not trusted at all.
            MeshctlError: it cannot be deleted.
        """
        if serial == self._active:
            raise ValueError(f"root {serial} signs: activate another one first")
        if serial not in self._roots:
            raise ValueError(f"no root {serial} is trusted")
        try:
            # The certificate first: a crash in between leaves a key without a root, which is removed on opening.
            remove_file(self._root_path(serial))
            remove_file(self._key_path(serial))
        except OSError as error:
            raise self._unusable(str(error)) from error
        del self._roots[serial]
        self._leaves = {
            service: leaf if leaf is None or leaf.issuer_serial != serial else None
            for service, leaf in self._leaves.items()
        }

    # ------------------------------------------------------------------------------------------ leafs

    def leaf(self, service: str) -> LeafCertificate | None:
        """The current leaf of a service; None when none was issued or what is stored is not whole.

        Raises ValueError for a name that no service can have.
        """
        if service not in self._leaves:
            try:
                self._leaves[service] = self._read_leaf(service)
            except (FileNotFoundError, UnreadableError):
                self._leaves[service] = None
            except OSError as error:
                raise self._unusable(str(error)) from error
        return self._leaves[service]

    def issue(self, service: str, *, now: float, lifetime: float) -> LeafCertificate:
        """Issue a leaf signed by the active root, store it, and return it; it never outlives the root.

        Raises:
            ValueError: a name that no service can have.
            MeshctlError: there is no root that can sign, or the leaf cannot be stored.
        """
        identity = spiffe_id(self._trust_domain, service)
        root = self._roots.get(self._active)
        if root is None or root.pair is None:
            raise self._unusable("it has no root to sign with")
        pair = make_leaf(
            spiffe_id=identity,
            issuer=root.pair,
            not_before=max(now - BACKDATING, root.not_before),
            not_after=min(now + lifetime, root.not_after),
        )
        leaf = _take_leaf(service, identity, pair, issuer_serial=root.serial)
        try:
            write_private(self._leaf_path(service), leaf.certificate_pem + leaf.private_key_pem, durable=False)
        except OSError as error:
            raise self._unusable(str(error)) from error
        self._leaves[service] = leaf
        return leaf

    # ------------------------------------------------------------------------------------------ checking

    def verify(self, services: Iterable[str], now: float) -> tuple[CertificateFinding, ...]:
        """Check the files, the roots and the leafs as they are on the disk."""
        try:
            exposed = [why for path, mode in self._paths() if (why := find_exposure(path, mode))]
            stored = self._read_roots()
            roots = tuple(self._show(root) for root in _in_order(stored))
            self._read_active(stored)
        except OSError as error:
            return (CertificateFinding(name="files", ok=False, message=str(error)),)
        except MeshctlError as error:
            return (CertificateFinding(name="files", ok=False, message=error.message),)
        findings = [CertificateFinding(name="files", ok=False, message=why) for why in exposed]
        if not exposed:
            message = f"nobody but you can read the keys in {self._directory}"
            findings.append(CertificateFinding(name="files", ok=True, message=message))
        for root in roots:
            findings += verify_root(root, trust_domain=self._trust_domain, now=now)
        for service in sorted(set(services)):
            try:
                leaf = self._read_leaf(service)
            except FileNotFoundError:
                findings.append(CertificateFinding(name=service, ok=False, message="it has no certificate"))
            except (OSError, UnreadableError) as error:
                findings.append(CertificateFinding(name=service, ok=False, message=f"its certificate is bad: {error}"))
            else:
                findings += verify_chain(leaf, roots, now)
        return tuple(findings)

    # ------------------------------------------------------------------------------------------ files

    @property
    def _roots_directory(self) -> Path:
        return self._directory / "roots"

    @property
    def _leafs_directory(self) -> Path:
        return self._directory / "leafs"

    @property
    def _active_path(self) -> Path:
        return self._directory / "active"

    def _root_path(self, serial: str) -> Path:
        return self._roots_directory / f"{serial}.crt"

    def _key_path(self, serial: str) -> Path:
        return self._roots_directory / f"{serial}.key"

    def _leaf_path(self, service: str) -> Path:
        return self._leafs_directory / f"{service}.pem"

    def _paths(self) -> list[tuple[Path, int]]:
        directories = [self._directory, self._roots_directory, self._leafs_directory]
        files = [self._active_path, *self._roots_directory.iterdir(), *self._leafs_directory.iterdir()]
        return [(path, DIRECTORY_MODE) for path in directories] + [(path, FILE_MODE) for path in sorted(files)]

    def _tidy(self) -> None:
        for directory in (self._directory, self._roots_directory, self._leafs_directory):
            remove_temporaries(directory)
        for key in self._roots_directory.glob("*.key"):
            if not key.with_suffix(".crt").exists():
                remove_file(key)
        for path in (*self._roots_directory.iterdir(), *self._leafs_directory.iterdir()):
            mend_file(path)
        if self._active_path.exists():
            mend_file(self._active_path)

    def _read_roots(self) -> dict[str, _Root]:
        roots = {}
        for path in sorted(self._roots_directory.glob("*.crt")):
            try:
                root = self._read_root(path)
            except UnreadableError as error:
                raise self._unusable(f"{path} cannot be used: {error}") from error
            roots[root.serial] = root
        return roots

    def _read_root(self, path: Path) -> _Root:
        certificate = read_certificate(path.read_bytes())
        if serial_text(certificate) != path.stem:
            raise UnreadableError(f"its serial is {serial_text(certificate)}")
        try:
            pair = KeyPair(certificate, read_key(path.with_suffix(".key").read_bytes()))
        except (FileNotFoundError, UnreadableError):
            return _take_root(certificate, None)
        if pair.key.public_key() != certificate.public_key():
            return _take_root(certificate, None)
        return _take_root(certificate, pair)

    def _read_active(self, roots: Mapping[str, _Root]) -> str:
        try:
            serial = self._active_path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return ""
        root = roots.get(serial)
        if root is None:
            raise self._unusable(f"{self._active_path} names a root that is not there")
        if root.pair is None:
            raise self._unusable(f"{self._key_path(serial)} is missing, damaged, or of another root")
        return serial

    def _read_leaf(self, service: str) -> LeafCertificate:
        """Raises FileNotFoundError, OSError or UnreadableError."""
        identity = spiffe_id(self._trust_domain, service)
        content = self._leaf_path(service).read_bytes()
        start = content.find(b"-----BEGIN PRIVATE KEY-----")
        if start < 0:
            raise UnreadableError("it holds no private key that can be read")
        pair = read_pair(content[:start], content[start:])
        if uri_names(pair.certificate) != (identity,):
            raise UnreadableError(f"it is not for {identity}")
        for root in _in_order(self._roots):
            if is_issued_by(pair.certificate, root.certificate):
                return _take_leaf(service, identity, pair, issuer_serial=root.serial)
        raise UnreadableError("no trusted root has signed it")

    def _show(self, root: _Root) -> RootCertificate:
        return RootCertificate(
            serial=root.serial,
            not_before=root.not_before,
            not_after=root.not_after,
            certificate_pem=root.certificate_pem,
            active=root.serial == self._active,
        )

    def _unusable(self, reason: str) -> MeshctlError:
        return MeshctlError(
            f"the certificate authority in {self._directory} cannot be used: {reason}",
            hint=f"mend that, or begin anew: meshctl down, remove {self._directory}, meshctl up",
        )


def _in_order(roots: Mapping[str, _Root]) -> list[_Root]:
    return sorted(roots.values(), key=lambda root: (root.not_before, root.serial))


def _take_root(certificate: Certificate, pair: KeyPair | None) -> _Root:
    return _Root(
        certificate=certificate,
        certificate_pem=encode_certificate(certificate),
        serial=serial_text(certificate),
        not_before=valid_from(certificate),
        not_after=valid_until(certificate),
        pair=pair,
    )


def _take_leaf(service: str, identity: str, pair: KeyPair, *, issuer_serial: str) -> LeafCertificate:
    return LeafCertificate(
        service=service,
        spiffe_id=identity,
        serial=serial_text(pair.certificate),
        issuer_serial=issuer_serial,
        not_before=valid_from(pair.certificate),
        not_after=valid_until(pair.certificate),
        certificate_pem=encode_certificate(pair.certificate),
        private_key_pem=encode_key(pair.key),
    )
