"""One sidecar's stream of incremental xDS as a state machine.  Pure: events enter, commands leave, no time in it.

It decides what to send, when, and in which order, so that no request is lost while configuration changes (make before
break): clusters, endpoints, secrets, listeners, routes; a resource waits for those that it needs; removals come when
everything else is acknowledged. At most one response of a type is on its way, so that an answer is never ambiguous.

Every ``receive`` compares what the sidecar should have with what it acknowledged, so nothing is queued and a newer
snapshot replaces whatever was not sent. Endpoints are named like their cluster, and each route table of a snapshot is
used by one of its listeners; a sidecar asks for both by itself.

Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from meshctl.ads.messages import (
    Acked,
    Command,
    Event,
    Nacked,
    RenewLeases,
    Request,
    RetryRejected,
    Send,
    SnapshotChanged,
    Synced,
)
from meshctl.ads.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, TYPE_URLS, Resource, Snapshot
from meshctl.ads.subscription import REMOVED, UNKNOWN, Response, Subscription

__all__ = [
    "Acked",
    "Command",
    "Event",
    "Nacked",
    "RenewLeases",
    "Request",
    "RetryRejected",
    "Send",
    "Session",
    "SnapshotChanged",
    "Synced",
]

_REMOVAL_PHASES = ((LISTENER,), (ROUTE,), (CLUSTER,), (ENDPOINT, SECRET))
# Users go before what they use; each phase waits for the one before it to be acknowledged.

_USED_BY_OTHERS = frozenset({CLUSTER, ENDPOINT, SECRET})


class Session:
    """What one sidecar was sent and what it said to it, on one stream; a new stream needs a new session."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._snapshot: Snapshot | None = None
        self._subscriptions = {url: Subscription(url) for url in TYPE_URLS}
        self._nonces = 0
        self._settled = False
        self._synced: str | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """What the sidecar should have; None when nothing was published for it."""
        return self._snapshot

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The state of each type, to look at."""
        return self._subscriptions

    @property
    def is_settled(self) -> bool:
        """True when nothing is on its way, and the sidecar said yes or no to everything that it should have."""
        return self._settled

    @property
    def is_synced(self) -> bool:
        """True when the sidecar has acknowledged everything that it should have."""
        return self._synced is not None

    def receive(self, event: Event) -> list[Command]:
        """Take in one event; returns what is to be done about it, in order."""
        commands: list[Command] = []
        if isinstance(event, Request):
            commands += self._answer(event)
        elif isinstance(event, SnapshotChanged):
            self._snapshot = event.snapshot
        elif isinstance(event, RenewLeases):
            commands += self._renew_leases()
        else:
            for subscription in self._subscriptions.values():
                subscription.retry()
        if self._snapshot is not None:
            commands += self._add(self._snapshot)
            commands += self._remove(self._snapshot)
            commands += self._note_sync(self._snapshot)
        return commands

    def find_rejections(self) -> list[tuple[str, str, str]]:
        """What was rejected of the present snapshot: (type URL, name, the sidecar's words)."""
        snapshot = self._snapshot
        if snapshot is None:
            return []
        found = []
        for url, subscription in self._subscriptions.items():
            wanted = {name: item.version for name, item in snapshot.of(url).items()}
            gone = dict.fromkeys(subscription.acked.keys() - wanted.keys(), REMOVED)
            for name, version in sorted((wanted | gone).items()):
                message = subscription.rejection(name, version)
                if message is not None:
                    found.append((url, name, message))
        return found

    def count_pending(self, type_url: str) -> int:
        """How many resources of a type the sidecar still has to take, or to let go."""
        snapshot = self._snapshot
        if snapshot is None:
            return 0
        subscription = self._subscriptions[type_url]
        missing = sum(
            not subscription.is_settled(name, item.version)
            for name, item in snapshot.of(type_url).items()
            if subscription.wants(name) or self._is_expected(snapshot, item)
        )
        return missing + len(self._find_removals(snapshot, subscription))

    # ------------------------------------------------------------------------------------------------------ answers

    def _answer(self, request: Request) -> Iterator[Command]:
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            # A type that is not served (runtime, say): the sidecar waits for it in vain and goes on by itself.
            return
        # An answer is about what was sent before, so it comes before the subscriptions that travel with it.
        if subscription.pending is not None and request.nonce == subscription.pending.nonce:
            if request.error is None:
                versions = subscription.accept()
                yield Acked(type_url=request.type_url, nonce=request.nonce, versions=versions)
            else:
                names = subscription.reject(request.error)
                yield Nacked(type_url=request.type_url, nonce=request.nonce, names=names, message=request.error)
        if request.type_url == ENDPOINT and not self._subscriptions[CLUSTER].requested:
            # Envoy asks for clusters first, unless it is kept from it by clusters that warm since before the stream:
            # those wait for their endpoints, even for the ones that it has.
            request = replace(request, initial_versions={})
        subscription.update(request)

    # ---------------------------------------------------------------------------------------------------- additions

    def _add(self, snapshot: Snapshot) -> Iterator[Send]:
        for url in TYPE_URLS:
            subscription = self._subscriptions[url]
            if not subscription.requested or subscription.pending is not None:
                continue
            wanted = snapshot.of(url)
            candidates = [
                (name, item.version)
                for name, item in wanted.items()
                if subscription.wants(name)
                and not subscription.is_settled(name, item.version)
                and self._may_send(snapshot, item)
            ]
            candidates += [(name, REMOVED) for name in self._find_absent(snapshot, subscription)]
            is_empty = subscription.wildcard and not wanted and not subscription.greeted
            if candidates or is_empty:
                # A first fetch that finds nothing is answered too: Envoy starts nothing before, or waits 15 s.
                yield self._send(snapshot, subscription, subscription.choose(candidates))

    def _may_send(self, snapshot: Snapshot, item: Resource) -> bool:
        if item.type_url == ENDPOINT and self._subscriptions[ENDPOINT].acked.get(item.name, UNKNOWN) != UNKNOWN:
            # An update of endpoints follows the one of their cluster. Endpoints that a cluster waits for are never
            # held: Envoy acknowledges clusters only when they have warmed.
            return not self._is_due(snapshot, CLUSTER, item.name)
        return all(self._is_in_place(snapshot, url, name) for url, name in item.needs)

    def _is_due(self, snapshot: Snapshot, type_url: str, name: str) -> bool:
        """True when a change of the resource was not even sent."""
        item = snapshot.of(type_url).get(name)
        subscription = self._subscriptions[type_url]
        if item is None or not subscription.wants(name) or subscription.is_settled(name, item.version):
            return False
        return subscription.pending is None or name not in subscription.pending.versions

    def _is_in_place(self, snapshot: Snapshot, type_url: str, name: str) -> bool:
        """True when what needs the resource need not wait for it any more: acknowledged, rejected, or not asked for."""
        item = snapshot.of(type_url)[name]
        subscription = self._subscriptions[type_url]
        if subscription.is_settled(name, item.version):
            return True
        return not subscription.wants(name) and not self._is_expected(snapshot, item)

    def _is_expected(self, snapshot: Snapshot, item: Resource) -> bool:
        """True when the sidecar will ask for the resource by itself, and it is too early to go on without it."""
        if item.type_url == ENDPOINT:
            cluster = snapshot.of(CLUSTER).get(item.name)
            return cluster is not None and self._subscriptions[CLUSTER].rejection(cluster.name, cluster.version) is None
        if item.type_url == ROUTE:
            # Which listener uses which routes is not known here; one that was refused will not ask for its own.
            listeners = self._subscriptions[LISTENER]
            wanted = snapshot.of(LISTENER).items()
            return bool(wanted) and all(listeners.rejection(name, it.version) is None for name, it in wanted)
        return item.type_url in (CLUSTER, LISTENER) and not self._subscriptions[item.type_url].requested

    def _find_absent(self, snapshot: Snapshot, subscription: Subscription) -> list[str]:
        """Names asked for that do not exist, so that a cluster need not wait 15 s for its endpoints.

        Not for routes: Envoy 1.40 ignores the removal, but stops its own timer, and the listener would wait for ever.
        """
        if subscription.type_url == ROUTE:
            return []
        return sorted(
            name
            for name in subscription.names - snapshot.of(subscription.type_url).keys() - subscription.absent
            if name not in subscription.acked and subscription.rejection(name, REMOVED) is None
        )

    def _renew_leases(self) -> Iterator[Send]:
        """Send what is leased once more; what is on its way, or was refused, is not.

        It is sent whole: a sidecar that has let go of it (its control plane was stopped for a while) has it again. And
        nothing waits for the answer: what is acknowledged stays so, and a sidecar that is synced is so all the time.
        """
        for url, subscription in self._subscriptions.items():
            items = self._snapshot.of(url) if self._snapshot is not None else {}
            leased = [
                item for item in items.values() if item.leased and subscription.acked.get(item.name) == item.version
            ]
            if leased and subscription.pending is None:
                yield Send(type_url=url, nonce=self._next_nonce(), resources=tuple(leased), removed=())

    # ----------------------------------------------------------------------------------------------------- removals

    def _remove(self, snapshot: Snapshot) -> Iterator[Send]:
        if not self._find_settled(snapshot):
            return
        # Where something was rejected its last good version stays in effect, and may use what is to be removed.
        keeps_old = bool(self.find_rejections())
        for phase in _REMOVAL_PHASES:
            is_due = False
            for url in phase:
                subscription = self._subscriptions[url]
                names = self._find_removals(snapshot, subscription)
                if names and not (keeps_old and url in _USED_BY_OTHERS):
                    is_due = True
                    yield self._send(snapshot, subscription, subscription.choose((name, REMOVED) for name in names))
            if is_due:
                return

    def _find_removals(self, snapshot: Snapshot, subscription: Subscription) -> list[str]:
        return sorted(
            name
            for name in subscription.acked.keys() - snapshot.of(subscription.type_url).keys()
            if subscription.rejection(name, REMOVED) is None
        )

    # --------------------------------------------------------------------------------------------------------- both

    def _send(self, snapshot: Snapshot, subscription: Subscription, versions: Mapping[str, str]) -> Send:
        nonce = self._next_nonce()
        subscription.pending = Response(nonce=nonce, versions=versions)
        subscription.greeted = True
        items = snapshot.of(subscription.type_url)
        kept = [name for name, version in versions.items() if version != REMOVED]
        if subscription.type_url == CLUSTER:
            # An updated cluster warms until its endpoints come again, and Envoy does not ask for them.
            endpoints = self._subscriptions[ENDPOINT]
            for name in kept:
                if endpoints.wants(name) or not endpoints.requested:
                    endpoints.renew(name)
        return Send(
            type_url=subscription.type_url,
            nonce=nonce,
            resources=tuple(items[name] for name in kept),
            removed=tuple(name for name, version in versions.items() if version == REMOVED),
        )

    def _next_nonce(self) -> str:
        self._nonces += 1
        return str(self._nonces)

    def _find_settled(self, snapshot: Snapshot) -> bool:
        """True when nothing is on its way, and everything but removals was acknowledged or rejected."""
        for url, subscription in self._subscriptions.items():
            if subscription.pending is not None or (not subscription.requested and url in (CLUSTER, LISTENER)):
                return False
            for name, item in snapshot.of(url).items():
                if not self._is_in_place(snapshot, url, name) or (
                    subscription.wants(name) and not subscription.is_settled(name, item.version)
                ):
                    return False
        return True

    def _note_sync(self, snapshot: Snapshot) -> Iterator[Synced]:
        self._settled = self._find_settled(snapshot)
        is_synced = (
            self._settled
            and not self.find_rejections()
            and not any(self._find_removals(snapshot, item) for item in self._subscriptions.values())
        )
        before, self._synced = self._synced, snapshot.version if is_synced else None
        if self._synced is not None and self._synced != before:
            yield Synced(self._synced)
