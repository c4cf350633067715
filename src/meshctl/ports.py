"""The Protocols that ``control`` works against; ``adapters`` implement them, ``tests/fakes`` fake them.

Enters and leaves: plain frozen values.  Pure (declarations only).  Times are seconds since the epoch.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """How to start one process.

    ``name`` is unique within the mesh (``checkout-v1-1``, ``sidecar.checkout``); ``argv[0]`` is looked up on the
    ``PATH`` in ``env``; ``env`` is complete, nothing is inherited; ``cwd`` is absolute; both output streams go to
    ``log_path`` as CRI lines (see wire.loglines), rotated to ``log_path.1`` ... at ``log_max_bytes``.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    log_path: str
    log_max_bytes: int = 10_000_000
    log_keep: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHandle:
    """A running process: known by pid *and* start time (seconds since the epoch, as psutil gives it)."""

    name: str
    pid: int
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """The end of a process: ``code`` is >= 0 for exit(code), negative for a signal, None when it is not known."""

    name: str
    pid: int
    code: int | None


class ProcessHost(Protocol):
    """Owns the processes of a mesh; they and their captured output survive the death of the control plane."""

    async def start(self, spec: ProcessSpec) -> ProcessHandle:
        """Start a process in a process group of its own. Raises StartError with the reason."""
        ...

    async def signal(self, name: str, signum: int) -> bool:
        """Send a signal to the whole process group; False when nothing of it is left."""
        ...

    async def hold(self, name: str, share: float, until: float) -> bool:
        """Take a share of its time (1: all) from a group until a moment; then it goes on, whatever has died."""
        ...

    async def release(self, name: str) -> bool:
        """Let a process group that is held go on; False when it is not held."""
        ...

    async def sweep(self, name: str) -> None:
        """SIGKILL whatever is left of the process, its group and its descendants; return when none is left."""
        ...

    async def running(self) -> tuple[ProcessHandle, ...]:
        """The processes alive now, started by this control plane or by an earlier one, by name."""
        ...

    def exits(self) -> AsyncIterator[ProcessExit]:
        """Exits as they happen, each once; those since the last control plane died come first."""
        ...

    def missed(self) -> tuple[ProcessExit, ...]:
        """Exits that wait to be taken from ``exits``, in their order; at first, those that no control plane saw."""
        ...

    async def close(self, *, stop: bool) -> None:
        """Let go of the host; with ``stop`` end it too, which nothing may be running for."""
        ...


class ProxyAdmin(Protocol):
    """Reads one sidecar through its admin socket. Every call raises OSError when the sidecar does not answer."""

    async def get(self, socket: str, path: str) -> str:
        """The body of ``GET path`` on the admin interface at a unix socket."""
        ...

    async def post(self, socket: str, path: str) -> str:
        """The body of ``POST path``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafCertificate:
    """A service's certificate as it is handed to its sidecar; times are seconds since the epoch."""

    service: str
    spiffe_id: str
    serial: str
    issuer_serial: str
    not_before: float
    not_after: float
    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCertificate:
    """A root of the mesh's CA, without its key; ``active`` is True for the one that signs."""

    serial: str
    not_before: float
    not_after: float
    certificate_pem: bytes
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFinding:
    """One result of checking certificates and their files: ``name`` is what was checked, ``message`` how it is."""

    name: str
    ok: bool
    message: str


class CertificateAuthority(Protocol):
    """The CA of one mesh; keys never leave its directory (0700, files 0600)."""

    @property
    def trust_domain(self) -> str:
        """The trust domain of every identity that it certifies."""
        ...

    def ensure_root(self, now: float) -> RootCertificate:
        """The root that signs; made when there is none yet, or when the one there is has expired."""
        ...

    def roots(self) -> tuple[RootCertificate, ...]:
        """Trusted roots, oldest first; exactly one is active, unless there is none yet."""
        ...

    def leaf(self, service: str) -> LeafCertificate | None:
        """The current leaf of a service, or None when none was issued."""
        ...

    def issue(self, service: str, *, now: float, lifetime: float) -> LeafCertificate:
        """Issue a leaf signed by the active root, store it, and return it."""
        ...

    def add_root(self, *, now: float, lifetime: float) -> RootCertificate:
        """Make a new root that is trusted but does not sign yet."""
        ...

    def activate_root(self, serial: str) -> None:
        """Make a trusted root the one that signs."""
        ...

    def drop_root(self, serial: str) -> None:
        """Stop trusting a root; refused (ValueError) for the active one."""
        ...

    def verify(self, services: Iterable[str], now: float) -> tuple[CertificateFinding, ...]:
        """Check the files, the roots and the services' leafs as they are stored, not as they were read earlier."""
        ...


