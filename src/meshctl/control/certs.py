"""Keeps every sidecar's certificate fresh, and replaces the root without breaking a connection.  I/O (runner).

Enters: the services that need a certificate, the time.  Leaves: certificates in the authority, publications, events.
When and in which order is decided by identity.rotation; this module carries it out.

Invariant: what was issued and not acknowledged is published again until it is, and a replacement of the root that
was interrupted is taken up where the authority's files say it stopped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

import msgspec

from meshctl.errors import ConflictError, MeshctlError, NotFoundError
from meshctl.identity.rotation import (
    BACKDATING,
    LEAF_LIFETIME,
    ROOT_LIFETIME,
    ROOT_OVERLAP,
    Acknowledged,
    ActivateRoot,
    AddRoot,
    DropRoots,
    IssueLeaves,
    OverlapPassed,
    Publish,
    Requested,
    Resumed,
    RootAdded,
    RootCommand,
    RootEvent,
    RootRotation,
    WaitUntil,
    plan_leaves,
    recover,
    root_rotates_at,
    rotates_at,
    step,
)
from meshctl.identity.served import read_served_serials
from meshctl.identity.spiffe import trust_domain_id
from meshctl.ports import CertificateAuthority, Clock, LeafCertificate, RootCertificate
from meshctl.wire.models import AppliedResult, Certificate, CertificateCheck, CertificateReport

Level = Literal["info", "warning", "error"]

RETRY_DELAY = 30.0
"""Seconds until what could not be published, or not be stored, is tried again."""

LONGEST_WAIT = 60.0
"""Seconds after which the wall clock is looked at again: while a machine sleeps, timers stand still and certificates
go on ageing."""

SHORTEST_WAIT = 0.1
"""Seconds between two looks at the certificates, at least, however short-lived they are."""


class CertRunner:
    """Issues, renews and rotates the certificates of one trust domain.

    Args:
        authority: where they are made and kept.
        clock: the wall clock counts, since certificates are compared with it everywhere.
        services: the sidecars that need a certificate now, by service.
        left_alone: services that keep the certificate they have, whatever is wrong with it: a fault gave it to them.
        publish: hands every sidecar its current certificate and roots; returns when all have acknowledged, raises
            RejectedError or WaitTimeoutError when they do not.
        report: told of what happened: kind, subject, message, level.
        wait: sleeps for some seconds.
        served: the answer of one sidecar to ``GET /certs``; raises OSError when it gives none. None: not asked.
        overlap: seconds that the old root stays trusted after every sidecar has a leaf of the new one.
        leaf_lifetime: seconds that a leaf is valid.
        root_lifetime: seconds that a root made by a rotation is valid.
    """

    def __init__(
        self,
        *,
        authority: CertificateAuthority,
        clock: Clock,
        services: Callable[[], frozenset[str]],
        left_alone: Callable[[], frozenset[str]] = frozenset,
        publish: Callable[[], Awaitable[AppliedResult]],
        report: Callable[[str, str, str, Level], object],
        wait: Callable[[float], Awaitable[None]],
        served: Callable[[str], Awaitable[str]] | None = None,
        overlap: float = ROOT_OVERLAP,
        leaf_lifetime: float = LEAF_LIFETIME,
        root_lifetime: float = ROOT_LIFETIME,
    ) -> None:
        self._authority = authority
        self._clock = clock
        self._services = services
        self._left_alone = left_alone
        self._publish = publish
        self._report = report
        self._wait = wait
        self._served = served
        self._overlap = overlap
        self._leaf_lifetime = leaf_lifetime
        self._root_lifetime = root_lifetime
        self._lock = asyncio.Lock()
        self._unpublished: set[str] = set()
        self._owes_publication = False
        self._replacing_root = False

    # ------------------------------------------------------------------------------------------ issuing

    def ensure(self, services: Iterable[str]) -> tuple[str, ...]:
        """
        Issue the certificates that are missing or due, and give the services concerned; nothing is published.

        Raises MeshctlError when they cannot be stored.
        """
        now = self._clock.now()
        active = self._authority.ensure_root(now)
        wanted = sorted(set(services))
        leaves = {service: leaf for service in wanted if (leaf := self._authority.leaf(service)) is not None}
        kept = self._left_alone() & leaves.keys()
        wanted = [service for service in wanted if service not in kept]
        due = plan_leaves(now, wanted, leaves, active.serial, seed=self._authority.trust_domain)
        for service in due:
            self._authority.issue(service, now=now, lifetime=self._leaf_lifetime)
        return due

    async def run(self) -> None:
        """Renew certificates as they become due, for ever. Failures are reported and tried again."""
        while True:
            await self._wait(await self._take_turn())

    async def rotate(self, service: str | None = None) -> AppliedResult:
        """
        Issue the certificate of one service anew, or all of them; returns when every sidecar has its own.

        Raises:
            NotFoundError: there is no such service.
            RejectedError, WaitTimeoutError: not every sidecar took it; it is published again by itself.
            MeshctlError: it cannot be stored.
        """
        async with self._lock:
            known = self._services()
            if service is not None and service not in known:
                raise NotFoundError(f"no sidecar {service}", hint=f"sidecars: {', '.join(sorted(known))}")
            self._authority.ensure_root(self._clock.now())
            chosen = sorted(known) if service is None else [service]
            for name in chosen:
                self._authority.issue(name, now=self._clock.now(), lifetime=self._leaf_lifetime)
            self._unpublished.update(chosen)
            applied = await self._publish_leaves()
        what = f"the certificate of {service}" if service is not None else "every certificate"
        return msgspec.structs.replace(applied, message=f"rotated {what}")

    async def falsify(self, service: str, valid_from: float) -> AppliedResult:
        """
        Issue a certificate of one service that is not valid before a moment, in seconds since the epoch.

        Raises what ``rotate`` raises.
        """
        async with self._lock:
            self._authority.ensure_root(self._clock.now())
            self._authority.issue(service, now=valid_from + BACKDATING, lifetime=self._leaf_lifetime)
            self._unpublished.add(service)
            return await self._publish_leaves()

    async def rotate_root(self) -> AppliedResult:
        """
        Replace the root and every certificate; returns when no sidecar trusts the old root any more. One that was
        interrupted is completed.

        Raises:
            ConflictError: a replacement is under way.
            RejectedError, WaitTimeoutError: a step was not acknowledged; it is tried again by itself.
            MeshctlError: something cannot be stored.
        """
        if self._replacing_root:
            raise ConflictError("the root is being replaced already", hint="wait until it is done: meshctl events -f")
        start = self._clock.monotonic()
        self._replacing_root = True
        try:
            async with self._lock:
                active = self._authority.ensure_root(self._clock.now())
                under_way = recover(self._authority.roots()).phase != "none"
                applied = await self._replace_root(Resumed() if under_way else Requested(active.serial))
        finally:
            self._replacing_root = False
        duration = (self._clock.monotonic() - start) * 1000
        return msgspec.structs.replace(applied, message="replaced the root and every certificate", duration_ms=duration)

    # ------------------------------------------------------------------------------------------ showing

    def list(self) -> tuple[Certificate, ...]:
        """The roots, oldest first, then the leafs of the services that have one, by name."""
        leaves = [leaf for service in sorted(self._services()) if (leaf := self._authority.leaf(service)) is not None]
        return (
            *(self._show_root(root) for root in self._authority.roots()),
            *(self._show_leaf(leaf) for leaf in leaves),
        )

    async def verify(self) -> CertificateReport:
        """Check the files, the chains, and what each sidecar really serves."""
        services = sorted(self._services())
        checks = [
            CertificateCheck(name=finding.name, ok=finding.ok, message=finding.message)
            for finding in self._authority.verify(services, self._clock.now())
        ]
        if self._served is not None:
            checks += await asyncio.gather(*(self._check_served(service, self._served) for service in services))
        return CertificateReport(ok=all(check.ok for check in checks), checks=checks)

    # ------------------------------------------------------------------------------------------ steps

    async def _take_turn(self) -> float:
        """Do what is due now; the seconds to wait then."""
        try:
            async with self._lock:
                await self._renew_root()
                self._unpublished.update(self.ensure(self._services()))
                self._unpublished &= self._services()
                if self._unpublished or self._owes_publication:
                    await self._publish_leaves()
        except MeshctlError as error:
            message = f"certificates could not be renewed, next try in {RETRY_DELAY:g} s: {error.message}"
            self._report("certificate.failed", "certificates", message, "error")
            return RETRY_DELAY
        return min(max(self._next_due() - self._clock.now(), SHORTEST_WAIT), LONGEST_WAIT)

    async def _renew_root(self) -> None:
        roots = self._authority.roots()
        if recover(roots).phase != "none":
            await self._replace_root(Resumed())
            return
        active = next((root for root in roots if root.active), None)
        if active is not None and root_rotates_at(active) <= self._clock.now() and self._services():
            await self._replace_root(Requested(active.serial))

    async def _publish_leaves(self) -> AppliedResult:
        published = sorted(self._unpublished)
        # The roots may have changed too, which shows in no leaf.
        self._owes_publication = True
        applied = await self._publish()
        self._owes_publication = False
        self._unpublished.difference_update(published)
        for service in published:
            leaf = self._authority.leaf(service)
            if leaf is not None:
                self._report(
                    "certificate.rotated", service, f"{service} has a new certificate {leaf.serial[:8]}", "info"
                )
        return applied

    async def _replace_root(self, event: RootEvent) -> AppliedResult:
        """Drive the machine until it rests; after a failure the authority's files tell how far it came."""
        applied = AppliedResult(message="", acked=0, total=0, duration_ms=0.0)
        state, commands = step(recover(self._authority.roots()), event, self._clock.now(), overlap=self._overlap)
        todo = deque(commands)
        while todo:
            command = todo.popleft()
            answer: RootEvent | None
            if isinstance(command, Publish):
                applied = await self._publish_leaves()
                self._report_acknowledged(state)
                answer = Acknowledged()
            else:
                answer = await self._carry_out(command)
            if answer is not None:
                state, commands = step(state, answer, self._clock.now(), overlap=self._overlap)
                todo.extend(commands)
        return applied

    async def _carry_out(self, command: RootCommand) -> RootEvent | None:
        match command:
            case AddRoot():
                root = self._authority.add_root(now=self._clock.now(), lifetime=self._root_lifetime)
                return RootAdded(root.serial)
            case ActivateRoot(serial):
                self._authority.activate_root(serial)
            case IssueLeaves():
                self._unpublished.update(self.ensure(self._services()))
            case WaitUntil(at):
                await self._wait(max(at - self._clock.now(), 0.0))
                return OverlapPassed()
            case DropRoots(serials):
                for serial in serials:
                    self._authority.drop_root(serial)
            case Publish():
                raise AssertionError("publications are carried out where their result is kept")
        return None

    def _report_acknowledged(self, state: RootRotation) -> None:
        new, old = state.new[:8], ", ".join(serial[:8] for serial in state.old)
        match state.phase:
            case "introduced":
                message = f"every sidecar trusts root {new} beside {old}, which still signs"
            case "switched":
                message = f"every sidecar has a certificate signed by root {new}"
            case "retired":
                message = f"no sidecar trusts root {old} any more"
            case "none":
                return
        self._report(f"root.{state.phase}", new, message, "info")

    def _next_due(self) -> float:
        seed = self._authority.trust_domain
        leaves = [leaf for service in self._services() if (leaf := self._authority.leaf(service)) is not None]
        return min((rotates_at(leaf, seed) for leaf in leaves), default=self._clock.now() + LONGEST_WAIT)

    # ------------------------------------------------------------------------------------------ shapes

    def _show_root(self, root: RootCertificate) -> Certificate:
        return Certificate(
            name=f"root-{root.serial[:8]}",
            kind="root",
            spiffe_id=trust_domain_id(self._authority.trust_domain),
            serial=root.serial,
            issuer_serial=root.serial,
            not_before=root.not_before,
            not_after=root.not_after,
            rotates_at=root_rotates_at(root) if root.active else None,
            active=root.active,
            pem=root.certificate_pem.decode(),
        )

    def _show_leaf(self, leaf: LeafCertificate) -> Certificate:
        return Certificate(
            name=leaf.service,
            kind="leaf",
            spiffe_id=leaf.spiffe_id,
            serial=leaf.serial,
            issuer_serial=leaf.issuer_serial,
            not_before=leaf.not_before,
            not_after=leaf.not_after,
            rotates_at=rotates_at(leaf, self._authority.trust_domain),
            active=True,
            pem=leaf.certificate_pem.decode(),
        )

    async def _check_served(self, service: str, served: Callable[[str], Awaitable[str]]) -> CertificateCheck:
        name = f"sidecar {service}"
        try:
            serials = read_served_serials(await served(service))
        except OSError as error:
            return CertificateCheck(name=name, ok=False, message=f"it does not answer: {error}")
        except ValueError as error:
            return CertificateCheck(name=name, ok=False, message=f"its answer cannot be read: {error}")
        leaf = self._authority.leaf(service)
        if leaf is None or not serials:
            return CertificateCheck(name=name, ok=True, message="it uses no certificate")
        others = sorted(serials - {leaf.serial})
        if others:
            message = f"it serves {', '.join(other[:8] for other in others)} instead of {leaf.serial[:8]}"
            return CertificateCheck(name=name, ok=False, message=message)
        return CertificateCheck(name=name, ok=True, message=f"it serves {leaf.serial[:8]}, the current certificate")
