"""The life of one instance, told as scripts of events and the commands they lead to."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from tests.support.instances import LIVENESS, READINESS, make_job, make_sidecar, make_spec

from meshctl.lifecycle.machine import failed_to_start, next_wakeup, step
from meshctl.lifecycle.model import (
    DRAIN_LIMIT,
    KILL_LIMIT,
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
from meshctl.spec.schema import RestartPolicy

TERM = Signal(signum=signal.SIGTERM)
KILL = Signal(signum=signal.SIGKILL)


class Play:
    """One instance, a clock, and what it was told to do last (reports and records aside)."""

    def __init__(self, spec: InstanceSpec) -> None:
        self.spec = spec
        self.state = InstanceState()
        self.now = 100.0
        self.commands: tuple[Command, ...] = ()

    def send(self, event: Event) -> Play:
        self.state, self.commands = step(self.state, event, spec=self.spec, now=self.now)
        return self

    def wait(self, seconds: float) -> Play:
        self.now += seconds
        return self.send(Tick())

    @property
    def deeds(self) -> list[Command]:
        return [command for command in self.commands if not isinstance(command, Report | Remember)]

    @property
    def reports(self) -> list[str]:
        return [command.kind for command in self.commands if isinstance(command, Report)]

    def start(self, pid: int = 7) -> Play:
        return self.send(DependenciesMet()).send(Started(pid=pid, started_at=1e9))

    def answer(self, ok: bool, kind: ProbeKind = "readiness", message: str = "refused") -> Play:
        return self.send(ProbeResult(kind=kind, start=self.state.starts, ok=ok, message=message))

    def up(self, pid: int = 7) -> Play:
        self.start(pid)
        return self if self.state.phase == "ready" else self.answer(ok=True)

    def crash(self, code: int | None = 1) -> Play:
        assert self.state.pid is not None
        return self.send(Exited(pid=self.state.pid, code=code))


# ------------------------------------------------------------------------------------------------- starting


def test_an_instance_waits_for_its_dependencies_and_says_so() -> None:
    play = Play(make_spec()).send(Waiting(reason="waiting for db to be healthy"))
    assert (play.state.phase, play.state.reason) == ("pending", "waiting for db to be healthy")
    assert play.send(DependenciesMet()).deeds == [Spawn()]
    assert play.state.phase == "starting"


def test_what_is_remembered_is_remembered_before_the_process_is_spawned() -> None:
    commands = Play(make_spec(fingerprint="f1")).send(DependenciesMet()).commands
    assert isinstance(commands[0], Remember)
    assert (commands[0].record.fingerprint, commands[0].record.phase) == ("f1", "starting")
    assert commands[1] == Spawn()


def test_events_that_do_not_fit_a_pending_instance_change_nothing() -> None:
    for event in (Drained(start=0), Forced(), Swept(), Refreshed(), Tick(), Exited(pid=1, code=0)):
        assert Play(make_spec()).send(event).state == InstanceState()
    started = Play(make_spec()).start()
    for late in (DependenciesMet(), Waiting(reason="?"), Started(pid=8, started_at=1.0), StartFailed(message="?")):
        assert step(started.state, late, spec=started.spec, now=started.now) == (started.state, ())


def test_the_first_readiness_check_comes_at_once_and_the_next_ones_fast_then_slower() -> None:
    play = Play(make_spec()).start()
    assert play.deeds == [RunProbe(kind="readiness", start=1)]
    gaps = []
    for _ in range(30):
        play.answer(ok=False)
        due = next_wakeup(play.state)
        assert due is not None
        gaps.append(round(due - play.now, 3))
        assert play.wait(due - play.now).deeds == [RunProbe(kind="readiness", start=1)]
    assert gaps[:3] == [0.05, 0.058, 0.066]
    assert gaps == sorted(gaps)
    assert gaps[-1] == READINESS.interval
    assert play.state.reason == "waiting for its readiness check: refused"


def test_the_initial_delay_of_a_readiness_check_is_kept() -> None:
    play = Play(make_spec(readiness=replace(READINESS, initial_delay=3.0))).start()
    assert play.deeds == []
    assert next_wakeup(play.state) == play.now + 3.0
    assert play.wait(3.0).deeds == [RunProbe(kind="readiness", start=1)]


def test_an_instance_is_ready_after_as_many_passed_checks_in_a_row_as_asked_for() -> None:
    play = Play(make_spec(readiness=replace(READINESS, success_threshold=2))).start().answer(ok=True)
    assert play.state.phase == "starting"
    play.wait(0.1).answer(ok=False).wait(0.1).answer(ok=True)
    assert play.state.phase == "starting"
    assert play.wait(0.2).answer(ok=True).state.phase == "ready"
    assert play.reports == ["instance.ready"]
    assert play.state.reason == ""


@pytest.mark.parametrize("spec", [make_spec(readiness=None), make_sidecar()])
def test_without_a_readiness_check_it_is_ready_as_soon_as_it_runs(spec: InstanceSpec) -> None:
    play = Play(spec).start()
    assert (play.state.phase, play.state.ready) == ("ready", True)


def test_two_checks_of_a_kind_never_run_at_once() -> None:
    play = Play(make_spec()).start()
    assert play.wait(60.0).deeds == []


def test_answers_that_belong_to_an_earlier_start_change_nothing() -> None:
    play = Play(make_spec()).start().crash().send(Swept()).wait(0.5).send(Started(pid=8, started_at=1e9))
    assert play.state.starts == 2
    play.send(ProbeResult(kind="readiness", start=1, ok=True, message=""))
    assert play.state.phase == "starting"


def test_an_exit_that_is_heard_of_before_the_start_is_not_lost() -> None:
    play = Play(make_spec()).send(DependenciesMet()).send(Exited(pid=7, code=3)).send(Started(pid=7, started_at=1e9))
    assert (play.state.phase, play.state.exit_code) == ("backoff", 3)
    assert play.deeds == [Sweep()]


def test_an_exit_of_an_earlier_process_does_not_end_the_new_one() -> None:
    play = Play(make_spec()).send(DependenciesMet()).send(Exited(pid=6, code=3)).send(Started(pid=7, started_at=1e9))
    assert play.state.pid == 7
    assert play.send(Exited(pid=6, code=3)).state.pid == 7


# ------------------------------------------------------------------------------------------------- health


def test_failing_readiness_makes_it_unhealthy_without_a_restart() -> None:
    play = Play(make_spec()).up()
    for _ in range(2):
        assert play.wait(1.0).answer(ok=False, message="answered 500").state.ready
    play.wait(1.0).answer(ok=False, message="answered 500")
    assert (play.state.phase, play.state.ready, play.state.pid) == ("ready", False, 7)
    assert play.state.reason == "its readiness check fails: answered 500"
    assert play.reports == ["instance.unhealthy"]
    assert play.wait(1.0).answer(ok=False).reports == []
    assert play.wait(1.0).answer(ok=True).reports == ["instance.healthy"]
    assert (play.state.ready, play.state.reason) == (True, "")


def test_liveness_is_asked_only_once_it_has_been_ready() -> None:
    play = Play(make_spec(liveness=LIVENESS)).start()
    assert play.deeds == [RunProbe(kind="readiness", start=1)]
    assert RunProbe(kind="liveness", start=1) in play.answer(ok=True).deeds


def test_failing_liveness_restarts_it_after_it_left_its_callers_endpoints() -> None:
    play = Play(make_spec(liveness=LIVENESS)).up()
    for _ in range(2):
        assert play.answer(ok=False, kind="liveness").wait(5.0).state.phase == "ready"
    play.answer(ok=False, kind="liveness", message="no answer")
    assert play.deeds == [Drain(start=1)]
    assert play.state.reason == "its liveness check failed: no answer"
    assert play.send(Drained(start=1)).deeds == [TERM]
    assert play.crash(code=0).state.phase == "backoff"
    assert play.send(Swept()).deeds == [Spawn()]
    assert play.state.restarts == 1


def test_failing_liveness_of_what_is_not_restarted_is_a_failure() -> None:
    play = Play(make_sidecar(liveness=replace(LIVENESS, failure_threshold=1), restart=RestartPolicy(mode="no"))).up()
    assert play.answer(ok=False, kind="liveness").deeds == [TERM]
    assert play.crash(-15).state.phase == "failed"


def test_a_passing_liveness_check_forgives_earlier_failures() -> None:
    play = Play(make_spec(readiness=None, liveness=LIVENESS)).up()
    for ok in (False, False, True, False, False):
        play.answer(ok=ok, kind="liveness").wait(5.0)
    assert play.state.phase == "ready"


# ------------------------------------------------------------------------------------------------- restarts


def test_a_killed_process_is_back_at_once_after_a_healthy_life() -> None:
    play = Play(make_spec()).up().wait(100.0).crash(-9)
    assert play.deeds == [Sweep()]
    assert play.state.reason == "killed by SIGKILL; starting again"
    assert play.send(Swept()).deeds == [Spawn()]
    assert (play.state.restarts, play.state.exit_code) == (1, -9)


def test_nothing_is_spawned_before_what_was_left_behind_is_swept() -> None:
    play = Play(make_spec()).up().crash()
    assert next_wakeup(play.state) is None
    assert play.wait(60.0).deeds == []
    assert play.send(Swept()).deeds == [Spawn()]


def test_exits_in_a_row_back_off_and_a_long_life_starts_counting_anew() -> None:
    play = Play(make_spec())
    play.up()
    delays = []
    for _ in range(4):
        play.crash()
        assert play.state.retry_at is not None
        delays.append(play.state.retry_at - play.now)
        play.send(Swept()).wait(delays[-1]).send(Started(pid=7, started_at=1e9)).answer(ok=True)
    assert delays == [0.0, 0.5, 1.0, 2.0]
    play.wait(play.spec.restart.reset_after).crash()
    assert play.state.retry_at == play.now
    assert play.state.restarts == 4


def test_one_that_exits_before_it_is_ready_backs_off_from_the_first_time() -> None:
    play = Play(make_spec()).start().crash(1)
    assert play.state.reason == "exited with 1; next try in 0.5 s"
    assert play.send(Swept()).deeds == []
    assert play.wait(0.4).deeds == []
    assert play.wait(0.1).deeds == [Spawn()]
    assert play.send(Started(pid=8, started_at=1e9)).crash(1).state.retry_at == pytest.approx(play.now + 1.0)


def test_the_number_of_restarts_in_a_row_is_bounded_when_asked() -> None:
    play = Play(make_spec(restart=RestartPolicy(max_restarts=1))).up().crash(1).send(Swept())
    play.send(Started(pid=8, started_at=1e9)).answer(ok=True).crash(1)
    assert (play.state.phase, play.state.reason) == ("failed", "exited with 1; given up after 1 restart")
    assert play.reports == ["instance.failed"]


@pytest.mark.parametrize(
    ("spec", "code", "phase", "reason"),
    [
        (make_spec(restart=RestartPolicy(mode="no")), 0, "failed", "exited with 0"),
        (make_spec(restart=RestartPolicy(mode="no")), 2, "failed", "exited with 2"),
        (make_spec(restart=RestartPolicy(mode="on_failure")), 0, "stopped", "exited with 0"),
        (make_spec(restart=RestartPolicy(mode="on_failure")), 1, "backoff", "exited with 1; starting again"),
        (make_spec(), 0, "backoff", "exited with 0; starting again"),
        (make_spec(), None, "backoff", "ended, its exit code is not known; starting again"),
        (make_spec(), -15, "backoff", "killed by SIGTERM; starting again"),
        (make_spec(), -99, "backoff", "killed by signal 99; starting again"),
    ],
)
def test_an_exit_of_a_service_is_answered_as_its_policy_says(
    spec: InstanceSpec, code: int | None, phase: str, reason: str
) -> None:
    play = Play(spec).up().crash(code)
    assert (play.state.phase, play.state.reason) == (phase, reason)


def test_a_job_is_done_when_it_exits_with_0_and_is_not_started_again() -> None:
    for mode in ("no", "on_failure", "always"):
        play = Play(make_job(restart=RestartPolicy(mode=mode))).start()
        assert (play.state.phase, play.state.reason) == ("starting", "running")
        play.crash(0)
        assert (play.state.phase, play.reports) == ("completed", ["job.completed"])
        assert not play.state.settled
        assert play.send(Swept()).state.settled
        assert not failed_to_start(play.state, play.spec)


def test_a_job_that_fails_is_tried_again_if_its_policy_says_so() -> None:
    assert Play(make_job()).start().crash(1).state.phase == "failed"
    play = Play(make_job(restart=RestartPolicy(mode="on_failure"))).start().crash(1)
    assert play.state.phase == "backoff"


# ------------------------------------------------------------------------------------------------- failing to start


def test_a_process_that_cannot_be_made_is_a_failed_start_at_once_but_is_tried_again() -> None:
    play = Play(make_spec()).send(DependenciesMet()).send(StartFailed(message="command not found: pythn"))
    assert failed_to_start(play.state, play.spec)
    assert play.state.reason == "command not found: pythn; next try in 0.5 s"
    assert play.wait(0.5).deeds == [Spawn()]
    assert not failed_to_start(play.send(Started(pid=7, started_at=1e9)).state, play.spec)


def test_exiting_twice_in_a_row_before_it_was_ready_is_a_failed_start() -> None:
    play = Play(make_spec()).start().crash().send(Swept())
    assert not failed_to_start(play.state, play.spec)
    play.wait(0.5).send(Started(pid=8, started_at=1e9)).crash()
    assert failed_to_start(play.state, play.spec)


def test_exiting_before_it_was_ready_is_a_failed_start_when_it_is_not_restarted() -> None:
    for policy in (RestartPolicy(mode="no"), RestartPolicy(max_restarts=0)):
        play = Play(make_spec(restart=policy)).start().crash()
        assert play.state.phase == "failed"
        assert failed_to_start(play.state, play.spec)
    play = Play(make_spec(restart=RestartPolicy(mode="on_failure"))).start().crash(0)
    assert play.state.phase == "stopped"
    assert failed_to_start(play.state, play.spec)


def test_an_exit_after_it_was_ready_is_no_failed_start() -> None:
    play = Play(make_spec()).start().crash().send(Swept()).wait(0.5).send(Started(pid=8, started_at=1e9))
    play.answer(ok=True).crash()
    assert not failed_to_start(play.state, play.spec)


# ------------------------------------------------------------------------------------------------- stopping


def test_a_stop_leaves_the_endpoints_then_terminates_then_sweeps() -> None:
    play = Play(make_spec()).up().send(StopRequested())
    assert (play.state.phase, play.deeds) == ("draining", [Drain(start=1)])
    assert play.send(Drained(start=1)).deeds == [TERM]
    assert play.state.phase == "stopping"
    assert play.crash(0).deeds == [Sweep()]
    assert not play.state.settled
    play.send(Swept())
    assert (play.state.phase, play.state.settled, play.reports) == ("stopped", True, ["instance.stopped"])


def test_a_process_that_ignores_sigterm_is_killed_when_its_grace_is_over() -> None:
    play = Play(make_spec(stop_grace=2.0)).up().send(StopRequested()).send(Drained(start=1))
    assert play.wait(1.9).deeds == []
    assert play.wait(0.1).deeds == [KILL]
    assert play.reports == ["instance.killed"]
    assert play.crash(-9).deeds == [Sweep()]


def test_callers_that_do_not_let_go_do_not_hold_up_a_stop_for_ever() -> None:
    play = Play(make_spec()).up().send(StopRequested())
    assert play.wait(DRAIN_LIMIT).deeds == [TERM]


def test_a_late_answer_of_a_drain_does_not_touch_a_later_one() -> None:
    play = Play(make_spec()).up().send(StopRequested(then="restart")).crash().send(Swept())
    play.send(Started(pid=8, started_at=1e9)).answer(ok=True).send(StopRequested())
    assert play.send(Drained(start=1)).state.phase == "draining"
    assert play.send(Drained(start=2)).state.phase == "stopping"


def test_what_has_no_callers_is_not_drained() -> None:
    assert Play(make_sidecar()).up().send(StopRequested()).deeds == [TERM]
    assert Play(make_job()).start().send(StopRequested()).deeds == [TERM]
    assert Play(make_spec()).start().send(StopRequested()).deeds == [TERM]


def test_an_immediate_stop_does_not_drain() -> None:
    assert Play(make_spec()).up().send(StopRequested(immediate=True)).deeds == [TERM]
    assert Play(make_spec()).up().send(StopRequested()).send(StopRequested(immediate=True)).deeds == [TERM]


def test_a_forced_stop_skips_draining_and_grace() -> None:
    play = Play(make_spec()).up().send(StopRequested()).send(Forced())
    assert play.deeds == [KILL]
    assert play.send(Forced()).deeds == []
    play = Play(make_spec()).up().send(StopRequested()).send(Drained(start=1)).send(Forced())
    assert play.deeds == [KILL]
    assert Play(make_spec()).up().send(Forced()).deeds == []


def test_a_stop_while_its_process_is_being_made_ends_it_as_soon_as_it_is_there() -> None:
    play = Play(make_spec()).send(DependenciesMet()).send(StopRequested())
    assert (play.state.phase, play.deeds, play.state.settled) == ("stopping", [], False)
    assert play.send(Started(pid=7, started_at=1e9)).deeds == [TERM]
    play = Play(make_spec()).send(DependenciesMet()).send(StopRequested()).send(Forced())
    assert play.send(Started(pid=7, started_at=1e9)).deeds == [KILL]
    play = Play(make_spec()).send(DependenciesMet()).send(StopRequested()).send(StartFailed(message="no such folder"))
    assert play.state.phase == "stopped"


def test_a_stop_while_it_waits_takes_effect_at_once() -> None:
    assert Play(make_spec()).send(StopRequested()).state.phase == "stopped"
    play = Play(make_spec()).start().crash().send(Swept()).send(StopRequested())
    assert (play.state.phase, next_wakeup(play.state)) == ("stopped", None)


def test_a_stop_while_its_remains_are_swept_ends_when_they_are() -> None:
    play = Play(make_spec()).start().crash().send(StopRequested())
    assert (play.state.phase, play.deeds) == ("stopping", [])
    assert play.send(Swept()).state.phase == "stopped"


def test_a_stop_of_what_has_ended_by_itself_keeps_how_it_ended() -> None:
    play = Play(make_job()).start().crash(1).send(Swept()).send(StopRequested())
    assert (play.state.phase, play.state.exit_code) == ("failed", 1)


def test_when_no_news_of_a_killed_process_comes_it_is_swept_and_taken_for_gone() -> None:
    play = Play(make_spec()).up().send(StopRequested()).send(Forced())
    assert play.wait(KILL_LIMIT).deeds == [Sweep()]
    assert play.send(Swept()).state.phase == "stopped"
    play = Play(make_spec()).up().send(StopRequested()).send(Forced()).wait(KILL_LIMIT)
    assert play.crash(-9).deeds == []
    assert play.send(Swept()).state.settled


# ------------------------------------------------------------------------------------------------- asked to restart


def test_a_restart_drains_stops_and_starts_again_with_its_counters_kept() -> None:
    play = Play(make_spec()).up().crash().send(Swept()).send(Started(pid=8, started_at=1e9)).answer(ok=True)
    play.send(StopRequested(then="restart")).send(Drained(start=2)).crash(0)
    assert play.state.phase == "stopping"
    assert play.send(Swept()).deeds == [Spawn()]
    assert (play.state.phase, play.state.restarts, play.state.starts) == ("starting", 1, 3)


def test_a_restart_of_what_does_not_run_starts_it() -> None:
    for play in (
        Play(make_job()).start().crash(1).send(Swept()),
        Play(make_job()).start().crash(0).send(Swept()),
        Play(make_spec()).send(StopRequested()),
        Play(make_spec()).start().crash().send(Swept()),
    ):
        assert play.send(StopRequested(then="restart")).deeds == [Spawn()]
        assert play.state.failed_starts == 0
    assert Play(make_spec()).send(StopRequested(then="restart")).state == InstanceState()


def test_a_restart_waits_for_the_sweep_of_what_ran_before() -> None:
    play = Play(make_job()).start().crash(1).send(StopRequested(then="restart"))
    assert play.deeds == []
    assert play.send(Swept()).deeds == [Spawn()]


def test_the_last_request_decides_what_follows_a_stop() -> None:
    play = Play(make_spec()).up().send(StopRequested(then="restart")).send(StopRequested()).send(Drained(start=1))
    assert play.crash(0).send(Swept()).state.phase == "stopped"
    play = Play(make_spec()).up().send(StopRequested(immediate=True)).send(StopRequested(then="restart"))
    assert play.crash(0).send(Swept()).state.phase == "starting"


# ------------------------------------------------------------------------------------------------- adoption, new specs


def adopted(*, ready: bool, uptime: float = 50.0) -> Adopted:
    return Adopted(pid=9, started_at=1e9, uptime=uptime, restarts=4, exit_code=1, fingerprint="one", ready=ready)


def test_what_was_ready_is_adopted_as_ready_and_checked_at_once() -> None:
    play = Play(make_spec(liveness=LIVENESS, readiness=replace(READINESS, initial_delay=5.0)))
    play.send(adopted(ready=True))
    assert (play.state.phase, play.state.ready, play.state.pid, play.state.restarts) == ("ready", True, 9, 4)
    assert play.deeds == [RunProbe(kind="readiness", start=1), RunProbe(kind="liveness", start=1)]
    assert play.reports == ["instance.adopted"]


def test_what_was_not_ready_yet_has_to_prove_itself() -> None:
    play = Play(make_spec()).send(adopted(ready=False))
    assert (play.state.phase, play.deeds) == ("starting", [RunProbe(kind="readiness", start=1)])


def test_the_life_of_an_adopted_process_counts_from_its_start() -> None:
    play = Play(make_spec())
    play.state = replace(play.state, streak=3)
    play.send(adopted(ready=True)).crash()
    assert play.state.retry_at == play.now


def test_only_a_pending_instance_is_adopted() -> None:
    play = Play(make_spec()).up()
    assert play.send(adopted(ready=True)).state.pid == 7


def test_probes_of_a_new_spec_take_effect_without_a_restart() -> None:
    play = Play(make_spec()).up()
    play.spec = make_spec(liveness=LIVENESS)
    assert play.send(Refreshed()).deeds == [RunProbe(kind="liveness", start=1)]
    play.spec = make_spec(readiness=None)
    play.send(Refreshed())
    assert next_wakeup(play.state) is None
    assert play.answer(ok=False, kind="liveness").answer(ok=False).state.ready


def test_a_readiness_check_that_goes_makes_ready_what_waited_for_it() -> None:
    play = Play(make_spec()).start()
    play.spec = make_spec(readiness=None)
    assert play.send(Refreshed()).state.phase == "ready"
    play = Play(make_spec()).up()
    for _ in range(3):
        play.wait(1.0).answer(ok=False)
    play.spec = make_spec(readiness=None)
    play.send(Refreshed())
    assert (play.state.ready, play.state.reason, play.reports) == (True, "", ["instance.healthy"])


def test_a_shorter_rhythm_takes_effect_at_once_and_a_check_under_way_goes_on() -> None:
    play = Play(make_spec(readiness=replace(READINESS, interval=60.0))).up()
    play.spec = make_spec(readiness=READINESS)
    play.send(Refreshed())
    assert next_wakeup(play.state) == play.now + READINESS.interval
    play.wait(1.0)
    assert play.state.readiness.running
    assert play.send(Refreshed()).state.readiness.running


def test_a_new_spec_changes_nothing_of_a_job_that_runs() -> None:
    play = Play(make_job()).start()
    assert play.send(Refreshed()).state.phase == "starting"
