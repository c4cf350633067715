"""The life of one instance as a state machine: (state, event) -> (state, commands).  Pure.

Everything that changes a phase is in this file::

    pending -> starting -> ready -> draining -> stopping -> stopped
                  |          |                      |
                  +----------+-> backoff -> starting +-> starting (restart)
                  +----------+-> failed | stopped | completed (jobs)

Invariants kept: a process is only ever spawned when none is left of the one before (its group was swept); what is
remembered is remembered before it is spawned; at most one probe of a kind runs at a time; answers that belong to an
earlier start change nothing.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from meshctl.lifecycle import probing
from meshctl.lifecycle.backoff import delay
from meshctl.lifecycle.describe import describe_delay, describe_exit, report
from meshctl.lifecycle.model import (
    DRAIN_LIMIT,
    IDLE,
    KILL_LIMIT,
    SETTLED,
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
    ProbeResult,
    Refreshed,
    Remember,
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

Step = tuple[InstanceState, tuple[Command, ...]]


def step(state: InstanceState, event: Event, *, spec: InstanceSpec, now: float) -> Step:
    """The next state, and what is to be done, in order.

    ``now`` is a monotonic clock in seconds.  Events that do not fit the phase (late answers, say) change nothing.
    """
    after, commands = _dispatch(state, event, spec, now)
    after, probes = _ask_due_probes(after, now)
    commands += probes
    if _record(after, spec) != _record(state, spec):
        # First, so that it is stored before a process exists that nobody would know of after a crash.
        commands = (Remember(record=_record(after, spec)), *commands)
    return after, commands


def next_wakeup(state: InstanceState) -> float | None:
    """When the next Tick is due, on the clock of ``now``; None when only an event can change something."""
    times = [state.readiness.due, state.liveness.due, state.deadline]
    if not state.sweeping:
        times.append(state.retry_at)
    return min((time for time in times if time is not None), default=None)


def failed_to_start(state: InstanceState, spec: InstanceSpec) -> bool:
    """True when waiting for it is in vain, as far as one can tell.

    So it is when no process could be made, when it exited twice in a row before it was ready, or when it ended
    before it was ready and is not restarted.  What is about to be started anew is given another chance.
    """
    if state.phase == "stopping" and state.intent == "restart":
        return False
    if state.spawn_failed or state.failed_starts >= 2 or state.phase == "failed":
        return True
    return state.failed_starts == 1 and (state.phase == "stopped" or spec.restart.mode == "no")


def _dispatch(state: InstanceState, event: Event, spec: InstanceSpec, now: float) -> Step:  # noqa: C901, PLR0911, PLR0912 - one line per event
    match event:
        case DependenciesMet():
            return _spawn(state, spec) if state.phase == "pending" else (state, ())
        case Waiting(reason=reason):
            return (replace(state, reason=reason) if state.phase == "pending" else state), ()
        case Adopted():
            return _adopt(state, event, spec, now) if state.phase == "pending" else (state, ())
        case Started():
            return _note_started(state, event, spec, now)
        case StartFailed(message=message):
            return _note_start_failed(state, message, spec, now)
        case ProbeResult():
            return _note_probe(state, event, spec, now)
        case Exited(pid=pid, code=code):
            if state.pid is None and state.phase in ("starting", "stopping") and not state.sweeping:
                return replace(state, early_exit=(pid, code)), ()
            return _end(state, code, spec, now) if pid == state.pid else (state, ())
        case StopRequested():
            return _request_stop(state, event, spec, now)
        case Drained(start=start):
            return _terminate(state, spec, now) if (state.phase, state.starts) == ("draining", start) else (state, ())
        case Forced():
            return _force(state, now)
        case Swept():
            return _note_swept(state, spec, now)
        case Refreshed():
            return _refresh(state, spec, now)
        case Tick():  # pragma: no branch
            return _tick(state, spec, now)


# ------------------------------------------------------------------------------------------------- starting


def _spawn(state: InstanceState, spec: InstanceSpec, *, counts: bool = False) -> Step:
    after = replace(
        state,
        phase="starting",
        reason="starting",
        restarts=state.restarts + (1 if counts else 0),
        starts=state.starts + 1,
        fingerprint=spec.fingerprint,
        ready=False,
        ever_ready=False,
        intent="stop",
        killed=False,
        deadline=None,
        retry_at=None,
    )
    return after, (Spawn(),)


def _adopt(state: InstanceState, event: Adopted, spec: InstanceSpec, now: float) -> Step:
    after = replace(
        state,
        phase="starting",
        pid=event.pid,
        started_at=event.started_at,
        restarts=event.restarts,
        exit_code=event.exit_code,
        fingerprint=event.fingerprint,
        starts=state.starts + 1,
        up_since=now - event.uptime,
    )
    after, commands = _begin_probes(after, spec, now)
    # A job is never ready: it runs until it has completed.
    if event.ready and after.phase == "starting" and spec.kind != "job":
        after, _ = _become_ready(after, spec, now)
    return after, (report(spec, "adopted", f"found running with pid {event.pid}"), *commands)


def _note_started(state: InstanceState, event: Started, spec: InstanceSpec, now: float) -> Step:
    if state.pid is not None or state.sweeping or state.phase not in ("starting", "stopping"):
        return state, ()
    early, stopping = state.early_exit, state.phase == "stopping"
    after = replace(
        state, pid=event.pid, started_at=event.started_at, up_since=now, early_exit=None, spawn_failed=False
    )
    if early is not None and early[0] == event.pid:
        return _end(after, early[1], spec, now)
    if stopping:
        return _terminate(after, spec, now)
    started = report(spec, "started", f"runs with pid {event.pid}")
    after, commands = _begin_probes(after, spec, now)
    return after, (started, *commands)


def _note_start_failed(state: InstanceState, message: str, spec: InstanceSpec, now: float) -> Step:
    if state.pid is not None or state.sweeping or state.phase not in ("starting", "stopping"):
        return state, ()
    after = replace(state, spawn_failed=True, early_exit=None, up_since=None, failed_starts=state.failed_starts + 1)
    if after.phase == "stopping":
        return _finish_stop(after, spec)
    return _retry(after, message, spec, now)


def _begin_probes(state: InstanceState, spec: InstanceSpec, now: float) -> Step:
    if spec.kind == "job":
        return replace(state, reason="running"), ()
    if spec.readiness is None:
        return _become_ready(state, spec, now)
    first = probing.begin(spec.readiness, now, since=now if state.up_since is None else state.up_since)
    return replace(state, reason="waiting for its readiness check", readiness=first), ()


def _become_ready(state: InstanceState, spec: InstanceSpec, now: float) -> Step:
    after = replace(state, phase="ready", ready=True, ever_ready=True, failed_starts=0, reason="")
    if state.phase == "ready":
        return after, (report(spec, "healthy", "ready again"),)
    if spec.liveness is not None:
        # Only now: an instance that takes its time to start must not be killed for it.
        after = replace(after, liveness=probing.begin(spec.liveness, now, since=now))
    taken = now - state.up_since if state.up_since is not None else 0.0
    return after, (report(spec, "ready", f"ready after {taken:.1f} s"),)


# ------------------------------------------------------------------------------------------------- probes


def _ask_due_probes(state: InstanceState, now: float) -> Step:
    commands: tuple[Command, ...] = ()
    if state.readiness.due is not None and state.readiness.due <= now:
        state = replace(state, readiness=probing.ask(state.readiness))
        commands += (RunProbe(kind="readiness", start=state.starts),)
    if state.liveness.due is not None and state.liveness.due <= now:
        state = replace(state, liveness=probing.ask(state.liveness))
        commands += (RunProbe(kind="liveness", start=state.starts),)
    return state, commands


def _note_probe(state: InstanceState, event: ProbeResult, spec: InstanceSpec, now: float) -> Step:
    if event.start != state.starts or state.pid is None or state.phase not in ("starting", "ready"):
        return state, ()
    if event.kind == "readiness":
        return _note_readiness(state, event, spec, now)
    return _note_liveness(state, event, spec, now)


def _note_readiness(state: InstanceState, event: ProbeResult, spec: InstanceSpec, now: float) -> Step:
    probe = spec.readiness
    if probe is None or not state.readiness.running:
        return replace(state, readiness=IDLE) if probe is None else state, ()
    passes = event.ok and not state.ready and state.readiness.passed + 1 >= probe.success_threshold
    fast = state.phase == "starting" and not passes
    track = probing.note(state.readiness, event.ok, probe, now, fast=fast)
    after = replace(state, readiness=track)
    if event.ok:
        return _become_ready(after, spec, now) if passes else (after, ())
    if state.phase == "starting":
        return replace(after, reason=f"waiting for its readiness check: {event.message}"), ()
    if track.failed < probe.failure_threshold:
        return after, ()
    reason = f"its readiness check fails: {event.message}"
    news = (report(spec, "unhealthy", reason, "warning"),) if state.ready else ()
    return replace(after, ready=False, reason=reason), news


def _note_liveness(state: InstanceState, event: ProbeResult, spec: InstanceSpec, now: float) -> Step:
    probe = spec.liveness
    if probe is None or not state.liveness.running:
        return replace(state, liveness=IDLE) if probe is None else state, ()
    track = probing.note(state.liveness, event.ok, probe, now, fast=False)
    after = replace(state, liveness=track)
    if event.ok or track.failed < probe.failure_threshold:
        return after, ()
    reason = f"its liveness check failed: {event.message}"
    after, commands = _leave(replace(after, intent="fault"), spec, now, reason=reason)
    return after, (report(spec, "dead", reason, "error"), *commands)


def _refresh(state: InstanceState, spec: InstanceSpec, now: float) -> Step:
    """Let a probe that came, went or changed take effect on a running instance."""
    if state.pid is None or state.phase not in ("starting", "ready") or spec.kind == "job":
        return state, ()
    after = replace(
        state,
        readiness=probing.refresh(state.readiness, spec.readiness, now),
        liveness=probing.refresh(state.liveness, spec.liveness if state.ever_ready else None, now),
    )
    return (after, ()) if spec.readiness is not None or after.ready else _become_ready(after, spec, now)


# ------------------------------------------------------------------------------------------------- ending


def _end(state: InstanceState, code: int | None, spec: InstanceSpec, now: float) -> Step:
    """Its process is gone; what it left behind is swept, and then comes what its policy or the request says."""
    up = now - state.up_since if state.up_since is not None else 0.0
    after = replace(
        state,
        pid=None,
        exit_code=code,
        ready=False,
        readiness=IDLE,
        liveness=IDLE,
        deadline=None,
        early_exit=None,
        sweeping=True,
        streak=0 if up >= spec.restart.reset_after else state.streak,
    )
    # A sweep under way is enough: a second one could end after the next start, and hit it.
    sweep = () if state.sweeping else (Sweep(),)
    if state.phase not in ("draining", "stopping"):
        after, commands = _follow_policy(after, code, spec, now)
    elif state.intent == "fault":
        after, commands = _retry(after, state.reason, spec, now)
    else:
        after, commands = replace(after, phase="stopping"), ()
    return after, (*sweep, *commands)


def _follow_policy(state: InstanceState, code: int | None, spec: InstanceSpec, now: float) -> Step:
    """What comes after an exit that nobody asked for."""
    what = describe_exit(code)
    if spec.kind == "job" and code == 0:
        after = replace(state, phase="completed", reason="", ever_ready=True, failed_starts=0, streak=0)
        return after, (report(spec, "completed", "completed"),)
    after = replace(state, failed_starts=0 if state.ever_ready else state.failed_starts + 1)
    if code == 0 and spec.restart.mode == "on_failure":
        return replace(after, phase="stopped", reason=what), (report(spec, "exited", what),)
    return _retry(after, what, spec, now)


def _retry(state: InstanceState, what: str, spec: InstanceSpec, now: float) -> Step:
    """Back off, or give up, as the policy says. ``what`` is what happened."""
    policy = spec.restart
    if policy.mode == "no":
        after = replace(state, phase="failed", reason=what, deadline=None)
        return after, (report(spec, "failed", what, "error"),)
    if policy.max_restarts is not None and state.streak >= policy.max_restarts:
        tries = f"{state.streak} restart{'s' if state.streak != 1 else ''}"
        reason = f"{what}; given up after {tries}"
        return replace(state, phase="failed", reason=reason, deadline=None), (report(spec, "failed", reason, "error"),)
    # The first exit after a healthy life is answered at once; one that never was ready had its chance already.
    seconds = delay(policy, state.streak if state.ever_ready else state.streak + 1)
    reason = f"{what}; {describe_delay(seconds)}"
    after = replace(
        state, phase="backoff", reason=reason, deadline=None, retry_at=now + seconds, streak=state.streak + 1
    )
    return after, (report(spec, "exited", reason, "warning"),)


def _note_swept(state: InstanceState, spec: InstanceSpec, now: float) -> Step:
    if not state.sweeping:
        return state, ()
    commands: tuple[Command, ...] = ()
    if state.pid is not None:
        # No news of its exit came, but nothing of it is left.
        state, commands = _end(state, None, spec, now)
    after = replace(state, sweeping=False)
    more: tuple[Command, ...] = ()
    if state.phase == "stopping":
        after, more = _finish_stop(after, spec)
    elif state.phase == "backoff" and state.retry_at is not None and state.retry_at <= now:
        after, more = _spawn(after, spec, counts=True)
    return after, (*commands, *more)


def _finish_stop(state: InstanceState, spec: InstanceSpec) -> Step:
    """Nothing of it runs any more."""
    if state.intent == "restart":
        return _spawn(replace(state, failed_starts=0, streak=0, spawn_failed=False), spec)
    after = replace(state, phase="stopped", reason="stopped", killed=False, deadline=None, retry_at=None)
    return after, (report(spec, "stopped", "stopped"),)


def _request_stop(state: InstanceState, event: StopRequested, spec: InstanceSpec, now: float) -> Step:
    after = replace(state, intent=event.then)
    if state.phase in ("starting", "ready", "draining"):
        if not event.immediate and state.phase != "starting":
            return (after, ()) if state.phase == "draining" else _leave(after, spec, now, reason="draining")
        return _terminate(after, spec, now)
    if state.phase == "stopping":
        return after, ()
    already_so = state.phase == "pending" if event.then == "restart" else state.phase in SETTLED
    if already_so:
        return state, ()
    if state.sweeping:
        return replace(after, phase="stopping", reason="stopping", retry_at=None), ()
    return _finish_stop(after, spec)


def _leave(state: InstanceState, spec: InstanceSpec, now: float, *, reason: str) -> Step:
    """Leave the callers' endpoints first, so that no request finds a closed door."""
    if spec.kind != "service" or state.phase != "ready":
        return _terminate(replace(state, reason=reason), spec, now)
    after = replace(state, phase="draining", reason=reason, readiness=IDLE, liveness=IDLE, deadline=now + DRAIN_LIMIT)
    return after, (report(spec, "draining", "leaving the endpoints of its callers"), Drain(start=state.starts))


