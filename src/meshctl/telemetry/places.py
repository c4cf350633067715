"""What the names in stats stand for in a mesh: services, versions, callers.  Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from meshctl.identity.spiffe import parse_service

NOWHERE = "-"
"""The destination of requests that no route of a service took, and the source of those without a certificate."""

OUTSIDE = "passthrough"
"""The destination of requests to hosts outside the mesh that are no service of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """What there is in a mesh: ``versions`` by service, ``edges`` as source and destination, ``instances`` as service
    and version by id, and which services are ``secured`` by mTLS.
    """

    trust_domain: str
    versions: Mapping[str, tuple[str, ...]]
    edges: frozenset[tuple[str, str]]
    instances: Mapping[str, tuple[str, str]]
    secured: Mapping[str, bool]


def destination_of(cluster: str, route: str, services: Container[str]) -> tuple[str, str]:
    """The service and version that a cluster stands for; without a cluster, what the route is named after."""
    if not cluster:
        return (route if route in services else NOWHERE), ""
    if cluster == OUTSIDE:
        return OUTSIDE, ""
    head, _, tail = cluster.partition("/")
    return (tail, "") if head == "external" else (head, tail)


def caller_of(peer: str, trust_domain: str) -> str:
    """The service that an identity names."""
    try:
        return parse_service(peer, trust_domain)
    except ValueError:
        # It showed no certificate, as one may where plain text is let in.
        return NOWHERE
