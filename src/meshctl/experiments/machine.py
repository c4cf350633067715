"""How an experiment goes, as a machine without I/O.  Pure.

Enters: an Experiment, then events with the time at which they happened.  Leaves: commands for the conductor, and in the
end a State from which the journal is made. The way is that of Chaos Toolkit::

    hypothesis -> method -> hypothesis -> rollbacks -> done
        |           | an action failed, or Ctrl+C  ^
        +-----------+------------------------------+

Rules that hold whatever happens: rollbacks are run, every one of them, each after the other has ended, also when the
steady state was not there to begin with, when an action failed, when one of them fails, and when the user interrupts
(only a second interrupt gives them up, while they run). Nothing of the method runs once they begin. A probe that fails
is a finding, an action that fails ends the method: what follows would not be the experiment that was described.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from meshctl.experiments.model import Activity, Experiment
from meshctl.experiments.tolerances import check
from meshctl.spec.render import Value

Part = Literal["before", "method", "after", "rollbacks", "done"]
Status = Literal["completed", "failed", "aborted", "interrupted"]
Verdict = Literal["held", "deviated", "unsteady", "failed", "interrupted"]

ORDER: tuple[Part, ...] = ("before", "method", "after", "rollbacks", "done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Which activity of the run: the part, its place there, and which look it is for probes during the method."""

    part: Literal["before", "during", "method", "after", "rollbacks"]
    index: int
    look: int = 0

    def __str__(self) -> str:
        return f"{self.part}-{self.look}/{self.index}" if self.part == "during" else f"{self.part}/{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An activity that has ended. ``met`` is None where there is no tolerance; ``error`` is empty for a success."""

    token: Token
    activity: Activity
    started: float
    ended: float
    output: Value = None
    error: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An activity under way; ``stage`` says what of it."""

    activity: Activity
    stage: Literal["pause", "work", "rest"]
    started: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The run begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An activity has ended: with what it found, or with an error in words."""

    token: Token
    output: Value = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Woke:
    """A pause is over; that between two looks during the method has the index -1."""

    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """The user asked to end."""


Event: TypeAlias = Begin | Ended | Woke | Interrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Carry out an activity, and tell when it has ended."""

    token: Token
    activity: Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Tell when so many seconds have passed."""

    token: Token
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End an activity or a pause; nothing more is to be told of it."""

    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Enter:
    """For people: a part begins."""

    part: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """For people: an activity has ended."""

    record: Record


Command: TypeAlias = Run | Sleep | Cancel | Enter | Note


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a run is. ``parts`` are the times at which each part began."""

    experiment: Experiment
    part: Part = "before"
    cursor: int = 0
    look: int = 0
    running: Mapping[Token, Running] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    status: Status = "completed"
    reason: str = ""
    unsteady: bool = False
    deviated: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.part == "done"

    @property
    def verdict(self) -> Verdict:
        """What came of it. A rollback that failed is a failure, unless something was found before."""
        if self.deviated:
            return "deviated"
        if self.status == "interrupted":
            return "interrupted"
        if self.unsteady:
            return "unsteady"
        return "failed" if self.status in ("failed", "aborted") or self.broken else "held"

    @property
    def broken(self) -> tuple[Record, ...]:
        """The rollbacks that failed."""
        return tuple(each for each in self.records if each.token.part == "rollbacks" and each.error)


Step: TypeAlias = "tuple[State, tuple[Command, ...]]"


def step(state: State, event: Event, now: float) -> Step:
    """What an event changes, and what is to be done. ``now`` is in seconds since the epoch."""
    match event:
        case Begin():
            return _enter(state, "before", now)
        case Ended():
            return _note_end(state, event, now)
        case Woke():
            return _wake(state, event.token, now)
        case Interrupt():
            return _interrupt(state, now)


def _enter(state: State, part: Part, now: float) -> Step:
    """Begin a part, or the next one that there is something to do in."""
    while part != "done" and not _activities(state, part):
        part = _next(part)
    state = replace(state, part=part, cursor=0, parts={**state.parts, part: now})
    entered: tuple[Command, ...] = (Enter(part=part),)
    if part == "done":
        return state, entered
    looks: tuple[Command, ...] = ()
    if part == "method" and _looks_during(state.experiment):
        state, looks = _look(state, 0, now)
    state, commands = _advance(state, now)
    return state, (*entered, *looks, *commands)


def _activities(state: State, part: Part) -> tuple[Activity, ...]:
    experiment = state.experiment
    match part:
        case "before":
            skipped = experiment.strategy in ("after-method-only", "during-method-only", "skip")
            return () if skipped else experiment.hypothesis
        case "method":
            return experiment.method
        case "after":
            skipped = experiment.strategy in ("before-method-only", "during-method-only", "skip")
            return () if skipped else experiment.hypothesis
        case _:
            return experiment.rollbacks


def _looks_during(experiment: Experiment) -> bool:
    return bool(experiment.hypothesis) and experiment.strategy in ("continuously", "during-method-only")


def _next(part: Part) -> Part:
    return ORDER[ORDER.index(part) + 1]


def _advance(state: State, now: float) -> Step:
    """Start what may start in the part, and leave it when all of it has ended."""
    commands: tuple[Command, ...] = ()
    activities = _activities(state, state.part)
    while state.cursor < len(activities) and not _blocked(state):
        token = _token(state.part, state.cursor)
        state, more = _start(replace(state, cursor=state.cursor + 1), token, activities[token.index], now)
        commands += more
    if state.cursor < len(activities) or any(token.part == state.part for token in state.running):
        return state, commands
    state, more = _leave(state, now)
    return state, (*commands, *more)


