"""Whatever happens in whatever order, the machine keeps its invariants (Hypothesis, stateful)."""

from __future__ import annotations

import signal
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.instances import LIVENESS, READINESS, make_spec

from meshctl.lifecycle.machine import failed_to_start, next_wakeup, step
from meshctl.lifecycle.model import (
    MOVES,
    Adopted,
    Command,
    DependenciesMet,
    Drain,
    Drained,
    Event,
    Exited,
    Forced,
    InstanceSpec,
    InstanceState,
    ProbeKind,
    ProbeResult,
    Refreshed,
    Remember,
    Report,
    RunProbe,
    Signal,
    Spawn,
    Started,
    StartFailed,
    StopRequested,
    Sweep,
    Swept,
    Tick,
    Waiting,
)
from meshctl.ports import InstanceRecord
from meshctl.spec.schema import RestartPolicy

SPECS = st.builds(
    make_spec,
    kind=st.sampled_from(["service", "job", "sidecar"]),
    readiness=st.sampled_from([None, READINESS, replace(READINESS, success_threshold=2, initial_delay=1.0)]),
    liveness=st.sampled_from([None, LIVENESS, replace(LIVENESS, failure_threshold=1)]),
    restart=st.builds(
        RestartPolicy, mode=st.sampled_from(["no", "on_failure", "always"]), max_restarts=st.sampled_from([None, 0, 2])
    ),
    stop_grace=st.sampled_from([0.0, 2.0]),
)