def _terminate(state: InstanceState, spec: InstanceSpec, now: float) -> Step:
    after = replace(
        state,
        phase="stopping",
        reason=state.reason if state.intent == "fault" else "stopping",
        ready=False,
        readiness=IDLE,
        liveness=IDLE,
        deadline=None,
    )
    if state.pid is None:
        # Its process is being made: it is signalled as soon as there is one.
        return after, ()
    if state.killed:
        return replace(after, deadline=now + KILL_LIMIT), (Signal(signum=signal.SIGKILL),)
    return replace(after, deadline=now + spec.stop_grace), (Signal(signum=signal.SIGTERM),)


def _force(state: InstanceState, now: float) -> Step:
    if state.phase not in ("draining", "stopping") or state.killed or state.sweeping:
        return state, ()
    after = replace(state, phase="stopping", killed=True, ready=False)
    if state.pid is None:
        return after, ()
    return replace(after, deadline=now + KILL_LIMIT), (Signal(signum=signal.SIGKILL),)


def _tick(state: InstanceState, spec: InstanceSpec, now: float) -> Step:
    if state.phase == "backoff" and not state.sweeping and state.retry_at is not None and state.retry_at <= now:
        return _spawn(state, spec, counts=True)
    if state.deadline is None or now < state.deadline:
        return state, ()
    if state.phase == "draining":
        late = report(spec, "draining", "callers still have it in their endpoints; stopping it anyway", "warning")
        after, commands = _terminate(state, spec, now)
        return after, (late, *commands)
    if not state.killed:
        after, commands = _force(state, now)
        killed = report(spec, "killed", f"did not stop within {spec.stop_grace:g} s; killed", "warning")
        return after, (killed, *commands)
    # The kernel has killed it; whoever should have told of its exit did not. Sweeping makes sure.
    return replace(state, deadline=None, sweeping=True), (Sweep(),)


def _record(state: InstanceState, spec: InstanceSpec) -> InstanceRecord:
    return InstanceRecord(
        id=spec.id,
        restarts=state.restarts,
        phase=state.phase,
        fingerprint=state.fingerprint,
        exit_code=state.exit_code,
    )