class Clock(Protocol):
    """Wall clock for what is shown and stored; monotonic for intervals."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One topology file as it was read: ``path`` as the user gave it, ``directory`` absolute."""

    path: str
    directory: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySource:
    """Everything a Mesh is made from: files in order (later ones override) and the variables they may use."""

    files: tuple[SourceFile, ...]
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A service instance started by someone else. ``expires_at`` is None when it has no TTL."""

    id: str
    service: str
    version: str
    host: str
    port: int
    ttl: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """What is remembered of an instance across a restart of the control plane."""

    id: str
    restarts: int
    phase: str
    fingerprint: str
    exit_code: int | None


RevisionState = Literal["pending", "applied", "refused", "superseded"]
"""Not acknowledged by every sidecar yet; acknowledged; undone because a sidecar refused it; followed by another one
before every sidecar had acknowledged it."""

KEPT_REVISIONS = 1000
"""How many revisions a store keeps; older ones are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One committed change of policy; the newest one is in force.

    ``author`` is ``user@command``; ``changes`` are in words, one a line; ``owners`` are the services (or ``defaults``,
    ``mesh``) whose policies changed; ``note`` says why it was refused.
    """

    number: int
    time: float
    author: str
    reason: str
    state: RevisionState
    changes: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """One fault, stored before it is made and until all of it is undone.

    ``kind`` names what makes and undoes it, ``detail`` is what that needs to know, as JSON. ``services`` are those
    whose users notice, for the columns of tables; ``subject`` is what it was made on (a service, an instance, two
    services) and ``summary`` what it does, both in words. ``origin`` is ``command``, or ``topology`` for what the files
    ask for. ``ends_at`` is never left out: a fault has a deadline.
    """

    id: str
    kind: str
    subject: str
    services: tuple[str, ...]
    summary: str
    detail: str
    started_at: float
    ends_at: float
    author: str
    reason: str = ""
    origin: Literal["command", "topology"] = "command"


class StateStore(Protocol):
    """State that survives the control plane. Every method is one transaction; after a crash all or none of it holds."""

    def commit(
        self,
        *,
        topology: TopologySource | None = None,
        ports: Mapping[str, int] | None = None,
        scales: Mapping[str, int] | None = None,
        registrations: tuple[Registration, ...] | None = None,
        selection: tuple[str, ...] | None = None,
        revision: Revision | None = None,
        content: str = "",
        settled: tuple[Revision, ...] = (),
    ) -> None:
        """Replace what is given, all of it or nothing; what is None stays as it is.

        ``revision`` is added with its ``content``, the policies in force from then on as spec.node_codec writes them,
        and what is older than KEPT_REVISIONS is forgotten; ``settled`` are revisions whose state has become known.
        """
        ...

    def revisions(self) -> tuple[Revision, ...]:
        """The revisions that are kept, oldest first."""
        ...

    def revision_content(self, number: int) -> str | None:
        """The content of a revision; None for one that is not kept."""
        ...

    def topology(self) -> TopologySource | None:
        """The topology last applied."""
        ...

    def ports(self) -> Mapping[str, int]:
        """Ports assigned so far, by key (see plan.addresses)."""
        ...

    def scales(self) -> Mapping[str, int]:
        """Replica counts set by ``meshctl scale``, by ``service/version``."""
        ...

    def registrations(self) -> tuple[Registration, ...]:
        """Registered instances, by id."""
        ...

    def selection(self) -> tuple[str, ...]:
        """The services asked for by ``up SERVICE...``; empty means all."""
        ...

    def instances(self) -> tuple[InstanceRecord, ...]:
        """What is remembered of instances, by id."""
        ...

    def put_instance(self, record: InstanceRecord) -> None:
        """Remember an instance."""
        ...

    def drop_instance(self, instance_id: str) -> None:
        """Forget an instance."""
        ...

    def number_fault(self) -> int:
        """A number that no fault had before, from 1."""
        ...

    def faults(self) -> tuple[FaultRecord, ...]:
        """The faults that are on, or not wholly undone, by id."""
        ...

    def put_fault(self, record: FaultRecord) -> None:
        """Remember a fault."""
        ...

    def drop_fault(self, fault_id: str) -> None:
        """Forget a fault; one that is not remembered is no error."""
        ...


KEPT_ROLLOUTS = 50
"""How many rollouts a store keeps; older ones are forgotten."""

KEPT_ENTRIES = 20_000
"""How much of what came to one rollout is kept: two days and more, at the built-in interval."""


class RolloutStore(Protocol):
    """Rollouts that survive the control plane. Every method is one transaction; texts are those of canary.codec."""

    def put_rollout(self, number: int, body: str, entries: Mapping[int, str]) -> None:
        """Remember a rollout as it stands, with what came to it since, by number; what came before stays.

        What is older than KEPT_ROLLOUTS and KEPT_ENTRIES is forgotten. Raises MeshctlError when it cannot be stored.
        """
        ...

    def rollouts(self) -> Mapping[int, str]:
        """The rollouts that are kept, by number, oldest first."""
        ...

    def rollout_entries(self, number: int) -> Mapping[int, str]:
        """What came to a rollout, by number, oldest first; empty for one that is not kept."""
        ...


KEPT_EVENTS = 5000
"""How many events are kept; older ones are forgotten."""


class EventStore(Protocol):
    """Keeps the log of events, so that its numbers go on where an earlier control plane stopped."""

    def put_event(self, number: int, body: bytes) -> None:
        """Keep an event, and forget those that are KEPT_EVENTS older. Raises MeshctlError when it cannot be kept."""
        ...

    def events(self) -> tuple[bytes, ...]:
        """The events that are kept, oldest first."""
        ...


class CircuitFiles(Protocol):
    """Reads the memory in which sidecars keep the state of circuit breakers (see envoy.circuit_layout)."""

    def read(self, path: str, size: int) -> bytes:
        """The first bytes of a sidecar's file; none when there is no such file."""
        ...

    def clock(self) -> float:
        """Seconds of the clock that the sidecars write times of."""
        ...