class World(RuleBasedStateMachine):
    """One machine and the world that it acts on: at most one process, one sweep, one start at a time."""

    @initialize(spec=SPECS)
    def begin(self, spec: InstanceSpec) -> None:
        self.spec = spec
        self.state = InstanceState()
        self.now = 0.0
        self.next_pid = 100
        self.alive: int | None = None
        self.starting = False
        self.sweeping = False
        self.unheard: list[tuple[int, int | None]] = []
        self.drains: list[int] = []
        self.probes: list[tuple[ProbeKind, int]] = []
        self.record: InstanceRecord | None = None

    # ---------------------------------------------------------------------------------------- the machine's deeds

    def send(self, event: Event) -> None:
        before = self.state
        self.state, commands = step(before, event, spec=self.spec, now=self.now)
        assert self.state.phase == before.phase or self.state.phase in MOVES[before.phase]
        assert self.state.restarts >= before.restarts
        for command in commands:
            self.act(command)
        now = (self.state.phase, self.state.restarts, self.state.exit_code, self.state.fingerprint)
        if self.record is not None:
            record = self.record
            assert now == (record.phase, record.restarts, record.exit_code, record.fingerprint)

    def act(self, command: Command) -> None:
        match command:
            case Spawn():
                assert self.alive is None
                assert not self.starting
                assert not self.sweeping
                assert self.record is not None
                assert (self.record.phase, self.record.fingerprint) == ("starting", self.spec.fingerprint)
                self.starting = True
            case Signal(signum=signum):
                assert self.state.pid is not None
                if signum == signal.SIGKILL and self.alive is not None:
                    self.end(-9)
            case Sweep():
                assert not self.sweeping
                self.sweeping = True
                if self.alive is not None:
                    self.end(-9)
            case Drain(start=start):
                self.drains.append(start)
            case RunProbe(kind=kind, start=start):
                assert (kind, start) not in self.probes
                self.probes.append((kind, start))
            case Remember(record=record):
                self.record = record
            case Report(message=message):
                assert message

    def end(self, code: int | None) -> None:
        assert self.alive is not None
        self.unheard.append((self.alive, code))
        self.alive = None

    def make_process(self) -> int:
        self.next_pid += 1
        self.alive = self.next_pid
        return self.next_pid

    # ---------------------------------------------------------------------------------------- what may happen

    @rule()
    def dependencies_are_met(self) -> None:
        self.send(DependenciesMet())

    @rule()
    def it_waits(self) -> None:
        self.send(Waiting(reason="waiting for db to be healthy"))

    @precondition(lambda self: self.state.phase == "pending" and self.alive is None)
    @rule(ready=st.booleans(), uptime=st.floats(0, 100))
    def it_is_adopted(self, ready: bool, uptime: float) -> None:
        pid = self.make_process()
        self.send(
            Adopted(pid=pid, started_at=1e9, uptime=uptime, restarts=3, exit_code=None, fingerprint="one", ready=ready)
        )

    @precondition(lambda self: self.starting)
    @rule(ok=st.booleans(), dies=st.booleans(), told_first=st.booleans())
    def a_start_is_answered(self, ok: bool, dies: bool, told_first: bool) -> None:
        self.starting = False
        if not ok:
            self.send(StartFailed(message="command not found: serv"))
            return
        pid = self.make_process()
        if dies:
            self.end(1)
            if told_first:
                self.news_of_an_exit_comes()
        self.send(Started(pid=pid, started_at=1e9))

    @precondition(lambda self: self.alive is not None)
    @rule(code=st.sampled_from([0, 1, -9, None]))
    def the_process_ends(self, code: int | None) -> None:
        self.end(code)

    @precondition(lambda self: self.unheard)
    @rule()
    def news_of_an_exit_comes(self) -> None:
        pid, code = self.unheard.pop(0)
        self.send(Exited(pid=pid, code=code))

    @precondition(lambda self: self.sweeping)
    @rule()
    def a_sweep_ends(self) -> None:
        self.sweeping = False
        self.send(Swept())

    @precondition(lambda self: self.drains)
    @rule()
    def a_drain_ends(self) -> None:
        self.send(Drained(start=self.drains.pop(0)))

    @precondition(lambda self: self.probes)
    @rule(ok=st.booleans())
    def a_probe_answers(self, ok: bool) -> None:
        kind, start = self.probes.pop(0)
        self.send(ProbeResult(kind=kind, start=start, ok=ok, message="refused"))

    @rule(then=st.sampled_from(["stop", "restart"]), immediate=st.booleans())
    def a_stop_is_asked_for(self, then: str, immediate: bool) -> None:
        self.send(StopRequested(then="stop" if then == "stop" else "restart", immediate=immediate))

    @rule()
    def it_is_forced(self) -> None:
        self.send(Forced())

    @rule(spec=SPECS)
    def its_probes_and_policy_change(self, spec: InstanceSpec) -> None:
        self.spec = replace(spec, kind=self.spec.kind)
        self.send(Refreshed())

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.send(Tick())
        self.check_timers()

    @precondition(lambda self: next_wakeup(self.state) is not None)
    @rule()
    def the_next_timer_is_due(self) -> None:
        due = next_wakeup(self.state)
        assert due is not None
        self.now = max(self.now, due)
        self.send(Tick())
        self.check_timers()

    def check_timers(self) -> None:
        due = next_wakeup(self.state)
        assert due is None or due > self.now or (due == self.now and self.spec.stop_grace == 0.0)

    # ---------------------------------------------------------------------------------------- what always holds

    @invariant()
    def what_is_ready_runs(self) -> None:
        assert not self.state.ready or (self.state.pid is not None and self.state.phase in ("ready", "draining"))

    @invariant()
    def what_is_settled_has_nothing_left(self) -> None:
        if self.state.settled:
            assert self.alive is None
            assert not self.starting
            assert not self.sweeping
            assert self.state.pid is None
            assert next_wakeup(self.state) is None

    @invariant()
    def every_state_can_be_judged(self) -> None:
        assert failed_to_start(self.state, self.spec) in (True, False)

    def teardown(self) -> None:
        """From any state a stop comes to its end, once the world answers."""
        if not hasattr(self, "spec"):
            return
        self.send(StopRequested(then="stop"))
        for _ in range(50):
            if self.starting:
                self.starting = False
                self.send(Started(pid=self.make_process(), started_at=1e9))
            elif self.sweeping:
                self.a_sweep_ends()
            elif self.unheard:
                self.news_of_an_exit_comes()
            elif (due := next_wakeup(self.state)) is not None:
                self.now = max(self.now, due)
                self.send(Tick())
            else:
                break
        assert self.state.settled


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
