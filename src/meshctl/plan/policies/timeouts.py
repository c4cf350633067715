"""Timeouts: how long a caller waits for a whole response, for a sign of life, and for a connection.  Pure.

Time is kept by the caller's sidecar. See docs/adr/0012-deadlines-that-travel.md for what crosses to the callee.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.policy_schema import Timeouts
from meshctl.spec.schema import Service

CONNECT_TIMEOUT = 1.0
"""Seconds to connect: everything is on this machine, so a second is generous."""

EXTERNAL_CONNECT_TIMEOUT = 5.0
"""Seconds to connect to an address outside the mesh."""

DEADLINE_HEADER = "x-envoy-expected-rq-timeout-ms"
"""Milliseconds that the caller still waits: written by its sidecar on every request that has a timeout."""

TOLD_HEADER = "x-meshctl-deadline-ms"
"""What a request said in DEADLINE_HEADER, for sidecars: Envoy takes that one away before it looks at routes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeedDeadline:
    """Inbound: a request whose answer has not begun when its caller stops waiting is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepDeadline:
    """Outbound: the timeout is what the application says that its own caller still waits."""


def plan_timeout(service: Service, timeouts: Timeouts | None = None, *, explicit: bool = False) -> float:
    """Seconds that callers of a service wait for a response, retries included; 0 leaves it to the client.

    gRPC streams may live for ever and clients send their own deadline in ``grpc-timeout``, so the mesh adds none unless
    a route does (``explicit``).
    """
    if service.protocol == "grpc" and not explicit:
        return 0.0
    return (timeouts or service.policies.timeout).request


def plan_connect_timeout(service: Service) -> float:
    """Seconds to make a connection to a service."""
    built_in = CONNECT_TIMEOUT if service.address is None else EXTERNAL_CONNECT_TIMEOUT
    return service.policies.timeout.connect or built_in