class LogEntry(Protocol):
    """One captured line: ``source`` is the process's name, ``line`` has time, stream and text."""

    @property
    def source(self) -> str:
        """The process's name."""
        ...

    @property
    def line(self) -> CapturedLine:
        """The line."""
        ...


class CapturedLine(Protocol):
    """A line of output; ``time`` in seconds since the epoch."""

    @property
    def time(self) -> float:
        """When it was captured."""
        ...

    @property
    def stream(self) -> Literal["stdout", "stderr"]:
        """Where it was written to."""
        ...

    @property
    def text(self) -> str:
        """The line without its newline."""
        ...


class LogReader(Protocol):
    """Reads captured output of several processes, merged by time, and follows it on request."""

    def __call__(
        self,
        paths: Callable[[], Mapping[str, str]],
        *,
        tail: int | None,
        since: float | None,
        until: float | None,
        grep: re.Pattern[str] | None,
        follow: bool,
    ) -> AsyncIterator[LogEntry]:
        """Lines of the files that ``paths`` gives by process name; asked again while it follows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a process uses: ``cpu`` in cores since it was last measured (None at first), ``memory`` resident bytes."""

    cpu: float | None
    memory: int


class ProcessMeter(Protocol):
    """Measures what processes use."""

    def measure(self, pids: Mapping[str, int]) -> Mapping[str, Use]:
        """What those of these processes that live use, by the same names."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposition:
    """Metrics as text, and the type of that text."""

    text: str
    content_type: str


class MetricsServer(Protocol):
    """Lets a monitoring system read the metrics over HTTP."""

    async def open(self, port: int, expose: Callable[[str], Exposition]) -> None:
        """Listen on a port of loopback, and nowhere else from now on; ``expose`` takes what the reader accepts.

        Raises OSError when it cannot listen there.
        """
        ...

    async def close(self) -> None:
        """Listen no more."""
        ...
