"""The circuit breaker's Lua, run in LuaJIT: held to the model, and case by case."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.circuit_model import Admission, CircuitModel
from tests.support.lua_filter import LuaFilter, Reply, Stream

from meshctl.envoy.circuit_layout import FILE_SIZE, CircuitSlot, read_change_count, read_slots
from meshctl.envoy.filters.circuit_breaker import write_parameters
from meshctl.envoy.filters.circuit_breaker_lua import CONTEXT_KEY, build_source
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan

PLAN = CircuitBreakerPlan(
    target="orders", failure_threshold=3, success_threshold=2, timeout=30.0, slow_call=0.3, probe_timeout=6.0
)
UPSTREAM = {"x-envoy-upstream-service-time": "7"}
GOOD = {":status": "200"} | UPSTREAM
BAD = {":status": "500"} | UPSTREAM
SLOW = {":status": "200", "x-envoy-upstream-service-time": "301"}
ANSWERS: dict[str, tuple[dict[str, str], bool | None]] = {
    "good": (GOOD, False),
    "bad": (BAD, True),
    "missing": ({":status": "404"} | UPSTREAM, False),
    "slow": (SLOW, True),
    "just in time": ({":status": "200", "x-envoy-upstream-service-time": "300"}, False),
    "unreachable": ({":status": "503"}, True),
    "late": ({":status": "504"}, True),
    "overflow": ({":status": "503", "x-envoy-overloaded": "true"}, None),
    "shed": ({":status": "503", "x-envoy-local-overloaded": "true"}, None),
    "in need": ({":status": "503", "x-meshctl-overloaded": "sidecar"}, None),
    "limited": ({":status": "429"}, None),
    "redirected by a route": ({":status": "301"}, None),
    "limited by it": ({":status": "429"} | UPSTREAM, False),
    "overloaded itself": ({":status": "503", "x-envoy-overloaded": "true"} | UPSTREAM, True),
}
"""Answers, and what they say of the service: failed, succeeded, or neither."""


class World:
    """A sidecar: several listeners, one clock, one file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state"
        self.now = 1000.0
        self.filters: list[LuaFilter] = []

    def add_listener(self) -> LuaFilter:
        """A listener's Lua state, made anew."""
        made = LuaFilter(build_source(str(self.path)))
        made.set_clock(self.now)
        self.filters.append(made)
        return made

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on."""
        self.now += seconds
        for item in self.filters:
            item.set_clock(self.now)

    def slot(self, target: str = "orders") -> CircuitSlot:
        """What the control plane sees."""
        return next(slot for slot in read_slots(self.path.read_bytes()) if slot.target == target)

    @property
    def state(self) -> str:
        """Of the one target."""
        return self.slot().state


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def send(script: LuaFilter, plan: CircuitBreakerPlan = PLAN) -> tuple[Stream, Reply | None]:
    return script.request({CONTEXT_KEY: write_parameters(plan)})


def call(script: LuaFilter, headers: dict[str, str], plan: CircuitBreakerPlan = PLAN) -> Reply | None:
    """A whole exchange; the reply of an open circuit passes back through the script, as in Envoy."""
    stream, reply = send(script, plan)
    assert script.response(stream, headers if reply is None else dict(reply.headers)) is None
    return reply


def open_it(script: LuaFilter, plan: CircuitBreakerPlan = PLAN) -> None:
    for _ in range(plan.failure_threshold):
        assert call(script, BAD, plan) is None


# ---------------------------------------------------------------------------------------------- case by case


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_a_failure_a_success_or_neither(world: World, name: str) -> None:
    headers, failed = ANSWERS[name]
    script = world.add_listener()
    call(script, BAD)
    call(script, headers)
    assert world.slot().failures == {True: 2, False: 0, None: 1}[failed]


def test_failures_in_a_row_open_it_and_it_answers_at_once(world: World) -> None:
    script = world.add_listener()
    for headers in (BAD, BAD, GOOD, BAD, BAD):
        assert call(script, headers) is None
        assert world.state == "closed"
    call(script, BAD)
    assert world.state == "open"
    world.pass_time(10.5)
    reply = call(script, GOOD)
    assert reply is not None
    assert reply.headers == {
        ":status": "503",
        "content-type": "text/plain; charset=utf-8",
        "x-meshctl-circuit": "open",
        "retry-after": "20",
    }
    assert reply.body == "meshctl: the circuit to orders is open: try again in 20 s\n"
    assert world.slot().rejected == 1


def test_half_open_admits_as_many_probes_as_it_needs_successes(world: World) -> None:
    script = world.add_listener()
    open_it(script)
    world.pass_time(30)
    probes = [send(script) for _ in range(3)]
    assert [reply is None for _, reply in probes] == [True, True, False]
    assert world.state == "half_open"
    script.response(probes[0][0], GOOD)
    assert world.state == "half_open"
    script.response(probes[1][0], GOOD)
    assert world.state == "closed"
    script.response(probes[2][0], {":status": "503"})
    assert world.slot().failures == 0


def test_one_failed_probe_opens_it_again_whatever_the_others_say(world: World) -> None:
    script = world.add_listener()
    open_it(script)
    world.pass_time(30)
    first, second = send(script)[0], send(script)[0]
    script.response(first, BAD)
    assert world.state == "open"
    script.response(second, GOOD)
    assert world.state == "open"
    assert world.slot().retry_at == world.now + 30


def test_a_probe_that_is_never_answered_gives_its_place_back(world: World) -> None:
    script = world.add_listener()
    open_it(script)
    world.pass_time(30)
    for _ in range(2):
        assert send(script)[1] is None
    assert send(script)[1] is not None
    world.pass_time(6)
    assert send(script)[1] is None


def test_what_was_let_through_before_it_opened_is_not_counted(world: World) -> None:
    script = world.add_listener()
    old = [send(script)[0] for _ in range(5)]
    open_it(script)
    script.response(old[0], BAD)
    world.pass_time(30)
    probes = [send(script)[0], send(script)[0]]
    script.response(old[1], BAD)
    assert world.state == "half_open"
    for probe in probes:
        script.response(probe, GOOD)
    for stream in old[2:]:
        script.response(stream, BAD)
    assert (world.state, world.slot().failures) == ("closed", 0)
    call(script, BAD)
    assert world.slot().failures == 1


def test_two_listeners_and_a_new_one_share_one_state(world: World) -> None:
    first, second = world.add_listener(), world.add_listener()
    call(first, BAD)
    call(second, BAD)
    call(first, BAD)
    assert world.state == "open"
    assert call(second, GOOD) is not None
    assert call(world.add_listener(), GOOD) is not None


def test_targets_have_breakers_of_their_own(world: World) -> None:
    script = world.add_listener()
    other = replace(PLAN, target="payment")
    call(script, GOOD, other)
    open_it(script)
    assert call(script, GOOD, other) is None
    assert (world.slot("orders").state, world.slot("payment").state) == ("open", "closed")


def test_a_rate_counts_over_the_last_requests(world: World) -> None:
    plan = replace(PLAN, failure_threshold=100, failure_rate=50.0, minimum_requests=10)
    script = world.add_listener()
    for headers in [BAD] * 5 + [GOOD] * 4:
        call(script, headers, plan)
    assert world.state == "closed"
    call(script, GOOD, plan)
    assert world.state == "open"
    assert world.slot().recent[-1].reason == "failure_rate"
    assert world.slot().recent[-1].value == 50.0


def test_a_window_of_every_size_slides(world: World) -> None:
    plan = replace(PLAN, failure_threshold=10_000, failure_rate=100.0, minimum_requests=70)
    script = world.add_listener()
    for number in range(300):
        call(script, BAD if number % 3 else GOOD, plan)
        last = [n % 3 != 0 for n in range(max(0, number - 69), number + 1)]
        assert (world.slot().window_fill, world.slot().window_failed) == (len(last), sum(last))


def test_listeners_that_learn_of_a_change_one_after_the_other_do_not_disturb_each_other(world: World) -> None:
    rated = replace(PLAN, failure_threshold=100, failure_rate=50.0, minimum_requests=4)
    plain = replace(PLAN, failure_threshold=100)
    first, second = world.add_listener(), world.add_listener()
    for script in (first, second):
        call(script, BAD, rated)
    call(first, BAD, plain)
    call(second, BAD, rated)
    assert world.slot().window_fill == 0
    for headers in (GOOD, GOOD, BAD, BAD):
        for script in (first, second):
            call(script, GOOD, replace(rated, timeout=20.0))
            call(script, headers, replace(rated, timeout=20.0))
    assert world.state == "open"


def test_forced_open_and_closed_hold_whatever_happens(world: World) -> None:
    script = world.add_listener()
    reply = call(script, GOOD, replace(PLAN, forced="open"))
    assert reply is not None
    assert "it was opened by hand" in reply.body
    world.pass_time(1000)
    assert call(script, GOOD, replace(PLAN, forced="open")) is not None
    assert (world.state, world.slot().forced) == ("open", "open")
    for _ in range(10):
        assert call(script, BAD, replace(PLAN, forced="closed")) is None
    assert (world.state, world.slot().forced) == ("closed", "closed")
    open_it(script)
    assert (world.state, world.slot().forced) == ("open", "auto")


def test_a_change_of_parameters_keeps_the_state(world: World) -> None:
    script = world.add_listener()
    open_it(script)
    world.pass_time(10)
    assert call(script, GOOD, replace(PLAN, timeout=15.0)) is not None
    assert world.slot().retry_at == 1015
    world.pass_time(5)
    assert call(script, GOOD, replace(PLAN, timeout=15.0)) is None


@pytest.mark.parametrize(
    ("headers", "trailers", "failed"),
    [
        (GOOD, {"grpc-status": "0"}, False),
        (GOOD, {"grpc-status": "14"}, True),
        (GOOD, {"grpc-status": "2"}, True),
        (GOOD, {"grpc-status": "5"}, False),
        (SLOW, {"grpc-status": "0"}, True),
        ({":status": "200", "grpc-status": "4"}, None, True),
        ({":status": "200", "grpc-status": "14", "x-envoy-overloaded": "true"}, None, None),
        (GOOD | {"grpc-status": "8"}, None, False),
        ({":status": "503"}, None, True),
        (GOOD, None, None),
    ],
)
def test_grpc_goes_by_its_own_status(
    world: World, headers: dict[str, str], trailers: dict[str, str] | None, failed: bool | None
) -> None:
    plan = replace(PLAN, grpc=True)
    script = world.add_listener()
    call(script, {":status": "200", "grpc-status": "14"}, plan)
    stream, _ = send(script, plan)
    waiting = script.response(stream, headers, trailers)
    if waiting is not None:
        assert world.slot().failures == 1
        script.finish(waiting)
    assert world.slot().failures == {True: 2, False: 0, None: 1}[failed]


def test_changes_are_counted_and_the_last_ones_kept(world: World) -> None:
    script = world.add_listener()
    open_it(script)
    for _ in range(12):
        world.pass_time(30)
        call(script, BAD)
    slot = world.slot()
    assert slot.changes == 25 == read_change_count(world.path.read_bytes())
    assert [change.number for change in slot.recent] == list(range(9, 25))
    assert {(c.before, c.after, c.reason) for c in slot.recent} == {
        ("half_open", "open", "probe"),
        ("open", "half_open", "timeout"),
    }
    assert slot.recent[-1].time == world.now


def test_its_file_is_private_and_has_one_size(world: World) -> None:
    call(world.add_listener(), GOOD)
    call(world.add_listener(), GOOD)
    found = world.path.stat()
    assert (found.st_mode & 0o777, found.st_size) == (0o600, FILE_SIZE)


def test_without_a_file_it_works_out_of_sight(tmp_path: Path) -> None:
    script = LuaFilter(build_source(str(tmp_path / "missing" / "state")))
    stream, _ = send(script)
    assert "out of sight" in stream.warnings[0]
    open_it(script)
    assert call(script, GOOD) is not None


def test_more_targets_than_slots_work_out_of_sight(world: World) -> None:
    script = world.add_listener()
    for number in range(130):
        plan = replace(PLAN, target=f"service-{number}")
        open_it(script, plan)
        assert call(script, GOOD, plan) is not None
    assert len(read_slots(world.path.read_bytes())) == 128


def test_a_state_from_before_a_reboot_does_not_hold(world: World) -> None:
    open_it(world.add_listener())
    world.filters.clear()
    world.now = 5.0
    assert call(world.add_listener(), GOOD) is None
    assert world.state == "closed"


def test_marking_ends_some_time_after_it_closed(world: World) -> None:
    script = world.add_listener()
    open_it(script)
    world.pass_time(30)
    call(script, GOOD)
    call(script, GOOD)
    assert world.state == "closed"
    stream, _ = send(script)
    assert len(list(stream.state.metadata)) == 1
    script.response(stream, GOOD)
    world.pass_time(61)
    stream, _ = send(script)
    assert len(list(stream.state.metadata)) == 0
    script.response(stream, BAD)
    assert world.slot().failures == 1


def test_an_answer_to_a_request_that_was_never_here_is_left_alone(world: World) -> None:
    script = world.add_listener()
    stream, _ = LuaFilter("function envoy_on_request() end").request({})
    stream.state = script._globals.make_stream(script._table({CONTEXT_KEY: write_parameters(PLAN)}))
    assert script.response(stream, {":status": "503"}) is None


# ---------------------------------------------------------------------------------------------- against the model


@dataclass
class Pending:
    """A request that waits for its answer."""

    script: LuaFilter
    stream: Stream
    admission: Admission
    sent_at: float


class CircuitMachine(RuleBasedStateMachine):
    """Random requests, answers, times and changes, through two listeners that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name))
        self.plan = PLAN
        self.model = CircuitModel(self.plan)
        self.pending: list[Pending] = []
        for _ in range(2):
            self.world.add_listener()

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(
        failures=st.integers(1, 3),
        successes=st.integers(1, 3),
        rate=st.sampled_from([0.0, 40.0]),
        size=st.integers(1, 9),
    )
    def begin(self, failures: int, successes: int, rate: float, size: int) -> None:
        self.plan = replace(
            PLAN, failure_threshold=failures, success_threshold=successes, failure_rate=rate, minimum_requests=size
        )
        self.model = CircuitModel(self.plan)

    @rule(listener=st.integers(0, 1), count=st.integers(1, 4))
    def send_some(self, listener: int, count: int) -> None:
        for _ in range(count):
            self.send(listener)

    def send(self, listener: int) -> None:
        script = self.world.filters[listener]
        stream, reply = send(script, self.plan)
        expected = self.model.admit(self.world.now)
        if isinstance(expected, Admission):
            assert reply is None
            self.pending.append(Pending(script, stream, expected, self.world.now))
        else:
            assert reply is not None
            assert int(reply.headers["retry-after"]) == max(1, math.ceil(expected))
            script.response(stream, dict(reply.headers))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), name=st.sampled_from([*ANSWERS, "good", "good", "bad", "bad"]))
    def answer(self, data: st.DataObject, name: str) -> None:
        one = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        headers, failed = ANSWERS[name]
        one.script.response(one.stream, headers)
        self.model.finish(one.admission, self.world.now, failed=failed)

    @rule(listener=st.integers(0, 1), names=st.lists(st.sampled_from(["good", "bad", "slow", "late"]), max_size=8))
    def exchange(self, listener: int, names: list[str]) -> None:
        for name in names:
            before = len(self.pending)
            self.send(listener)
            if len(self.pending) > before:
                one = self.pending.pop()
                headers, failed = ANSWERS[name]
                one.script.response(one.stream, headers)
                self.model.finish(one.admission, self.world.now, failed=failed)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 6.0, 7.0, 29.0, 30.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        # What takes longer is given up: see `tag_until`.
        self.pending = [one for one in self.pending if self.world.now - one.sent_at < 55]

    def is_rare(self) -> bool:
        """Once in a while, by what happened so far."""
        return self.model.generation % 4 == 3

    @precondition(lambda self: self.is_rare())
    @rule(
        failures=st.sampled_from([1, 3, 5]),
        successes=st.integers(1, 3),
        rate=st.sampled_from([0.0, 40.0, 100.0]),
        minimum=st.sampled_from([1, 8, 33]),
    )
    def change_parameters(self, failures: int, successes: int, rate: float, minimum: int) -> None:
        self._set(failure_threshold=failures, success_threshold=successes, failure_rate=rate, minimum_requests=minimum)

    @precondition(lambda self: self.is_rare())
    @rule(forced=st.sampled_from(["auto", "auto", "open", "closed"]))
    def force(self, forced: str) -> None:
        self._set(forced=forced)

    @rule(listener=st.integers(0, 1))
    def renew_listener(self, listener: int) -> None:
        self.world.filters[listener] = self.world.add_listener()
        self.world.filters.pop()
        self.pending = [one for one in self.pending if one.script in self.world.filters]

    @invariant()
    def it_looks_the_same(self) -> None:
        if not self.world.path.exists():
            return
        slot = self.world.slot()
        assert (slot.state, slot.failures, slot.successes) == (
            self.model.state,
            self.model.failures,
            self.model.successes,
        )
        assert slot.window_failed == sum(self.model.window)

    def _set(self, **changes: Any) -> None:
        self.plan = replace(self.plan, **changes)
        self.model.set_plan(self.plan)
        # A route change reaches all listeners; each takes it up with its next request, and the first one acts on it.
        for script in self.world.filters[:2]:
            self.send(self.world.filters.index(script))
            if self.pending and self.pending[-1].sent_at == self.world.now:
                one = self.pending.pop()
                one.script.response(one.stream, GOOD)
                self.model.finish(one.admission, self.world.now, failed=False)


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
