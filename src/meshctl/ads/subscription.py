"""What one sidecar wants and has of one resource type on one stream.  Pure; changed only by its session.

Rules of subscribing are those of incremental xDS
(https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds); what the document leaves open was
seen with Envoy 1.40 and is written down in docs/adr/0003-delta-xds.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshctl.ads.messages import Request
from meshctl.ads.snapshot import CLUSTER, LISTENER

REMOVED = ""
"""The version of a resource in a response that removes it."""

UNKNOWN = "?"
"""The version of a resource that the sidecar may have, in a version that is not known."""

_ANY = "*"

_NAMED_FAULTS = re.compile(r"^Error adding/updating (?:cluster|listener)\(s\) ")
# Envoy begins so when it judged each cluster or listener by itself: the good ones of the response are in effect.


@dataclass(slots=True, kw_only=True)
class Response:
    """A response that is not answered yet: ``versions`` by name; ``outdated`` names were asked for again since."""

    nonce: str
    versions: Mapping[str, str]
    outdated: set[str] = field(default_factory=set)


class Subscription:
    """One type on one stream: who is subscribed to, what was acknowledged, what was rejected, what is on its way."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.requested = False
        self.greeted = False
        self.wildcard = False
        self.names: set[str] = set()
        self.acked: dict[str, str] = {}
        self.absent: set[str] = set()
        self.pending: Response | None = None
        self._rejected: dict[tuple[str, str], str] = {}
        self._suspects: set[tuple[str, str]] = set()
        self._outdated: set[str] = set()

    def wants(self, name: str) -> bool:
        """True when the sidecar is subscribed to the name."""
        return self.wildcard or name in self.names

    def rejection(self, name: str, version: str) -> str | None:
        """Why the sidecar refused this version, or None when it did not."""
        return self._rejected.get((name, version))

    def is_settled(self, name: str, version: str) -> bool:
        """True when the sidecar has said yes or no to this version, and has not asked for it again since."""
        return self.acked.get(name) == version or (name, version) in self._rejected

    def update(self, request: Request) -> None:
        """Take in what a request says about subscriptions."""
        first = not self.requested
        self.requested = True
        if first:
            told = request.initial_versions.items()
            self.acked = {name: version for name, version in told if name not in self._outdated}
            # One that comes back with resources knows that its first fetch is over.
            self.greeted = bool(request.initial_versions)
            # Naming nothing at first means everything, for these two types only.
            self.wildcard = self.type_url in (CLUSTER, LISTENER) and not (request.subscribe or request.unsubscribe)
        for name in request.unsubscribe:
            self._unsubscribe(name)
        for name in request.subscribe:
            self._subscribe(name, has=first and name in self.acked)
        if not self.wildcard:
            self.acked = {name: version for name, version in self.acked.items() if name in self.names}

    def renew(self, name: str) -> None:
        """Have the name sent again, whatever was sent of it before or the sidecar says that it has of it."""
        if not self.requested:
            self._outdated.add(name)
        self.acked.pop(name, None)
        self.absent.discard(name)
        if self.pending is not None:
            self.pending.outdated.add(name)

    def choose(self, candidates: Iterable[tuple[str, str]]) -> dict[str, str]:
        """What to send of (name, version) pairs: all, or one alone when one has to be tried by itself."""
        items = list(candidates)
        for item in items:
            if item in self._suspects:
                return dict([item])
        return dict(items)

    def accept(self) -> Mapping[str, str]:
        """Take the acknowledgement of the pending response; returns the versions acknowledged."""
        response = self._take_pending()
        for name, version in response.versions.items():
            self._suspects.discard((name, version))
            if name in response.outdated or not self.wants(name):
                continue
            if version == REMOVED:
                self.acked.pop(name, None)
                if name in self.names:
                    self.absent.add(name)
            else:
                self.acked[name] = version
                self.absent.discard(name)
        return response.versions

    def reject(self, message: str) -> tuple[str, ...]:
        """Take the rejection of the pending response; returns the names that are known to be at fault.

        Where the words do not tell, each resource is tried alone next: a response that cannot be read is refused as a
        whole, the good with the bad.
        """
        response = self._take_pending()
        # A removal is not what is refused where something was sent with it.
        sent = [name for name, version in response.versions.items() if version != REMOVED] or list(response.versions)
        faulty = tuple(sent) if len(sent) == 1 else _find_named(message, sent)
        for name in faulty:
            item = (name, response.versions[name])
            self._rejected[item] = message
            self._suspects.discard(item)
        for name, version in response.versions.items():
            if name not in faulty:
                if not faulty:
                    self._suspects.add((name, version))
                if name in self.acked or (version != REMOVED and self.wants(name)):
                    # It may be in effect or not: neither the version before nor this one can be relied on.
                    self.acked[name] = UNKNOWN
        return faulty

    def retry(self) -> None:
        """Forget every rejection."""
        self._rejected.clear()

    def _subscribe(self, name: str, *, has: bool) -> None:
        if name == _ANY:
            if self.wildcard:
                self.acked = dict.fromkeys(self.acked, UNKNOWN)
                if self.pending is not None:
                    self.pending.outdated.update(self.pending.versions)
            self.wildcard = True
            return
        self.names.add(name)
        if not has:
            # It may have forgotten what it had: a name that is asked for again is sent again.
            self.renew(name)

    def _unsubscribe(self, name: str) -> None:
        if name == _ANY:
            self.wildcard = False
            return
        self.names.discard(name)
        self.absent.discard(name)
        if not self.wildcard:
            self.acked.pop(name, None)
        elif name in self.acked:
            # It cannot know whether the wildcard still covers the name, so it is told: sent again, or removed.
            self.acked[name] = UNKNOWN

    def _take_pending(self) -> Response:
        response = self.pending
        assert response is not None, "only a response that was sent is answered"
        self.pending = None
        return response


def _find_named(message: str, names: Iterable[str]) -> tuple[str, ...]:
    start = _NAMED_FAULTS.match(message)
    if start is None:
        return ()
    listing = ", " + message[start.end() :]
    return tuple(name for name in names if re.search(rf"(?:, |\n){re.escape(name)}: ", listing))