def _token(part: Part, index: int) -> Token:
    assert part != "done"
    return Token(part=part, index=index)


def _blocked(state: State) -> bool:
    """Whether something of the part runs that what follows waits for."""
    return any(t.part == state.part and not run.activity.background for t, run in state.running.items())


def _start(state: State, token: Token, activity: Activity, now: float) -> Step:
    if activity.pause_before > 0:
        running = Running(activity=activity, stage="pause", started=now)
        return _hold(state, token, running), (Sleep(token=token, seconds=activity.pause_before),)
    return _work(state, token, activity, now)


def _work(state: State, token: Token, activity: Activity, now: float) -> Step:
    running = Running(activity=activity, stage="work", started=now)
    return _hold(state, token, running), (Run(token=token, activity=activity),)


def _hold(state: State, token: Token, running: Running) -> State:
    return replace(state, running={**state.running, token: running})


def _drop(state: State, tokens: Iterable[Token]) -> State:
    gone = set(tokens)
    return replace(state, running={token: run for token, run in state.running.items() if token not in gone})


def _note_end(state: State, event: Ended, now: float) -> Step:
    running = state.running.get(event.token)
    if running is None or running.stage != "work":
        return state, ()
    activity = running.activity
    met = None if activity.tolerance is None else not event.error and check(activity.tolerance, event.output)
    record = Record(
        token=event.token,
        activity=activity,
        started=running.started,
        ended=now,
        output=event.output,
        error=event.error,
        met=met,
    )
    state = replace(_drop(state, [event.token]), records=(*state.records, record))
    commands: tuple[Command, ...] = (Note(record=record),)
    if met is False and event.token.part in ("during", "method", "after"):
        state = replace(state, deviated=True)
    if event.error and activity.kind == "action" and event.token.part == "method":
        reason = f"{activity.name}: {event.error}"
        state = replace(state, status="failed", reason=state.reason or reason)
        state, more = _abort(state, now)
        return state, (*commands, *more)
    if activity.pause_after > 0:
        resting = Running(activity=activity, stage="rest", started=now)
        return _hold(state, event.token, resting), (*commands, Sleep(token=event.token, seconds=activity.pause_after))
    state, more = _go_on(state, event.token, now)
    return state, (*commands, *more)


def _wake(state: State, token: Token, now: float) -> Step:
    running = state.running.get(token)
    if running is None or running.stage == "work":
        return state, ()
    if token.index < 0:
        return _look(_drop(state, [token]), 0, now)
    if running.stage == "pause":
        return _work(state, token, running.activity, now)
    return _go_on(_drop(state, [token]), token, now)


def _go_on(state: State, token: Token, now: float) -> Step:
    """An activity is over with its pauses."""
    return _look(state, token.index + 1, now) if token.part == "during" else _advance(state, now)


def _look(state: State, index: int, now: float) -> Step:
    """The next probe of a look during the method; after the last one the pause until the next look."""
    probes = state.experiment.hypothesis
    if index < len(probes):
        return _start(state, Token(part="during", index=index, look=state.look), probes[index], now)
    token = Token(part="during", index=-1, look=state.look)
    running = Running(activity=probes[0], stage="rest", started=now)
    state = replace(_hold(state, token, running), look=state.look + 1)
    return state, (Sleep(token=token, seconds=state.experiment.frequency),)


def _leave(state: State, now: float) -> Step:
    """All of a part has ended."""
    if state.part == "before":
        failed = [each for each in state.records if each.token.part == "before" and not each.met]
        if failed:
            names = ", ".join(each.activity.name for each in failed)
            state = replace(state, unsteady=True, status="failed", reason=f"not so at the start: {names}")
            return _enter(state, "rollbacks", now)
    looks = [token for token in state.running if token.part == "during"]
    state, commands = _enter(_drop(state, looks), _next(state.part), now)
    return state, (*(Cancel(token=token) for token in looks), *commands)


def _abort(state: State, now: float) -> Step:
    """End whatever runs, and go to the rollbacks."""
    cancelled = tuple(Cancel(token=token) for token in state.running)
    unended = [
        Record(token=t, activity=run.activity, started=run.started, ended=now, error="ended with the method")
        for t, run in state.running.items()
        if t.index >= 0 and run.stage == "work"
    ]
    state = replace(_drop(state, state.running), records=(*state.records, *unended))
    state, commands = _enter(state, "rollbacks", now)
    return state, (*cancelled, *commands)


def _interrupt(state: State, now: float) -> Step:
    if state.part == "done":
        return state, ()
    first = state.status != "interrupted"
    state = replace(state, status="interrupted", reason=state.reason or "interrupted")
    if state.part != "rollbacks":
        return _abort(state, now)
    if first:
        return state, ()
    cancelled = tuple(Cancel(token=token) for token in state.running)
    given_up = [
        Record(token=_token("rollbacks", i), activity=a, started=now, ended=now, error="given up")
        for i, a in enumerate(state.experiment.rollbacks)
        if not any(each.token == _token("rollbacks", i) for each in state.records)
    ]
    state = replace(_drop(state, state.running), records=(*state.records, *given_up))
    state, commands = _enter(state, "done", now)
    return state, (*cancelled, *commands)
