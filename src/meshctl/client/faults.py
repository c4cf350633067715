"""The client's calls about faults.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from meshctl.client.policies import QUICK, Ask
from meshctl.wire import faults


class FaultClient:
    """The faults of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def list(self) -> faults.FaultList:
        """The faults that are on."""
        return await self._ask("GET", "/faults", faults.FaultList, timeout=QUICK)

    async def inject(self, request: faults.InjectRequest) -> faults.InjectResult:
        """Make a fault on requests; returns when every connected sidecar concerned has acknowledged."""
        return await self._ask("POST", "/faults", faults.InjectResult, body=request)

    async def clear(self, request: faults.ClearRequest) -> faults.ClearResult:
        """End faults; returns as ``inject`` does."""
        return await self._ask("POST", "/faults/clear", faults.ClearResult, body=request)
