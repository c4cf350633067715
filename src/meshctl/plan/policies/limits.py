"""Limits: what a caller may have under way at once, and what an instance takes at all.  Pure.

Envoy calls the first kind "circuit breakers"; here they are caps, and the circuit breaker is another policy.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.schema import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsPlan:
    """How many of each may be under way to one cluster; None for no limit.

    With ``retries`` a number takes the place of the share that retries may have of all requests.
    """

    connections: int | None = None
    pending: int | None = None
    requests: int | None = None
    retries: int | None = None


NO_CAPS = CapsPlan()


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferPlan:
    """A filter: bodies are held until they are whole, and refused once they are longer than ``max_bytes``."""

    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConcurrencyPlan:
    """A filter: the sidecar finds by its latency how many requests its instance takes at once."""


def plan_caps(service: Service) -> CapsPlan:
    """What each caller of a service may have under way."""
    limits = service.policies.limits
    http = service.protocol != "tcp"
    return CapsPlan(
        connections=limits.max_connections,
        pending=limits.max_pending_requests if http else None,
        requests=limits.max_requests if http else None,
        retries=limits.max_retries if http else None,
    )


def plan_max_bytes(service: Service) -> int | None:
    """The longest body that an instance takes; None for any.

    Streams of gRPC have no length of their own, and neither has plain TCP.
    """
    return service.policies.limits.max_request_bytes if service.protocol == "http" else None


def plan_adaptive_concurrency(service: Service) -> AdaptiveConcurrencyPlan | None:
    """Whether the sidecars of a service find their own limit of concurrency."""
    return AdaptiveConcurrencyPlan() if service.policies.limits.adaptive_concurrency else None
