"""What enters a session (events) and what leaves it (commands).  Pure, frozen values.

An event is something that happened to the stream or to the control plane; a command is something that the owner of
the stream has to do, or to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.ads.snapshot import Resource, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of the sidecar, as ``DeltaDiscoveryRequest`` carries it.

    ``nonce`` names the response that it acknowledges, empty when it is about subscriptions only; ``error`` is None for
    an acknowledgement and the sidecar's words for a rejection. ``initial_versions`` tells, in the first request of a
    type on a stream, what the sidecar already has.
    """

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotChanged:
    """The sidecar should now have this snapshot; what was not yet sent of an older one never will be."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class RetryRejected:
    """Forget what was rejected, so that it is sent once more: the reason may have gone (a port that was taken)."""


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Send what is leased once more, so that it stays in effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send one response; ``resources`` and ``removed`` may both be empty, to say that there is nothing."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """The sidecar took a response. ``versions`` are by name; removed names have the version ``""``."""

    type_url: str
    nonce: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nacked:
    """The sidecar refused a response, saying ``message``.

    ``names`` are the resources now known to be at fault; empty when the words do not tell, and then each resource of
    the response is tried alone.
    """

    type_url: str
    nonce: str
    names: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Synced:
    """The sidecar has acknowledged everything of the snapshot with this version."""

    snapshot_version: str


Event = Request | SnapshotChanged | RetryRejected | RenewLeases
Command = Send | Acked | Nacked | Synced
