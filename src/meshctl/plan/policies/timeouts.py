"""Timeouts: how long a caller waits for a whole response, and for a connection.  Pure."""

from __future__ import annotations

from meshctl.spec.schema import Service

CONNECT_TIMEOUT = 1.0
"""Seconds to connect: everything is on this machine, so a second is generous."""

EXTERNAL_CONNECT_TIMEOUT = 5.0
"""Seconds to connect to an address outside the mesh."""


def plan_timeout(service: Service) -> float:
    """Seconds that callers of a service wait for a response, retries included; 0 leaves it to the client.

    gRPC streams may live for ever and clients send their own deadline in ``grpc-timeout``, so the mesh adds none.
    """
    return 0.0 if service.protocol == "grpc" else service.policies.timeout
