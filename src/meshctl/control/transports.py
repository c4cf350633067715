"""Services whose callers change between plain text and mTLS, step by step.  Waits for others, does no I/O of its own.

See ``plan.policies.mtls``: a change goes in steps, and each begins when the one before was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from meshctl.control.events import EventLog
from meshctl.errors import MeshctlError, WaitTimeoutError
from meshctl.plan.policies.mtls import Transport, next_transport, plan_transport
from meshctl.spec.schema import Mesh


class Transports:
    """How each service is reached now, and which step is under way."""

    def __init__(self) -> None:
        self._now: dict[str, Transport] = {}
        self._under_way: dict[str, Transport] = {}
        self._acknowledged = True
        self._changed = asyncio.Event()

    @property
    def under_way(self) -> Mapping[str, Transport]:
        """The services that are not reached yet as they are meant to be, and how they are."""
        return self._under_way

    @property
    def is_settled(self) -> bool:
        """True when every service is reached as it is meant to be."""
        return not self._under_way

    def advance(self, mesh: Mesh) -> bool:
        """Take the next step towards a mesh, if the last one was acknowledged; True when one was taken.

        A service that was not there before begins as it is meant to be.
        """
        targets = {
            name: plan_transport(service)
            for name, service in mesh.services.items()
            if service.address is None and not service.is_job
        }
        moving = {name for name, target in targets.items() if self._now.get(name, target) != target}
        steps = moving and self._acknowledged
        if steps:
            self._now |= {name: next_transport(self._now[name], targets[name]) for name in moving}
        self._now = {name: self._now.get(name, target) for name, target in targets.items()}
        self._changed.set()
        self._under_way = {name: now for name, now in self._now.items() if now != targets[name]}
        self._acknowledged = not (self._under_way and (steps or not self._acknowledged))
        return bool(steps and self._under_way)

    async def finish_step(self, in_effect: Awaitable[None], events: EventLog) -> None:
        """Wait until the step that was taken is in effect at every sidecar, or will not be."""
        try:
            await in_effect
        except MeshctlError as error:
            # A sidecar that does not answer must not keep all others between two ways.
            events.add("mesh.mtls", "mesh", f"going on without waiting longer: {error}", "warning")
        self._acknowledged = True

    async def wait(self, timeout: float) -> None:
        """Return when every service is reached as it is meant to be. Raises WaitTimeoutError."""
        try:
            async with asyncio.timeout(timeout):
                while not self.is_settled:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            names = ", ".join(sorted(self._under_way))
            raise WaitTimeoutError(f"callers of {names} are still changing over to another mode of mTLS") from None
