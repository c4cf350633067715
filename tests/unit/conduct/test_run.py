"""A run with activities that are real tasks: backgrounds, failures of every kind, interrupts."""

from __future__ import annotations

import asyncio

from meshctl.adapters.clock import SystemClock
from meshctl.conduct.run import Conductor
from meshctl.errors import NotFoundError
from meshctl.experiments.load import load
from meshctl.experiments.machine import Command, State
from meshctl.experiments.model import Activity, Experiment
from meshctl.ports import SourceFile
from meshctl.spec.render import Value


def experiment(*method: str, rollbacks: tuple[str, ...] = ("mend",)) -> Experiment:
    def write(names: tuple[str, ...]) -> str:
        more = {"slow": ", background: true", "nap": ", pauses: {before: 10ms, after: 10ms}"}
        return "".join(
            f"- {{type: action, name: {name}, provider: {{type: process, path: x}}{more.get(name, '')}}}\n"
            for name in names
        )

    text = f"title: t\ndescription: d\nmethod:\n{write(method)}rollbacks:\n{write(rollbacks)}"
    return load(SourceFile(path="e.yaml", directory="/", text=text), {})


class Stage:
    """Carries out activities by their names."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.cancelled: list[str] = []
        self.started = asyncio.Event()
        self.finished = asyncio.Event()

    async def __call__(self, activity: Activity, rollback: bool) -> Value:
        assert rollback == (activity.name in ("mend", "tidy"))
        match activity.name:
            case "refuse":
                raise NotFoundError("there is no service x", hint="services are y")
            case "bug":
                raise ZeroDivisionError("by zero")
            case "hang" | "slow":
                self.started.set()
                try:
                    # What is slow ends after the last one, and what hangs never.
                    await (self.finished if activity.name == "slow" else asyncio.Event()).wait()
                except asyncio.CancelledError:
                    self.cancelled.append(activity.name)
                    raise
        if activity.name == "last":
            self.finished.set()
        self.done.append(activity.name)
        return activity.name


async def run(of: Experiment, stage: Stage) -> State:
    heard: list[Command] = []
    state = await Conductor(of, stage, SystemClock(), lambda _, command: heard.append(command)).run()
    assert heard
    return state


async def test_activities_are_carried_out_in_order_and_beside_each_other() -> None:
    stage = Stage()
    state = await run(experiment("slow", "nap", "last"), stage)
    assert stage.done == ["nap", "last", "slow", "mend"]
    assert state.verdict == "held"


async def test_what_an_activity_raises_is_its_own_error_and_rollbacks_follow() -> None:
    for name, words in (("refuse", "there is no service x; services are y"), ("bug", "unexpected ZeroDivisionError")):
        stage = Stage()
        state = await run(experiment("slow", name, "never"), stage)
        assert stage.done == ["mend"]
        assert stage.cancelled == ["slow"]
        assert state.verdict == "failed"
        assert words in state.reason


async def test_an_interrupt_ends_what_is_under_way_and_rolls_back() -> None:
    stage = Stage()
    conductor = Conductor(experiment("hang", rollbacks=("mend", "tidy")), stage, SystemClock(), lambda *_: None)
    running = asyncio.ensure_future(conductor.run())
    await stage.started.wait()
    conductor.interrupt()
    state = await running
    assert stage.cancelled == ["hang"]
    assert stage.done == ["mend", "tidy"]
    assert state.verdict == "interrupted"
