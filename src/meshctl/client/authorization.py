"""The client's calls about authorization.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from meshctl.client.policies import QUICK, Ask
from meshctl.wire.authorization import AuthzAnswer, AuthzRequest


class AuthorizationClient:
    """The rules of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def check(self, request: AuthzRequest) -> AuthzAnswer:
        """Whether one service may call another."""
        return await self._ask("POST", "/authorization/check", AuthzAnswer, body=request, timeout=QUICK)
