"""The machine of a rollout: each event in each phase that it is meant for, and what may be decided at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.rollouts import QUICK, make_counts, make_rollout, make_tick, running, send

from meshctl.canary.codec import Entry, decode_entry, decode_rollout, encode_entry, encode_rollout
from meshctl.canary.machine import RETRY_AFTER, begin, replay, step
from meshctl.canary.model import (
    ENDED,
    MOVES,
    Applied,
    Cancelled,
    Command,
    Decision,
    Disturbed,
    Event,
    PauseAsked,
    PromoteAsked,
    Refused,
    Restarted,
    ResumeAsked,
    Revised,
    RollBackAsked,
    Rollout,
    SetWeight,
    Tick,
)

ANN = {"author": "ann@canary"}
BAD = make_counts(50, 30)


def weights(commands: tuple[Command, ...]) -> list[tuple[int, bool]]:
    return [(command.weight, command.wait) for command in commands]


def ticked(rollout: Rollout, seconds: int, *, at: float = 1000.0, **more: Any) -> Rollout:
    """After so many seconds of good traffic."""
    for second in range(1, seconds + 1):
        rollout = send(rollout, make_tick(at + second, **more), at + second)
    return rollout


def in_phase(phase: str) -> Rollout:  # noqa: PLR0911 - one for each
    """A rollout that came to a phase by itself, or by somebody."""
    match phase:
        case "starting":
            return make_rollout()
        case "running":
            return running()
        case "shifting":
            return ticked(running(), 11)
        case "paused":
            return send(running(), PauseAsked(author="ann"), 1001)
        case "frozen":
            return send(running(replace(QUICK, on_failure="freeze")), make_tick(1001, BAD), 1001)
        case "rolling_back":
            return send(running(), make_tick(1001, BAD), 1001)
        case "promoted":
            promoting = send(running(), PromoteAsked(author="ann", full=True), 1001)
            return send(promoting, Applied(weight=100), 1002)
        case "rolled_back":
            return send(in_phase("rolling_back"), Applied(weight=0), 1002)
        case "failed":
            return send(make_rollout(), Refused(weight=5, message="no"), 1001)
        case _:
            return send(running(), Cancelled(message="gone"), 1001)


@pytest.mark.parametrize("phase", sorted(MOVES))
def test_the_phase_is_what_it_is_called(phase: str) -> None:
    assert in_phase(phase).phase == phase


def test_a_rollout_begins_by_bringing_the_version_up() -> None:
    rollout, commands = begin(
        number=3, service="shop", version="v2", stable="v1", revision="a", settings=QUICK, author="ann", now=50.0
    )
    assert weights(commands) == [(5, True)]
    assert (rollout.phase, rollout.weight, rollout.applied, rollout.next_at) == ("starting", 5, 0, None)
    assert rollout.decision is not None
    assert (rollout.decision.number, rollout.decision.event, rollout.decision.weight) == (1, "begin", 5)


def test_a_version_that_has_traffic_already_begins_at_the_first_step_that_is_no_less() -> None:
    rollout = make_rollout(weight=20)
    assert (rollout.step, rollout.weight, rollout.applied) == (2, 25, 20)


def test_what_ended_before_a_weight_has_settled_is_not_counted() -> None:
    rollout = running(replace(QUICK, window=300.0, interval=10.0), now=1000.2)
    assert rollout.since == rollout.counted_until == 1006.0
    assert rollout.next_at == 1010.2


def test_good_ticks_lead_through_all_steps_to_the_end() -> None:
    rollout, now, seen = running(), 1000.0, []
    while not rollout.ended and now < 1200:
        now += 1
        rollout, commands = step(rollout, make_tick(now), now)
        for command in commands:
            seen.append(command.weight)
            rollout = send(rollout, Applied(weight=command.weight), now)
    assert seen == [10, 25, 50, 100]
    assert (rollout.phase, rollout.ended_at, rollout.next_at) == ("promoted", now, None)


def test_a_bad_tick_leads_to_zero_in_one_step_at_once() -> None:
    rollout, commands = step(running(), make_tick(1001, BAD), 1001)
    assert weights(commands) == [(0, False)]
    assert (rollout.phase, rollout.weight) == ("rolling_back", 0)


def test_without_traffic_nothing_happens() -> None:
    nothing = make_counts(0)
    rollout = running()
    for second in range(1, 5000, 10):
        rollout, commands = step(rollout, make_tick(1000 + second, nothing, nothing), 1000 + second)
        assert (rollout.phase, commands) == ("running", ())
    assert rollout.why == "too few requests to v2 yet: n=0/20"


def test_ticks_come_an_interval_apart_and_none_is_made_up_for() -> None:
    rollout = running()
    assert rollout.next_at == 1001.0
    assert send(rollout, make_tick(1001), 1001.3).next_at == 2 + 1000.0
    assert send(rollout, make_tick(1050, make_counts(1)), 1050.3).next_at == 1051.3


def test_a_rollback_that_cannot_be_brought_into_effect_is_tried_again() -> None:
    refused = send(in_phase("rolling_back"), Refused(weight=0, message="a sidecar is away"), 1002)
    assert (refused.phase, refused.next_at, refused.why) == ("rolling_back", 1002 + RETRY_AFTER, "a sidecar is away")
    again, commands = step(refused, make_tick(1003), 1003)
    assert weights(commands) == [(0, False)]
    assert again.next_at is None
    assert step(again, make_tick(1004), 1004) == (again, ())


def test_a_step_that_a_sidecar_refuses_leaves_the_weight_before() -> None:
    refused = send(in_phase("shifting"), Refused(weight=10, message="a sidecar refused"), 1020)
    assert (refused.phase, refused.pause, refused.weight, refused.step) == ("paused", "disturbed", 5, 0)
    resumed, commands = step(refused, ResumeAsked(author="ann"), 1030)
    assert (resumed.phase, commands) == ("running", ())


def test_answers_to_earlier_commands_are_of_no_interest() -> None:
    for phase in ("running", "shifting", "rolling_back", "paused", "frozen"):
        rollout = in_phase(phase)
        assert step(rollout, Applied(weight=77), 1050) == (rollout, ())
        assert step(rollout, Refused(weight=77, message="no"), 1050) == (rollout, ())
    rollout = running()
    assert step(rollout, Applied(weight=5), 1050) == (rollout, ())
    assert step(rollout, Refused(weight=5, message="no"), 1050) == (rollout, ())


def test_a_pause_while_a_weight_is_on_its_way_lets_it_come_and_holds_it() -> None:
    paused = send(in_phase("shifting"), PauseAsked(author="ann"), 1020)
    assert (paused.phase, paused.weight, paused.applied) == ("paused", 10, 5)
    arrived = send(paused, Applied(weight=10), 1021)
    assert (arrived.phase, arrived.applied) == ("paused", 10)
    resumed, commands = step(arrived, ResumeAsked(author="ann"), 1030)
    assert (resumed.phase, resumed.requests, commands) == ("running", 0, ())
    refused = send(paused, Refused(weight=10, message="no"), 1021)
    assert (refused.pause, refused.weight) == ("disturbed", 5)


def test_a_resume_before_the_weight_has_come_asks_for_it_again() -> None:
    paused = send(in_phase("shifting"), PauseAsked(author="ann"), 1020)
    resumed, commands = step(paused, ResumeAsked(author="ann"), 1030)
    assert (resumed.phase, weights(commands)) == ("shifting", [(10, True)])


def test_a_paused_rollout_is_not_judged() -> None:
    paused = in_phase("paused")
    assert step(paused, make_tick(1100, BAD), 1100) == (paused, ())
    assert step(paused, PauseAsked(author="bob"), 1100) == (paused, ())


def test_a_resume_gives_the_deadline_anew_and_counts_afresh() -> None:
    rollout = running(replace(QUICK, deadline=60.0))
    late = send(rollout, make_tick(1060, make_counts(1)), 1060)
    assert (late.phase, late.pause) == ("paused", "inconclusive")
    resumed = send(late, ResumeAsked(author="ann", reason="more traffic"), 1100)
    assert (resumed.phase, resumed.deadline_at, resumed.requests) == ("running", 1160, 0)
    assert resumed.why == "resumed by ann: more traffic"


def test_whoever_goes_on_from_frozen_has_overruled_the_evidence() -> None:
    frozen = in_phase("frozen")
    assert frozen.weight == frozen.applied == 5
    for event in (ResumeAsked(author="ann"), PromoteAsked(author="ann")):
        assert send(frozen, event, 1010).evidence.errors.rows == ()
    assert send(frozen, RollBackAsked(author="ann"), 1010).phase == "rolling_back"


def test_promoting_goes_one_step_or_all_the_way() -> None:
    one, commands = step(running(), PromoteAsked(author="ann", reason="known good"), 1001)
    assert (one.phase, weights(commands), one.why) == ("shifting", [(10, True)], "promoted by ann: known good")
    assert send(one, Applied(weight=10), 1002).phase == "running"
    assert step(one, PromoteAsked(author="ann"), 1002)[1] == ()
    full, commands = step(one, PromoteAsked(author="ann", full=True), 1002)
    assert (full.weight, full.full, weights(commands)) == (100, True, [(100, True)])
    assert send(full, Applied(weight=100), 1003).phase == "promoted"
    last = send(replace(running(), step=4, weight=100, applied=100), PromoteAsked(author="ann"), 1001)
    assert last.phase == "promoted"
    back = in_phase("rolling_back")
    assert step(back, PromoteAsked(author="ann", full=True), 1002) == (back, ())


@pytest.mark.parametrize("phase", ["starting", "shifting", "running", "paused", "frozen"])
def test_a_rollback_by_hand_is_one_step_to_zero_from_wherever(phase: str) -> None:
    rollout, commands = step(in_phase(phase), RollBackAsked(author="ann", reason="no"), 1050)
    assert (rollout.phase, rollout.weight, weights(commands)) == ("rolling_back", 0, [(0, False)])
    assert rollout.why == "rolled back by ann: no"
    assert step(rollout, RollBackAsked(author="bob"), 1051) == (rollout, ())


def test_a_split_set_by_somebody_else_pauses_until_somebody_resumes() -> None:
    disturbed = send(in_phase("running"), Disturbed(message="40%", weight=40), 1001)
    assert (disturbed.phase, disturbed.pause, disturbed.weight, disturbed.applied) == ("paused", "disturbed", 5, 40)
    assert step(disturbed, Restarted(), 1002) == (disturbed, ())
    resumed, commands = step(disturbed, ResumeAsked(author="ann"), 1003)
    assert (resumed.phase, weights(commands)) == ("shifting", [(5, True)])
    back = in_phase("rolling_back")
    assert step(back, Disturbed(message="40%", weight=40), 1002) == (back, ())


@pytest.mark.parametrize(
    ("phase", "pushed"),
    [
        ("starting", [(5, True)]),
        ("shifting", [(10, True)]),
        ("rolling_back", [(0, False)]),
        ("running", []),
        ("paused", []),
        ("frozen", []),
    ],
)
def test_after_a_restart_what_was_decided_is_pushed(phase: str, pushed: list[tuple[int, bool]]) -> None:
    before = in_phase(phase)
    after, commands = step(before, Restarted(), 5000)
    assert weights(commands) == pushed
    assert (after.phase, after.weight) == (before.phase, before.weight)


def test_after_a_restart_a_step_is_counted_afresh_and_old_evidence_is_kept() -> None:
    before = ticked(running(), 5)
    after = send(before, Restarted(), 5000)
    assert (after.requests, after.since, after.counted_until) == (0, 5000, 5000)
    assert after.evidence.errors == before.evidence.errors
    assert len(send(after, make_tick(5001), 5001).evidence.errors.rows) == 2


def test_a_pause_while_a_weight_was_on_its_way_survives_a_restart() -> None:
    paused = send(in_phase("shifting"), PauseAsked(author="ann"), 1020)
    after, commands = step(paused, Restarted(), 5000)
    assert (after.phase, weights(commands)) == ("paused", [(10, True)])


def test_another_revision_begins_again_at_the_first_step() -> None:
    far = replace(running(), step=2, weight=25, applied=25)
    revised, commands = step(far, Revised(revision="b"), 1001)
    assert (revised.phase, revised.step, revised.revision, weights(commands)) == ("shifting", 0, "b", [(5, True)])
    assert revised.evidence.errors.rows == ()
    assert step(revised, Revised(revision="b"), 1002) == (revised, ())
    at_first = send(running(), Revised(revision="b"), 1001)
    assert weights(step(at_first, Restarted(), 5000)[1]) == [(5, True)]
    starting = send(in_phase("starting"), Revised(revision="b"), 1001)
    assert (starting.phase, starting.revision) == ("starting", "b")
    paused, commands = step(replace(in_phase("paused"), weight=25, applied=25, step=2), Revised(revision="b"), 1002)
    assert (paused.phase, paused.weight, weights(commands)) == ("paused", 5, [(5, True)])
    back = in_phase("rolling_back")
    assert step(back, Revised(revision="b"), 1002) == (back, ())


def test_an_entry_of_another_version_of_the_machine_is_refused() -> None:
    rollout = running()
    assert rollout.decision is not None
    text = encode_entry(Entry(decision=rollout.decision, event=Applied(weight=5)))
    with pytest.raises(ValueError, match="nothing of the kind 'danced' comes to a rollout"):
        decode_entry(text.replace('"applied"', '"danced"'))


def test_what_changes_nothing_is_no_decision_when_it_is_replayed_either() -> None:
    first = make_rollout()
    assert replay(first, [(Applied(weight=77), 1001.0)]) == [first.decision]


@pytest.mark.parametrize("phase", sorted(ENDED))
def test_nothing_follows_the_end(phase: str) -> None:
    rollout = in_phase(phase)
    assert rollout.ended_at is not None
    for event in (Restarted(), make_tick(9000), RollBackAsked(author="ann"), Cancelled(message="x")):
        assert step(rollout, event, 9000) == (rollout, ())


# ---------------------------------------------------------------------------------------------- any order of things


class AnyOrder(RuleBasedStateMachine):
    """A control plane that may die after every write and between every two commands, sidecars that may refuse, people
    who do what they like: what is pushed has been decided, and what is decided is pushed."""

    @initialize(freeze=st.booleans(), weight=st.sampled_from([0, 7]))
    def start(self, freeze: bool, weight: int) -> None:
        settings = replace(QUICK, on_failure="freeze" if freeze else "rollback")
        self.now = 1000.0
        self.actual = weight
        self.disturbed = False
        rollout, commands = begin(
            number=1,
            service="shop",
            version="v2",
            stable="v1",
            revision="a",
            settings=settings,
            author="ann",
            weight=weight,
            now=self.now,
        )
        self.first = rollout
        self.events: list[tuple[Event, float]] = []
        self.decisions = [rollout.decision]
        self.pending = list(commands)
        self.rollout = rollout
        self.allowed = {0, weight, *settings.steps}

    def send(self, event: Event) -> None:
        before = self.rollout
        after, commands = step(before, event, self.now)
        if after is before:
            assert not commands
            return
        # Written down, and read again as the next control plane would.
        self.rollout = decode_rollout(encode_rollout(after))
        assert self.rollout == after
        assert after.decision is not None
        entry = Entry(decision=after.decision, event=event)
        assert decode_entry(encode_entry(entry)) == entry
        self.events.append((event, self.now))
        self.decisions.append(after.decision)
        self.check_move(before, after, event)
        if commands:
            self.pending = list(commands)
        if after.ended:
            self.pending = []

    def check_move(self, before: Rollout, after: Rollout, event: Event) -> None:
        assert after.phase == before.phase or after.phase in MOVES[before.phase]
        assert not before.ended
        steps = after.settings.steps
        if isinstance(event, Tick) and after.weight > before.weight:
            assert steps.index(after.weight) == steps.index(before.weight) + 1
            assert before.requests + event.sample.canary.requests >= after.settings.min_requests
        if isinstance(event, Restarted):
            assert after.weight == before.weight
        if after.phase == "rolling_back":
            assert after.weight == 0

    @rule(errors=st.sampled_from([0, 0, 0, 30]), canary=st.sampled_from([0, 1, 50]), seconds=st.integers(1, 12))
    def tick(self, errors: int, canary: int, seconds: int) -> None:
        self.now += seconds
        counts = make_counts(canary, min(errors, canary))
        self.send(make_tick(self.now, counts, make_counts(450, 4), seconds=float(seconds)))

    @precondition(lambda self: bool(self.pending))
    @rule()
    def succeed(self) -> None:
        command = self.pending.pop(0)
        assert isinstance(command, SetWeight)
        assert command.weight == self.rollout.weight, "what is pushed is what is written down"
        self.actual, self.disturbed = command.weight, False
        self.send(Applied(weight=command.weight))

    @precondition(lambda self: bool(self.pending))
    @rule()
    def refuse(self) -> None:
        command = self.pending.pop(0)
        self.send(Refused(weight=command.weight, message="no"))

    @precondition(lambda self: bool(self.pending))
    @rule()
    def die_before_the_answer(self) -> None:
        """The weight came into effect, and nobody lived to write that down."""
        self.actual = self.pending.pop(0).weight
        self.die()

    @rule()
    def die(self) -> None:
        self.pending = []
        self.now += 100
        self.send(Restarted())

    @rule(what=st.sampled_from([PauseAsked, ResumeAsked, RollBackAsked]))
    def ask(self, what: type[PauseAsked | ResumeAsked | RollBackAsked]) -> None:
        self.send(what(author="bob"))

    @rule(full=st.booleans())
    def promote(self, full: bool) -> None:
        self.send(PromoteAsked(author="bob", full=full))

    @rule(revision=st.sampled_from("ab"))
    def revise(self, revision: str) -> None:
        self.send(Revised(revision=revision))

    @precondition(lambda self: not self.pending and self.rollout.phase in ("running", "paused", "frozen"))
    @rule()
    def disturb(self) -> None:
        self.actual, self.disturbed = 33, True
        self.send(Disturbed(message="33%", weight=33))

    @invariant()
    def weights_are_decided(self) -> None:
        assert self.rollout.weight in self.allowed
        assert self.actual in self.allowed or self.disturbed

    @invariant()
    def the_end_is_what_it_says(self) -> None:
        if self.rollout.phase == "promoted":
            assert self.actual == 100
        if self.rollout.phase == "rolled_back":
            assert self.actual == 0

    @invariant()
    def what_is_decided_is_under_way_or_in_effect(self) -> None:
        if not self.pending and not self.rollout.ended and self.rollout.next_at is None:
            assert self.rollout.phase in ("paused", "frozen")
        if self.rollout.phase == "running":
            assert self.actual == self.rollout.applied == self.rollout.weight

    def teardown(self) -> None:
        """Everything that was decided is decided again from what was written down."""
        if hasattr(self, "first"):
            expected: list[Decision | None] = list(self.decisions)
            assert replay(self.first, self.events) == expected


AnyOrder.TestCase.settings = hypothesis_settings(max_examples=25, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
