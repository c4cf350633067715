"""The client's calls about shifting traffic.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from meshctl.client.policies import Ask
from meshctl.wire import shifts


class ShiftClient:
    """The traffic between versions of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def shift(self, request: shifts.ShiftRequest) -> shifts.TrafficResult:
        """Shift traffic between versions; returns when it is in effect everywhere."""
        return await self._ask("POST", "/traffic/shift", shifts.TrafficResult, body=request)

    async def mirror(self, request: shifts.MirrorRequest) -> shifts.TrafficResult:
        """Send copies of requests to a version, or stop that; returns when it is in effect everywhere."""
        return await self._ask("POST", "/traffic/mirror", shifts.TrafficResult, body=request)
