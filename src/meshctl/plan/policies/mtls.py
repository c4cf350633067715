"""mTLS between sidecars: how a service is reached, and how that changes while it is being called.  Pure.

A change between plain text and mTLS concerns two sides that do not change at one moment. So it goes in steps: the
callee takes both, then its callers change over, then the callee takes only what it is meant to. Each step begins when
every sidecar has acknowledged the one before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshctl.plan.policies.authorization import (
    GATEWAY,
    AuthorizationPlan,
    admitted,
    plan_authorization,
)
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.validate_security import ANONYMOUS


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundTls:
    """A listener that takes mTLS: only clients of ``trust_domain`` with a certificate of the mesh's CA may connect.

    With ``plain`` it takes plain text as well; with ``listed`` only those may connect whom ``ProxyPlan.peers`` names.
    """

    trust_domain: str
    plain: bool = False
    listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Who may connect to a service that speaks plain TCP: names; None for everybody of the trust domain."""

    trust_domain: str
    names: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How a service is reached: whether its callers encrypt, and what its listeners take."""

    encrypted: bool
    takes_plain: bool
    takes_tls: bool = True


def plan_transport(service: Service) -> Transport:
    """How a service is to be reached.

    Where ``mtls`` is ``false`` a listener for HTTP takes mTLS all the same: it costs nothing, and makes the way back
    one step shorter. One for plain TCP does not: to tell the two apart it would have to wait for the client's first
    bytes, and in some protocols the server speaks first.
    """
    mode = service.policies.security.mtls
    if mode == "off":
        return Transport(encrypted=False, takes_plain=True, takes_tls=service.protocol != "tcp")
    return Transport(encrypted=True, takes_plain=mode == "permissive")


def next_transport(now: Transport, target: Transport) -> Transport:
    """The next step from one way to another; the target itself when it is the last."""
    if now.encrypted == target.encrypted:
        return target
    if now.takes_plain and now.takes_tls:
        return Transport(encrypted=target.encrypted, takes_plain=True)
    return Transport(encrypted=now.encrypted, takes_plain=True)


def plan_inbound_tls(
    mesh: Mesh, service: Service, transport: Transport, authorization: AuthorizationPlan | None
) -> InboundTls | None:
    """What the inbound listeners of a service take; None for plain text alone.

    Rules that refuse ``anonymous`` callers to a service of plain TCP are kept by taking no plain text.
    """
    plain = transport.takes_plain
    if service.protocol != "tcp":
        return InboundTls(trust_domain=mesh.trust_domain, plain=plain)
    plain = plain and (authorization is None or bool(admitted(authorization, [ANONYMOUS])))
    if plain and not transport.takes_tls:
        return None
    return InboundTls(trust_domain=mesh.trust_domain, plain=plain, listed=True)


def plan_peers(mesh: Mesh, service: Service, open_services: Iterable[str]) -> Peers | None:
    """Who may connect to the inbound listeners of a service; None when they speak HTTP, where each request is judged.

    For TCP identities are matched as part of the TLS handshake: Envoy's filters see a connection only when its client
    sends something, and in some protocols the server speaks first.
    """
    if service.protocol != "tcp":
        return None
    authorization = plan_authorization(mesh, service, open_services)
    if authorization is None or authorization.audit:
        return Peers(trust_domain=mesh.trust_domain, names=None)
    return Peers(trust_domain=mesh.trust_domain, names=admitted(authorization, {*mesh.services, GATEWAY}))
