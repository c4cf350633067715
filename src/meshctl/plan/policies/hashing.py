"""What a request is hashed on, so that one user stays with one version or one instance.  Pure.

A sticky split and balancing by hash use the same hash of a route; where both are asked for, the split's holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from meshctl.spec.routing_schema import Sticky
from meshctl.spec.schema import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOn:
    """A part of the request: the cookie or header ``name``, or its source.

    The source is the calling service ``name``, or the client's address where that is empty: to a sidecar all clients
    have the address of this machine, so that all callers would choose alike.

    The first part that a request has decides. ``ttl`` is the life of a cookie that is given to whoever has none:
    seconds, 0 for a session, None when none is given.
    """

    kind: Literal["cookie", "header", "source"]
    name: str = ""
    ttl: float | None = None


def plan_sticky(sticky: Sticky | None) -> HashOn | None:
    """What keeps a user on one version; None when nothing does."""
    if sticky is None:
        return None
    if sticky.cookie:
        return HashOn(kind="cookie", name=sticky.cookie, ttl=sticky.ttl or 0.0)
    return HashOn(kind="header", name=sticky.header)


def plan_balancing_hash(service: Service) -> tuple[HashOn, ...]:
    """What load balancing hashes on; nothing where it does not balance by hash."""
    wanted = service.policies.load_balancing.hash
    if wanted is None:
        return ()
    ttl = (wanted.ttl or 0.0) if wanted.by == "cookie" else None
    return (HashOn(kind=wanted.by, name=wanted.name, ttl=ttl),)


def name_source(hash_on: tuple[HashOn, ...], caller: str) -> tuple[HashOn, ...]:
    """The same with the calling service as the source."""
    return tuple(replace(item, name=caller) if item.kind == "source" else item for item in hash_on)
