"""The client's call about faults that are not made of requests.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from meshctl.client.policies import Ask
from meshctl.wire import disturbances


class DisturbanceClient:
    """What disturbs one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def disturb(self, request: disturbances.DisturbRequest) -> disturbances.DisturbResult:
        """Disturb a service or an instance; returns when that is in effect."""
        return await self._ask("POST", "/faults/disturb", disturbances.DisturbResult, body=request)
