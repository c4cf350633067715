"""The client's calls about circuit breakers.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from meshctl.client.policies import QUICK, Ask
from meshctl.wire import circuits, models


class CircuitClient:
    """The circuit breakers of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def list(self, service: str = "") -> circuits.CircuitList:
        """The state of every breaker, or of those to one service."""
        query = {"service": service} if service else {}
        return await self._ask("GET", "/circuits", circuits.CircuitList, query=query, timeout=QUICK)

    async def force(self, request: circuits.ForceRequest) -> models.AppliedResult:
        """Hold circuits open or closed, or let them work; returns when every sidecar concerned has acknowledged."""
        return await self._ask("POST", "/circuits/force", models.AppliedResult, body=request)
