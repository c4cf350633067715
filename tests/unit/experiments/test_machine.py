"""The way of an experiment: order, backgrounds, pauses, failures, interrupts, and rollbacks that always run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.errors import Where
from meshctl.experiments.machine import (
    Begin,
    Cancel,
    Command,
    Ended,
    Interrupt,
    Run,
    Sleep,
    State,
    Token,
    Woke,
    step,
)
from meshctl.experiments.model import Activity, Equal, Experiment, Kind, MeshProvider, Strategy

NOWHERE = Where("e.yaml", 1, 1)


def activity(name: str, kind: Kind = "action", **more: Any) -> Activity:
    raw = {"name": name, "type": kind}
    return Activity(kind=kind, name=name, provider=MeshProvider(verb="call"), where=NOWHERE, raw=raw, **more)


def probe(name: str, wanted: int | None = 1, **more: Any) -> Activity:
    return activity(name, "probe", tolerance=None if wanted is None else Equal(value=wanted), **more)


def experiment(
    *,
    hypothesis: tuple[Activity, ...] = (),
    method: tuple[Activity, ...] = (),
    rollbacks: tuple[Activity, ...] = (),
    strategy: Strategy = "default",
) -> Experiment:
    return Experiment(
        title="t",
        description="d",
        hypothesis_title="h",
        hypothesis=hypothesis,
        method=method,
        rollbacks=rollbacks,
        strategy=strategy,
    )


class Play:
    """Drives a machine by hand; ``log`` is what it commanded, in words."""

    def __init__(self, of: Experiment) -> None:
        self.state = State(experiment=of)
        self.now = 0.0
        self.log: list[str] = []
        self.open: dict[str, Token] = {}
        self.send(Begin())

    def send(self, event: Any) -> None:
        self.now += 1
        self.state, commands = step(self.state, event, self.now)
        for command in commands:
            self._note(command)

    def _note(self, command: Command) -> None:
        match command:
            case Run():
                self.open[command.activity.name] = command.token
                self.log.append(f"run {command.activity.name}")
            case Sleep():
                self.open[f"sleep {command.token}"] = command.token
                self.log.append(f"sleep {command.seconds:g}")
            case Cancel():
                self.log.append(f"cancel {command.token}")
                self.open = {name: token for name, token in self.open.items() if token != command.token}
            case _:
                pass

    def end(self, name: str, output: Any = 1, error: str = "") -> None:
        self.send(Ended(token=self.open.pop(name), output=output, error=error))

    def wake(self) -> None:
        name = next(name for name in self.open if name.startswith("sleep "))
        self.send(Woke(token=self.open.pop(name)))


def test_an_experiment_goes_from_the_hypothesis_through_the_method_back_to_it_and_ends_with_rollbacks() -> None:
    play = Play(experiment(hypothesis=(probe("h"),), method=(activity("m"),), rollbacks=(activity("r"),)))
    for name in ("h", "m", "h", "r"):
        play.end(name)
    assert play.log == ["run h", "run m", "run h", "run r"]
    assert play.state.done
    assert play.state.verdict == "held"
    assert list(play.state.parts) == ["before", "method", "after", "rollbacks", "done"]


def test_a_steady_state_that_is_not_there_runs_nothing_of_the_method() -> None:
    play = Play(experiment(hypothesis=(probe("h"), probe("i")), method=(activity("m"),), rollbacks=(activity("r"),)))
    play.end("h", 0)
    play.end("i")
    play.end("r")
    assert play.log == ["run h", "run i", "run r"]
    assert play.state.verdict == "unsteady"


def test_a_hypothesis_that_does_not_hold_after_the_method_deviates() -> None:
    play = Play(experiment(hypothesis=(probe("h"),), method=(activity("m"),)))
    play.end("h")
    play.end("m")
    play.end("h", 2)
    assert play.state.verdict == "deviated"
    assert play.state.status == "completed"


def test_a_probe_of_the_method_with_a_tolerance_is_held_to_it() -> None:
    play = Play(experiment(method=(probe("p", 5), activity("m"))))
    play.end("p", 4)
    play.end("m")
    assert play.state.verdict == "deviated"


def test_a_probe_of_the_method_that_fails_does_not_end_it() -> None:
    play = Play(experiment(method=(probe("p", None), activity("m"))))
    play.end("p", error="no answer")
    play.end("m")
    assert play.state.verdict == "held"


def test_what_runs_in_the_background_is_not_waited_for_until_the_end_of_the_part() -> None:
    play = Play(experiment(method=(activity("b", background=True), activity("m")), rollbacks=(activity("r"),)))
    assert play.log == ["run b", "run m"]
    play.end("m")
    assert play.log == ["run b", "run m"]
    play.end("b")
    assert play.log[-1] == "run r"


def test_pauses_stand_around_an_activity() -> None:
    play = Play(experiment(method=(activity("a", pause_before=2, pause_after=3), activity("b"))))
    assert play.log == ["sleep 2"]
    play.wake()
    play.end("a")
    assert play.log == ["sleep 2", "run a", "sleep 3"]
    play.wake()
    play.end("b")
    assert play.state.done


def test_an_action_that_fails_ends_the_method_and_what_runs_beside_it() -> None:
    method = (activity("b", background=True), activity("m"), activity("never"))
    play = Play(experiment(hypothesis=(probe("h"),), method=method, rollbacks=(activity("r"),)))
    play.end("h")
    play.end("m", error="no such service")
    assert play.log == ["run h", "run b", "run m", "cancel method/0", "run r"]
    play.end("r")
    assert play.state.verdict == "failed"
    assert play.state.reason == "m: no such service"


def test_every_rollback_is_run_when_one_of_them_fails() -> None:
    play = Play(experiment(method=(activity("m"),), rollbacks=(activity("r"), activity("s"))))
    play.end("m")
    play.end("r", error="no")
    play.end("s")
    assert play.state.verdict == "failed"
    assert [each.activity.name for each in play.state.broken] == ["r"]


@pytest.mark.parametrize("stage", ["h", "m", "after"])
def test_an_interrupt_leads_to_the_rollbacks_from_anywhere(stage: str) -> None:
    play = Play(experiment(hypothesis=(probe("h"),), method=(activity("m"),), rollbacks=(activity("r"),)))
    for name in {"h": (), "m": ("h",), "after": ("h", "m")}[stage]:
        play.end(name)
    play.send(Interrupt())
    assert play.log[-1] == "run r"
    play.end("r")
    assert play.state.verdict == "interrupted"


def test_only_a_second_interrupt_gives_rollbacks_up() -> None:
    play = Play(experiment(method=(activity("m"),), rollbacks=(activity("r"), activity("s"))))
    play.send(Interrupt())
    ended = play.state.done
    play.send(Interrupt())
    assert (ended, play.state.done) == (False, True)
    assert {each.activity.name: each.error for each in play.state.broken} == {"r": "given up", "s": "given up"}


def test_an_interrupt_while_rollbacks_run_lets_them_go_on() -> None:
    play = Play(experiment(method=(activity("m"),), rollbacks=(activity("r"), activity("s"))))
    play.end("m")
    play.send(Interrupt())
    play.end("r")
    play.end("s")
    assert play.state.done
    assert not play.state.broken


def test_a_continuous_hypothesis_is_looked_at_until_the_method_ends() -> None:
    play = Play(experiment(hypothesis=(probe("h"),), method=(activity("m"),), strategy="continuously"))
    play.end("h")
    assert play.log == ["run h", "run h", "run m"]
    play.end("h")
    play.wake()
    play.end("h", 0)
    play.end("m")
    play.end("h")
    assert play.state.done
    assert play.state.verdict == "deviated"
    assert play.log[-2:] == ["cancel during-1/-1", "run h"]


def test_a_hypothesis_may_be_looked_at_after_the_method_only() -> None:
    play = Play(experiment(hypothesis=(probe("h"),), method=(activity("m"),), strategy="after-method-only"))
    play.end("m")
    play.end("h")
    assert play.log == ["run m", "run h"]


def test_what_comes_late_changes_nothing() -> None:
    play = Play(experiment(method=(activity("m"),), rollbacks=(activity("r"),)))
    token = play.open["m"]
    play.send(Interrupt())
    play.send(Ended(token=token, error="late"))
    assert play.log == ["run m", "cancel method/0", "run r"]


@given(data=st.data())
def test_whatever_happens_every_rollback_is_run_or_given_up_and_the_run_ends(data: st.DataObject) -> None:
    flags = st.booleans()
    kinds: st.SearchStrategy[Kind] = st.sampled_from(["action", "probe"])

    def some(prefix: str, limit: int) -> tuple[Activity, ...]:
        return tuple(
            activity(
                f"{prefix}{number}",
                data.draw(kinds),
                background=data.draw(flags),
                pause_before=float(data.draw(flags)),
                pause_after=float(data.draw(flags)),
            )
            for number in range(data.draw(st.integers(0, limit)))
        )

    strategies: st.SearchStrategy[Strategy] = st.sampled_from(["default", "continuously", "skip"])
    hypothesis = tuple(probe(f"h{number}") for number in range(data.draw(st.integers(0, 2))))
    of = experiment(hypothesis=hypothesis, method=some("m", 4), rollbacks=some("r", 3), strategy=data.draw(strategies))
    play = Play(of)
    interrupts = 0
    for _ in range(60):
        if play.state.done:
            break
        names = sorted(play.open)
        if interrupts < 2 and data.draw(st.integers(0, 9)) == 0:
            interrupts += 1
            play.send(Interrupt())
        elif (name := data.draw(st.sampled_from(names))).startswith("sleep "):
            play.send(Woke(token=play.open.pop(name)))
        else:
            play.end(name, data.draw(st.sampled_from([0, 1])), data.draw(st.sampled_from(["", "", "no"])))
        running = {token.part for token in play.state.running}
        assert "rollbacks" not in running or running == {"rollbacks"}
    else:
        play.send(Interrupt())
        play.send(Interrupt())
        play.send(Interrupt())
    assert play.state.done
    ran = [each.activity.name for each in play.state.records if each.token.part == "rollbacks"]
    assert sorted(ran) == [each.name for each in of.rollbacks]
    assert not play.state.running
