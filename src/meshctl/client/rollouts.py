"""The client's calls about rollouts.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from meshctl.client.metrics import Stream
from meshctl.client.policies import QUICK, Ask
from meshctl.wire import rollouts


class RolloutClient:
    """The rollouts of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask, stream: Stream) -> None:
        self._ask = ask
        self._stream = stream

    async def start(self, request: rollouts.StartRequest) -> rollouts.RolloutStatus:
        """Begin a rollout; returns when its first step is in effect."""
        return await self._ask("POST", "/rollouts", rollouts.RolloutStatus, body=request)

    async def list(self, service: str = "") -> rollouts.RolloutList:
        """The newest rollout of each service, or of one."""
        return await self._ask("GET", "/rollouts", rollouts.RolloutList, query=_query(service), timeout=QUICK)

    async def history(self, service: str = "", number: int = 0) -> rollouts.RolloutHistory:
        """Rollouts with their decisions: all, those of one service, or one by its number."""
        query = _query(service) | ({"number": str(number)} if number else {})
        return await self._ask("GET", "/rollouts/history", rollouts.RolloutHistory, query=query, timeout=QUICK)

    def stream(self, service: str, interval: float = 1.0) -> AsyncIterator[rollouts.RolloutStatus]:
        """The newest rollout of a service after each change and every ``interval`` seconds; ends when it has ended."""
        query = [("service", service), ("interval", f"{interval:g}")]
        return self._stream("/rollouts/stream", rollouts.RolloutStatus, query)

    async def pause(self, request: rollouts.ChangeRequest) -> rollouts.RolloutStatus:
        """Hold the weight."""
        return await self._change("pause", request)

    async def resume(self, request: rollouts.ChangeRequest) -> rollouts.RolloutStatus:
        """Go on."""
        return await self._change("resume", request)

    async def promote(self, request: rollouts.ChangeRequest) -> rollouts.RolloutStatus:
        """Take the next step now, or all of the traffic; returns when it is in effect."""
        return await self._change("promote", request)

    async def roll_back(self, request: rollouts.ChangeRequest) -> rollouts.RolloutStatus:
        """Take all traffic from the version; returns when it is in effect."""
        return await self._change("rollback", request)

    async def retry(self, request: rollouts.ChangeRequest) -> rollouts.RolloutStatus:
        """Begin the newest rollout anew; returns as ``start`` does."""
        return await self._change("retry", request)

    async def _change(self, verb: str, request: rollouts.ChangeRequest) -> rollouts.RolloutStatus:
        return await self._ask("POST", f"/rollouts/{verb}", rollouts.RolloutStatus, body=request)


def _query(service: str) -> dict[str, str]:
    return {"service": service} if service else {}
