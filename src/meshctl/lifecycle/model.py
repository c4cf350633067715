"""The values of one instance's life: what it is, how it stands, what happens to it, what is to be done.  Pure.

``machine.step`` takes an :class:`InstanceState` and an event and gives the next state and commands; the moves that a
phase may make are the table :data:`MOVES`, which a test holds the machine to.  Times are seconds of a monotonic
clock unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshctl.ports import InstanceRecord, ProcessSpec
from meshctl.spec.schema import Condition, Probe, RestartPolicy

Kind = Literal["service", "job", "sidecar"]
Phase = Literal["pending", "starting", "ready", "draining", "stopping", "stopped", "backoff", "failed", "completed"]
ProbeKind = Literal["readiness", "liveness"]
StopIntent = Literal["stop", "restart"]
Level = Literal["info", "warning", "error"]

FIRST_PROBE_DELAY = 0.05
"""Seconds between the first two readiness checks of a start; start-up speed hangs on it."""

PROBE_DELAY_GROWTH = 1.15
"""While it starts, each wait for the next check is this much longer, up to the probe's interval."""

DRAIN_LIMIT = 10.0
"""Seconds after which an instance is stopped although callers may still have it in their endpoints."""

KILL_LIMIT = 3.0
"""Seconds after SIGKILL without news of the exit after which the process is swept and taken for gone."""

MOVES: Mapping[Phase, frozenset[Phase]] = {
    "pending": frozenset({"starting", "ready", "stopped"}),
    "starting": frozenset({"ready", "stopping", "backoff", "failed", "stopped", "completed"}),
    "ready": frozenset({"draining", "stopping", "backoff", "failed", "stopped"}),
    "draining": frozenset({"stopping", "backoff", "failed"}),
    "stopping": frozenset({"stopped", "starting", "backoff", "failed"}),
    "stopped": frozenset({"starting", "stopping"}),
    "backoff": frozenset({"starting", "stopping", "stopped"}),
    "failed": frozenset({"starting", "stopping"}),
    "completed": frozenset({"starting", "stopping"}),
}
"""Every move between two different phases that one step may make."""

SETTLED: frozenset[Phase] = frozenset({"stopped", "failed", "completed"})
"""Phases in which nothing runs and nothing will happen by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """What one instance is to be.

    ``id`` is its process's name (``checkout-v1-1``, ``sidecar.checkout``, ``gateway``).  ``fingerprint`` is a hash
    of what demands a restart when it changes (argv, environment, folder).  ``host`` and ``port`` are where probes
    connect; a ``host`` that begins with ``/`` is a unix socket.  ``depends_on`` is by service.  ``stop_grace`` is
    in seconds.  ``envoy_checked`` is True when its health also depends on Envoy's active check.
    """

    id: str
    service: str
    version: str
    kind: Kind
    process: ProcessSpec
    fingerprint: str
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    readiness: Probe | None = None
    liveness: Probe | None = None
    host: str
    port: int | None
    depends_on: Mapping[str, Condition] = field(default_factory=dict)
    stop_grace: float = 5.0
    envoy_checked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTrack:
    """How one probe stands: when it is due (None: not at all, or it runs now), and its answers in a row."""

    due: float | None = None
    running: bool = False
    passed: int = 0
    failed: int = 0
    delay: float = FIRST_PROBE_DELAY


IDLE = ProbeTrack()
"""A probe that does not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """How one instance stands.

    What is shown:
        phase, pid, started_at (seconds since the epoch), restarts (that nobody asked for), exit_code (of its last
        end), reason (one sentence for people).
    What the machine remembers:
        ready: its readiness check passes, or it has none.
        ever_ready: it was ready at some time since it was last started.
        failed_starts: exits in a row, each before it was ready.
        spawn_failed: the last start did not even make a process.
        streak: exits in a row that count for the back-off.
        starts: how often it was started; answers that belong to an earlier start are known by it.
        fingerprint: that of the process which runs or ran last.
        up_since: when its process was started.
        early_exit: an exit (pid, code) heard of before the start was.
        intent: what follows the stop under way; ``fault`` is the restart of an instance that is no longer alive.
        killed: SIGKILL was sent, or is to be as soon as there is a pid.
        sweeping: what is left of its process group is being killed.
        deadline: when draining, the grace of SIGTERM, or the wait after SIGKILL ends.
        retry_at: when it is started again.
    """

    phase: Phase = "pending"
    pid: int | None = None
    started_at: float | None = None
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""
    ready: bool = False
    ever_ready: bool = False
    failed_starts: int = 0
    spawn_failed: bool = False
    streak: int = 0
    starts: int = 0
    fingerprint: str = ""
    up_since: float | None = None
    early_exit: tuple[int, int | None] | None = None
    intent: Literal["stop", "restart", "fault"] = "stop"
    killed: bool = False
    sweeping: bool = False
    deadline: float | None = None
    retry_at: float | None = None
    readiness: ProbeTrack = IDLE
    liveness: ProbeTrack = IDLE

    @property
    def settled(self) -> bool:
        """True when nothing of it runs and nothing will happen by itself."""
        return self.phase in SETTLED and not self.sweeping


# ------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True, kw_only=True)
class DependenciesMet:
    """Everything it waits for is so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What it waits for is not so yet; ``reason`` is a sentence for people."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """Its process was found running by a new control plane.

    ``started_at`` is seconds since the epoch, ``uptime`` seconds.  ``ready`` is True when it was ready as the
    earlier control plane left it: it stays in the endpoints, so that no request is lost; probes soon tell.
    """

    pid: int
    started_at: float
    uptime: float
    restarts: int
    exit_code: int | None
    fingerprint: str
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Its process runs; ``started_at`` is seconds since the epoch."""

    pid: int
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """No process could be made (command not found, say)."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """A probe's answer; ``start`` is the state's ``starts`` when it was asked."""

    kind: ProbeKind
    start: int
    ok: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """Its process ended: ``code`` >= 0 for exit(code), negative for a signal, None when it is not known."""

    pid: int
    code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """Stop it, or stop it and start it again; ``immediate`` does not wait until callers have let go of it."""

    then: StopIntent = "stop"
    immediate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """No caller has it in its endpoints any more; ``start`` as in ProbeResult."""

    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """The stop under way must end now: SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Nothing of its process group is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """Its spec was replaced by one that needs no restart (probes, policy)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: something may be due."""


Event = (
    DependenciesMet
    | Waiting
    | Adopted
    | Started
    | StartFailed
    | ProbeResult
    | Exited
    | StopRequested
    | Drained
    | Forced
    | Swept
    | Refreshed
    | Tick
)


# ------------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """Start its process; answered by Started or StartFailed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Take it out of its callers' endpoints; answered by Drained."""

    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to its process group."""

    signum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Kill what is left of its process group and its descendants; answered by Swept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProbe:
    """Run a probe once; answered by ProbeResult with the same ``start``."""

    kind: ProbeKind
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Put an event into the log: ``kind`` is a dotted name such as ``instance.ready``."""

    kind: str
    message: str
    level: Level = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remember:
    """Store what another control plane would need to know; comes before the Spawn that it is about."""

    record: InstanceRecord


Command = Spawn | Drain | Signal | Sweep | RunProbe | Report | Remember
