"""Begins the rollouts that a topology names, where the version is new.  I/O.

``up`` announces them and they begin when the mesh is ready. A version that was rolled out as it is now, or rolled back,
is left alone: what latched stays latched until `canary retry`, however often `up` is run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from meshctl.canary.model import FULL
from meshctl.canary.settings import settings_of
from meshctl.control.engine import Engine
from meshctl.control.rollout_starts import revision_of
from meshctl.control.rollouts import Rollouts
from meshctl.errors import MeshctlError
from meshctl.spec.rollout_schema import RolloutRules
from meshctl.spec.schema import Service

_LOOK = 0.1
# Seconds between two looks whether all is ready.


class DeclaredRollouts:
    """The rollouts under ``rollout:`` of the services that run."""

    def __init__(self, engine: Engine, rollouts: Rollouts) -> None:
        self._engine = engine
        self._rollouts = rollouts
        self._waiting: asyncio.Task[None] | None = None
        self.begun = True
        """Whether nothing that was announced is still to begin."""

    def announce(self, author: str, is_ready: Callable[[], bool]) -> tuple[str, ...]:
        """Begin what is new once ``is_ready``; says what that is, a line for each service."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        new = [f"{service.name}: {rules.version} is rolled out when all is ready" for service, rules in self.find_new()]
        self.begun = not new
        if new:
            self._waiting = self._engine.spawn("declared rollouts", self._begin(author, is_ready))
        return tuple(new)

    def find_new(self) -> Iterator[tuple[Service, RolloutRules]]:
        """The services whose topology names a version that was not rolled out as it is now."""
        mesh = self._engine.mesh
        for service in mesh.services.values() if mesh is not None else ():
            rules = service.rollout
            if rules is None or not rules.version or service.split.get(rules.version) == FULL:
                continue
            current = next(iter(self._rollouts.status(service.name)), None)
            if current is not None and not current.ended and current.version == rules.version:
                continue  # of another revision it begins again by itself
            tried = self._rollouts.find_tried(service.name, rules.version, revision_of(service.versions[rules.version]))
            if tried is None or tried.phase == "failed":
                yield service, rules

    async def _begin(self, author: str, is_ready: Callable[[], bool]) -> None:
        while not is_ready():
            if self._engine.stopping:
                return
            await asyncio.sleep(_LOOK)
        for service, rules in list(self.find_new()):
            try:
                await self._rollouts.start(
                    service.name, rules.version, settings_of(rules), author=author, reason=f"{rules.where}"
                )
            except MeshctlError as error:
                hint = f" ({error.hint})" if error.hint else ""
                message = f"{rules.version} is not rolled out: {error.message}{hint}"
                self._engine.parts.events.add("rollout.refused", service.name, message, "warning")
        self.begun = True
        self._engine.notify()
