"""Runs an experiment: carries out what the machine commands and tells it what came of it.  I/O.

Enters: an Experiment, and somebody who carries out single activities.  Leaves: the State of a run that is done.
Whatever an activity raises is an error of that activity: nothing keeps the rollbacks from being run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meshctl.errors import MeshctlError
from meshctl.experiments.machine import (
    Begin,
    Cancel,
    Command,
    Ended,
    Event,
    Interrupt,
    Run,
    Sleep,
    State,
    Token,
    Woke,
    step,
)
from meshctl.experiments.model import Activity, Experiment
from meshctl.ports import Clock
from meshctl.spec.render import Value
from meshctl.tasks import TaskBag

CarryOut = Callable[[Activity, bool], Awaitable[Value]]
"""Carries out one activity; the second argument is true for a rollback. What it raises is that activity's error."""

Listen = Callable[[State, Command], None]
"""Is told of everything that happens, in order."""


class Conductor:
    """One run of one experiment."""

    def __init__(self, experiment: Experiment, carry_out: CarryOut, clock: Clock, listen: Listen) -> None:
        self._carry_out = carry_out
        self._clock = clock
        self._listen = listen
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._bag = TaskBag(lambda _name, _error: None)
        self._tasks: dict[Token, asyncio.Task[None]] = {}
        self.state = State(experiment=experiment)

    def interrupt(self) -> None:
        """The user asks to end: rollbacks follow; a second time while they run gives them up."""
        self._events.put_nowait(Interrupt())

    async def run(self) -> State:
        """Run to the end; returns when rollbacks have been run and nothing of it is under way."""
        self._events.put_nowait(Begin())
        try:
            while not self.state.done:
                event = await self._events.get()
                self.state, commands = step(self.state, event, self._clock.now())
                for command in commands:
                    await self._obey(command)
                    self._listen(self.state, command)
        finally:
            await self._bag.close()
        return self.state

    async def _obey(self, command: Command) -> None:
        match command:
            case Run():
                self._tasks[command.token] = self._bag.spawn(
                    str(command.token), self._work(command.token, command.activity)
                )
            case Sleep():
                self._tasks[command.token] = self._bag.spawn(
                    str(command.token), self._sleep(command.token, command.seconds)
                )
            case Cancel():
                task = self._tasks.pop(command.token, None)
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            case _:
                pass

    async def _work(self, token: Token, activity: Activity) -> None:
        try:
            output = await self._carry_out(activity, token.part == "rollbacks")
        except MeshctlError as error:
            words = error.message if not error.hint else f"{error.message}; {error.hint}"
            self._events.put_nowait(Ended(token=token, error=words))
        except Exception as error:  # noqa: BLE001 - a bug in one activity must not keep the rollbacks from being run
            self._events.put_nowait(Ended(token=token, error=f"unexpected {type(error).__name__}: {error}"))
        else:
            self._events.put_nowait(Ended(token=token, output=output))

    async def _sleep(self, token: Token, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._events.put_nowait(Woke(token=token))
