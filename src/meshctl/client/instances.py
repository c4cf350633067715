"""The client's calls about instances.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from urllib.parse import quote

from meshctl.client.policies import QUICK, Ask
from meshctl.wire import models


class InstanceClient:
    """The instances of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def scale(self, request: models.ScaleRequest) -> models.AppliedResult:
        """Set the number of instances of a version; returns when it is in effect."""
        return await self._ask("POST", "/scale", models.AppliedResult, body=request)

    async def restart(self, request: models.RestartRequest) -> models.AppliedResult:
        """Restart services or instances one after another; returns when they are ready again."""
        return await self._ask("POST", "/restart", models.AppliedResult, body=request)

    async def register(self, request: models.RegisterRequest) -> models.RegisterResult:
        """Add an instance that someone else runs."""
        return await self._ask("POST", "/registrations", models.RegisterResult, body=request)

    async def heartbeat(self, registration_id: str) -> models.RegisterResult:
        """Renew the TTL of a registration. Raises NotFoundError when it has expired."""
        path = f"/registrations/{quote(registration_id, safe='')}/heartbeat"
        return await self._ask("PUT", path, models.RegisterResult, timeout=QUICK)

    async def deregister(self, registration_id: str) -> models.AppliedResult:
        """Remove a registration."""
        return await self._ask("DELETE", f"/registrations/{quote(registration_id, safe='')}", models.AppliedResult)
