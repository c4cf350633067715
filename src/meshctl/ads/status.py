"""Session -> what a person is shown of it: is this sidecar at the newest configuration, and if not, why?  Pure.

``acked_at`` is filled in by the owner of the stream, who has a clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from meshctl.ads.session import Session
from meshctl.ads.snapshot import BUCKET, CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME, SECRET, TYPE_URLS
from meshctl.ads.subscription import UNKNOWN

SyncState = Literal["synced", "stale", "rejected", "disconnected"]
TypeName = Literal["runtime", "clusters", "endpoints", "secrets", "listeners", "routes", "rates"]

TYPE_NAMES: dict[str, TypeName] = {
    CLUSTER: "clusters",
    ENDPOINT: "endpoints",
    SECRET: "secrets",
    LISTENER: "listeners",
    ROUTE: "routes",
    RUNTIME: "runtime",
    BUCKET: "rates",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeStatus:
    """One type at one sidecar.

    ``resources`` counts what it has acknowledged, ``pending`` what it still has to take or let go, ``rejected`` what
    it refused; ``version`` is a digest over the versions it has, empty when it has nothing; ``error`` holds its words
    about what it refused; ``acked_at`` is when it last acknowledged, in seconds since the epoch.
    """

    type: TypeName
    state: SyncState
    resources: int
    pending: int
    rejected: int
    version: str
    error: str
    acked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """The sync state of one sidecar.

    ``version`` is the snapshot that it should have, empty when there is none; ``error`` is the first rejection, with
    the name of what was rejected.
    """

    node: str
    state: SyncState
    connected: bool
    version: str
    types: tuple[TypeStatus, ...]
    error: str


def describe_disconnected(node: str, version: str = "") -> SyncStatus:
    """The status of a sidecar that has no stream; ``version`` is the snapshot that it should have."""
    types = tuple(
        TypeStatus(type=TYPE_NAMES[url], state="disconnected", resources=0, pending=0, rejected=0, version="", error="")
        for url in TYPE_URLS
    )
    return SyncStatus(node=node, state="disconnected", connected=False, version=version, types=types, error="")


def describe(session: Session) -> SyncStatus:
    """The status of a sidecar that is connected."""
    errors: dict[str, list[str]] = {url: [] for url in TYPE_URLS}
    for url, name, message in session.find_rejections():
        errors[url].append(f"{name}: {message.strip()}")
    types = tuple(_describe_type(session, url, errors[url]) for url in TYPE_URLS)
    first = next((words for url in TYPE_URLS for words in errors[url]), "")
    state: SyncState = "rejected" if first else "synced" if session.is_synced else "stale"
    snapshot = session.snapshot
    return SyncStatus(
        node=session.node,
        state=state,
        connected=True,
        version=snapshot.version if snapshot is not None else "",
        types=types,
        error=first,
    )


def _describe_type(session: Session, type_url: str, errors: list[str]) -> TypeStatus:
    subscription = session.subscriptions[type_url]
    pending = session.count_pending(type_url)
    is_current = session.snapshot is not None and pending == 0 and subscription.pending is None
    digest = hashlib.sha256()
    for name, version in sorted(subscription.acked.items()):
        digest.update(f"{name} {version}\n".encode())
    return TypeStatus(
        type=TYPE_NAMES[type_url],
        state="rejected" if errors else "synced" if is_current else "stale",
        resources=sum(version != UNKNOWN for version in subscription.acked.values()),
        pending=pending,
        rejected=len(errors),
        version=digest.hexdigest()[:8] if subscription.acked else "",
        error="; ".join(errors),
    )
