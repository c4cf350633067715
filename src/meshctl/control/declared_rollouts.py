"""Begins the rollouts that a topology names, where the version is new.  I/O.

``up`` announces them and they begin when the mesh is ready. A version that was rolled out as it is now, or rolled back,
is left alone: what latched stays latched until `canary retry`, however often `up` is run, and ``up`` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from meshctl.canary.model import FULL, Rollout
from meshctl.canary.settings import settings_of
from meshctl.control.engine import Engine
from meshctl.control.rollout_notices import find_loss
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
            if self._find_under_way(service.name) is not None:
                continue  # of another revision it begins again by itself
            tried = self._find_tried(service, rules)
            if tried is None or tried.phase == "failed":
                yield service, rules

    def explain(self, differs: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of lines on what differs from the files, those that rollouts are not the reason of; and notes on rollouts.

        What a rollout has set is no slip to be put right: to take the files' word would take its traffic away.
        """
        mesh = self._engine.mesh
        left, notes = list(differs), []
        for service in mesh.services.values() if mesh is not None else ():
            found = list(self._explain(service))
            notes += [f"{service.name}: {line}" for line in found]
            if self._holds_split(service):
                own = (f"{service.name} split:", f"{service.name} split.")
                left = [line for line in left if not line.startswith(own)]
        return tuple(left), tuple(notes)

    def _explain(self, service: Service) -> Iterator[str]:
        name, rules = service.name, service.rollout
        current = self._find_under_way(name)
        declared = rules.version if rules is not None else ""
        if current is not None:
            yield f"a rollout to {current.version} is under way; `meshctl canary status {name}` shows it"
            if declared not in ("", current.version):
                start = f"meshctl canary start {name} {declared} --replace"
                yield f"{declared} is not rolled out meanwhile; `{start}` ends that one and begins this one"
            elif rules is not None and declared and settings_of(rules) != current.settings:
                yield "it goes on with the settings that it began with"
            return
        promoted = next((each for each in self._rollouts.status(name) if each.phase == "promoted"), None)
        if promoted is not None and self._holds_split(service):
            yield f"{promoted.version} has all of the traffic, since rollout {promoted.number} promoted it"
            yield f"write `stable: {promoted.version}` in the topology; `meshctl up --reset` would take it back"
        elif rules is not None and declared and service.split.get(declared) != FULL:
            tried = self._find_tried(service, rules)
            if tried is not None and tried.phase != "failed":
                again = f"meshctl canary start {name} {declared}"
                if tried.phase == "rolled_back":
                    again = self._rollouts.how_to_retry(tried)
                state = tried.phase.replace("_", " ")
                yield f"{declared} is not rolled out: as it is now it was {state} once (rollout {tried.number})"
                yield f"`{again}` does it all the same"

    def _holds_split(self, service: Service) -> bool:
        """Whether the split is what a rollout that is under way, or has promoted its version, has made of it."""
        newest = next(iter(self._rollouts.status(service.name)), None)
        if newest is None or service.stable == newest.version:
            return False
        if self._find_under_way(service.name) is not None:
            return newest.pause != "disturbed"
        return newest.phase == "promoted" and service.split.get(newest.version) == FULL

    def _find_under_way(self, service: str) -> Rollout | None:
        """The rollout of a service that has not ended, and will not be found to have lost its object."""
        mesh = self._engine.mesh
        newest = next(iter(self._rollouts.status(service)), None)
        if newest is None or newest.ended or mesh is None:
            return None
        return None if find_loss(newest, mesh, self._engine.parts.topology.declared) else newest

    def _find_tried(self, service: Service, rules: RolloutRules) -> Rollout | None:
        return self._rollouts.find_tried(service.name, rules.version, revision_of(service.versions[rules.version]))

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
