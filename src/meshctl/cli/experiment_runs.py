"""One run of an experiment for the command line: Ctrl+C, figures beside it, the journal as it grows.  I/O."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshctl import __version__
from meshctl.cli.interrupts import Interrupts
from meshctl.cli.render import read_clock
from meshctl.conduct.run import Conductor
from meshctl.conduct.samples import Sampler
from meshctl.conduct.verbs import Doer
from meshctl.experiments.journal import make_journal
from meshctl.experiments.machine import Command, Note, State
from meshctl.experiments.model import Activity, Experiment, MeshProvider
from meshctl.tasks import TaskBag

if TYPE_CHECKING:
    from meshctl.cli.experiment_views import Progress
    from meshctl.client.client import MeshClient


class WallClock:
    """The clock of the machine, as ports.Clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return read_clock()

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return asyncio.get_running_loop().time()


class Session:
    """Runs one experiment on the mesh of a client; ``keep`` is given the journal whenever there is news."""

    def __init__(
        self,
        client: MeshClient,
        experiment: Experiment,
        progress: Progress,
        keep: Callable[[dict[str, Any]], None],
    ) -> None:
        self._client = client
        self._experiment = experiment
        self._progress = progress
        self._keep = keep
        self._started = 0.0
        self._mesh = ""
        self._sampler: Sampler | None = None

    async def run(self) -> dict[str, Any]:
        """The journal of the run. Raises what keeps it from being begun, and nothing after that."""
        doer = Doer(self._client)
        if self._needs_mesh():
            self._mesh = (await self._client.status()).mesh
            await doer.prepare()
            for fault in (await self._client.faults.list()).faults:
                self._progress.warn(f"a fault is on already: {fault.id}, {fault.subject}: {fault.summary}")
        self._started = read_clock()
        conductor = Conductor(self._experiment, doer, WallClock(), self._listen)
        bag = TaskBag(lambda _name, _error: None)
        with Interrupts() as interrupts:
            bag.spawn("interrupts", self._pass_on(interrupts, conductor))
            if self._mesh:
                self._sampler = Sampler(self._client, self._started)
                bag.spawn("samples", self._sampler.run())
            try:
                state = await conductor.run()
                if self._sampler is not None:
                    await self._sampler.look()
            finally:
                await bag.close()
        return self._write(state)

    def _needs_mesh(self) -> bool:
        every: tuple[Activity, ...] = (
            *self._experiment.hypothesis,
            *self._experiment.method,
            *self._experiment.rollbacks,
        )
        return any(isinstance(activity.provider, MeshProvider) for activity in every)

    async def _pass_on(self, interrupts: Interrupts, conductor: Conductor) -> None:
        await interrupts.first.wait()
        self._progress.say_interrupted(rolling_back=conductor.state.part == "rollbacks")
        conductor.interrupt()
        await interrupts.second.wait()
        conductor.interrupt()

    def _listen(self, state: State, command: Command) -> None:
        self._progress.tell(command)
        if isinstance(command, Note):
            self._write(state)

    def _write(self, state: State) -> dict[str, Any]:
        journal = make_journal(
            state,
            started=self._started,
            now=read_clock(),
            node=platform.node(),
            platform=platform.platform(),
            version=__version__,
            mesh=self._mesh,
            series=self._sampler.series() if self._sampler is not None else (),
        )
        try:
            self._keep(journal)
        except OSError as error:  # the disk is full: what was begun is put right all the same
            self._progress.warn(f"the journal cannot be written: {error}")
        return journal
