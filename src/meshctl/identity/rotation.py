"""When certificates are renewed, and the steps by which a root is replaced.  Pure.

Certificates, acknowledgements and the time enter; the services to issue for and commands leave.  Times are seconds
since the epoch, lifetimes are seconds.

A root is replaced so that every sidecar can verify every other one at any moment:

1. the new root is trusted beside the old one, which still signs (*introduced*);
2. the new root signs, and every leaf is issued anew (*switched*);
3. after a while in which connections made before the switch may end, the old root is dropped (*retired*).

Each step is taken only after every sidecar acknowledged the one before, for until then a peer may still be at it.
Which step a CA is at follows from its roots alone, so that a crash between any two steps loses nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from meshctl.ports import LeafCertificate, RootCertificate

LEAF_LIFETIME = 24 * 3600.0
"""Seconds that a service's certificate is valid: short, so that a stolen key is soon worth nothing."""

ROOT_LIFETIME = 10 * 365 * 24 * 3600.0
"""Seconds that a root is valid: it never leaves the machine, and a mesh may lie unused for years."""

BACKDATING = 60.0
"""Seconds by which a certificate is valid before it was issued, so that a clock set back a little does no harm."""

ROOT_OVERLAP = 10.0
"""Seconds that the old root stays trusted after every sidecar has a leaf of the new one. Established connections do
not shake hands again, but one whose handshake is under way may still show an old leaf."""

EARLIEST_ROTATION = 0.50
LATEST_ROTATION = 0.62
"""Shares of its lifetime between which a certificate is renewed: always before two thirds, which leaves eight hours
of a day to notice and mend a renewal that fails."""

_JITTER_STEPS = 2**32


def issued_at(leaf: LeafCertificate | RootCertificate) -> float:
    """When a certificate was issued."""
    return leaf.not_before + BACKDATING


def rotates_at(leaf: LeafCertificate, seed: str = "") -> float:
    """When a leaf is due to be renewed: between 50% and 62% of its lifetime.

    The place in between comes from a hash of its serial and ``seed``, so that it is always the same for one leaf and
    differs among leaves that were issued together.
    """
    digest = hashlib.sha256(f"{seed}/{leaf.serial}".encode()).digest()
    jitter = int.from_bytes(digest[:4]) / _JITTER_STEPS
    share = EARLIEST_ROTATION + jitter * (LATEST_ROTATION - EARLIEST_ROTATION)
    return issued_at(leaf) + share * (leaf.not_after - issued_at(leaf))


def root_rotates_at(root: RootCertificate) -> float:
    """When a root is due to be replaced: at two thirds of its lifetime, long before any leaf of it is cut short."""
    return issued_at(root) + (root.not_after - issued_at(root)) * 2 / 3


def plan_leaves(
    now: float,
    services: Iterable[str],
    leaves: Mapping[str, LeafCertificate],
    active_root_serial: str,
    *,
    seed: str = "",
) -> tuple[str, ...]:
    """The services to issue a leaf for, by name: those without one, and those whose leaf is due, is of a root that
    no longer signs, or is not valid yet because the clock was set back.
    """
    return tuple(
        service
        for service in sorted(set(services))
        if (leaf := leaves.get(service)) is None
        or leaf.issuer_serial != active_root_serial
        or now >= rotates_at(leaf, seed)
        or now < leaf.not_before
    )


# ---------------------------------------------------------------------------------------------- replacing a root

RootPhase = Literal["none", "introduced", "switched", "retired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRotation:
    """How far the replacement of a root is. ``old`` are the serials to drop, ``new`` is the one that stays."""

    phase: RootPhase = "none"
    old: tuple[str, ...] = ()
    new: str = ""


@dataclass(frozen=True, slots=True)
class Requested:
    """The root is to be replaced; ``active`` is the serial of the one that signs now."""

    active: str


@dataclass(frozen=True, slots=True)
class RootAdded:
    """The new root is in the CA's directory."""

    serial: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Every sidecar has all that was published last."""


@dataclass(frozen=True, slots=True)
class OverlapPassed:
    """The time has come that :class:`WaitUntil` named."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The control plane has started, or a step failed: the step that the CA is at is taken again."""


RootEvent = Requested | RootAdded | Acknowledged | OverlapPassed | Resumed


@dataclass(frozen=True, slots=True)
class AddRoot:
    """Make a root that is trusted but does not sign; answered by RootAdded."""


@dataclass(frozen=True, slots=True)
class ActivateRoot:
    """Let a root sign from now on."""

    serial: str


@dataclass(frozen=True, slots=True)
class IssueLeaves:
    """Issue every leaf anew that the active root has not signed."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Hand every sidecar its leaf and the trusted roots; answered by Acknowledged."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Wait until ``at``, in seconds since the epoch; answered by OverlapPassed."""

    at: float


@dataclass(frozen=True, slots=True)
class DropRoots:
    """Trust these roots no more."""

    serials: tuple[str, ...]


RootCommand = AddRoot | ActivateRoot | IssueLeaves | Publish | WaitUntil | DropRoots


def recover(roots: Iterable[RootCertificate]) -> RootRotation:
    """How far the replacement of a root is, from the roots of a CA (oldest first, as the CA gives them).

    Only one root: none is under way. The oldest one signs: a newer one has been introduced. Otherwise the switch was
    made, and all that do not sign are to be dropped. Should the clock have been set back between making the roots,
    so that their ages mislead, the replacement is undone in the same safe steps instead of completed.
    """
    ordered = tuple(roots)
    if len(ordered) <= 1:
        return RootRotation()
    active = next(root.serial for root in ordered if root.active)
    if ordered[0].serial == active:
        new = ordered[-1].serial
        return RootRotation(phase="introduced", old=tuple(r.serial for r in ordered if r.serial != new), new=new)
    return RootRotation(phase="switched", old=tuple(r.serial for r in ordered if not r.active), new=active)


def step(  # noqa: C901, PLR0911 - the machine's table: one line of it per phase and event
    state: RootRotation, event: RootEvent, now: float, *, overlap: float = ROOT_OVERLAP
) -> tuple[RootRotation, tuple[RootCommand, ...]]:
    """Take one step; commands are to be carried out in order.

    Raises ValueError for an event that cannot happen in the phase.
    """
    match state.phase, event:
        case "none", Requested(active):
            return RootRotation(old=(active,)), (AddRoot(),)
        case "none", RootAdded(serial) if state.old:
            return replace(state, phase="introduced", new=serial), (Publish(),)
        case "none", Resumed():
            return RootRotation(), ()
        case "introduced", Acknowledged():
            return replace(state, phase="switched"), (ActivateRoot(state.new), IssueLeaves(), Publish())
        case "introduced" | "retired", Resumed():
            return state, (Publish(),)
        case "switched", Acknowledged():
            return state, (WaitUntil(now + overlap),)
        case "switched", OverlapPassed():
            return replace(state, phase="retired"), (DropRoots(state.old), Publish())
        case "switched", Resumed():
            # The crash may have come between the switch and the leaves.
            return state, (IssueLeaves(), Publish())
        case "retired", Acknowledged():
            return RootRotation(), ()
        case phase, _:
            raise ValueError(f"{type(event).__name__} cannot happen to a root rotation in phase {phase}")
