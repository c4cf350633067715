"""What has changed around a rollout since somebody last looked: its version, its split, the control plane.  Pure."""

from __future__ import annotations

from meshctl.canary.model import FULL, Cancelled, Disturbed, Event, Restarted, Revised, Rollout
from meshctl.control.rollout_starts import revision_of
from meshctl.spec.schema import Mesh, Service

_STAYS = frozenset({"running", "paused", "frozen"})


def split_of(rollout: Rollout, weight: int) -> dict[str, int]:
    """The split of a service in which the version has a weight."""
    split = {rollout.stable: FULL - weight, rollout.version: weight}
    return {version: share for version, share in split.items() if share}


def find_loss(rollout: Rollout, mesh: Mesh, declared: Mesh | None) -> Cancelled | None:
    """That the rollout has lost its object; None while all is there, or only left out of ``up SERVICE...``."""
    service = mesh.services.get(rollout.service)
    if service is None:
        gone = declared is not None and rollout.service not in declared.services
        return Cancelled(message=f"the topology no longer has {rollout.service}") if gone else None
    if rollout.version not in service.versions:
        return Cancelled(message=f"the topology no longer has {rollout.version} of {rollout.service}")
    if rollout.stable != service.stable:
        return Cancelled(message=f"the stable version of {rollout.service} is {service.stable} now")
    return None


def find_change(rollout: Rollout, service: Service, *, busy: bool, known: bool) -> Event | None:
    """What has changed around a rollout whose object is there.

    ``busy`` is whether a weight is being brought into effect, ``known`` whether this control plane has it in hand.
    """
    if not busy:
        if known and rollout.pushing:
            # What came of it could not be written down.
            return Restarted()
        if disturbed := _find_disturbance(rollout, dict(service.split), known=known):
            return disturbed
    if not known:
        return Restarted()
    revision = revision_of(service.versions[rollout.version])
    return Revised(revision=revision) if revision != rollout.revision else None


def _find_disturbance(rollout: Rollout, actual: dict[str, int], *, known: bool) -> Disturbed | None:
    if rollout.phase not in _STAYS or rollout.pause == "disturbed" or actual == split_of(rollout, rollout.applied):
        return None
    if not known and actual == split_of(rollout, rollout.weight):
        # It came into effect while nobody was there to write that down.
        return None
    told = ", ".join(f"{name} {weight}%" for name, weight in sorted(actual.items()))
    message = f"somebody else has set the split of {rollout.service}: {told}"
    return Disturbed(message=message, weight=actual.get(rollout.version, 0))
