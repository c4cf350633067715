"""Carries out one of meshctl's verbs, or any activity of an experiment.  I/O.

Enters: a verb with checked arguments and a client.  Leaves: its answer as JSON has it. When the control plane is away
while rollbacks are run, they wait a while for it to come back: the mesh itself goes on, and `meshctl up` takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshctl.conduct.change import CHANGES, newest_revision
from meshctl.conduct.faults import FAULTS
from meshctl.conduct.observe import OBSERVERS
from meshctl.conduct.programs import run_program, send_request
from meshctl.conduct.traffic import TRAFFIC
from meshctl.errors import NotRunningError, UsageError
from meshctl.experiments.model import Activity, HttpProvider, MeshProvider, ProcessProvider
from meshctl.spec.render import Value

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

PATIENCE = 60.0
"""Seconds that a rollback waits for a control plane that is away."""

DOERS = {**CHANGES, **FAULTS, **OBSERVERS, **TRAFFIC}
"""What can be done, by the words of its verb."""


async def carry_out_verb(client: MeshClient, verb: str, arguments: Mapping[str, Any]) -> Value:
    """One verb. Raises the MeshctlError leaf of whatever keeps it from being done."""
    doer = DOERS.get(verb)
    if doer is None:
        raise UsageError(f"`{verb}` cannot be done by this version of meshctl")
    return await doer(client, arguments)


class Doer:
    """Carries out activities on one mesh; remembers which revision was in force when it was made ready."""

    def __init__(self, client: MeshClient, *, patience: float = PATIENCE) -> None:
        self._client = client
        self._patience = patience
        self._revision: int | None = None

    async def prepare(self) -> None:
        """Look which revision is in force. Raises NotRunningError."""
        self._revision = await newest_revision(self._client)

    async def __call__(self, activity: Activity, rollback: bool) -> Value:  # noqa: FBT001 - conduct.run.CarryOut
        """Carry out an activity."""
        match activity.provider:
            case HttpProvider():
                return await send_request(activity.provider)
            case ProcessProvider():
                return await run_program(activity.provider)
            case MeshProvider(verb=verb, arguments=arguments):
                if verb == "rollback" and "revision" not in arguments and self._revision is not None:
                    arguments = {**arguments, "revision": self._revision}
                return await self._insist(verb, arguments, rollback=rollback)

    async def _insist(self, verb: str, arguments: Mapping[str, Any], *, rollback: bool) -> Value:
        waited = 0.0
        while True:
            try:
                return await carry_out_verb(self._client, verb, arguments)
            except NotRunningError:
                if not rollback or waited >= self._patience:
                    raise
            await asyncio.sleep(0.5)
            waited += 0.5
