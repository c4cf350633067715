"""The JSON shapes of the API, shared by ``api`` and ``client``.  Pure.

Every shape is a frozen ``msgspec.Struct``; times are seconds since the epoch, durations seconds unless the name ends
in ``_ms``.  Fields may be added, never renamed: scripts read them through ``-o json``.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

S = TypeVar("S")

MeshState = Literal["starting", "ready", "degraded", "failed", "stopping", "stopped"]
InstanceState = Literal[
    "pending", "starting", "ready", "draining", "stopping", "stopped", "backoff", "failed", "completed", "registered"
]
Health = Literal["healthy", "unhealthy", "unknown"]
ConfigState = Literal["synced", "stale", "rejected", "disconnected"]


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all shapes: frozen, keyword-only, every field written."""


class GatewayStatus(Shape, frozen=True, kw_only=True):
    """Where the mesh is entered, and the gateway's proxy."""

    url: str
    host: str
    port: int
    sidecar: SidecarStatus | None


class SidecarStatus(Shape, frozen=True, kw_only=True):
    """One Envoy: ``config`` is its sync state; ``inbound_ports`` are by instance id."""

    pid: int | None
    state: InstanceState
    outbound_port: int | None
    inbound_ports: dict[str, int]
    config: ConfigState
    config_error: str
    admin_socket: str
    restarts: int


class InstanceStatus(Shape, frozen=True, kw_only=True):
    """One instance. ``address`` is where the application listens; ``exit_code`` of its last end, None if none."""

    id: str
    version: str
    pid: int | None
    address: str
    port: int | None
    inbound_port: int | None
    state: InstanceState
    health: Health
    reason: str
    restarts: int
    exit_code: int | None
    started_at: float | None
    log: str


class RolloutNote(Shape, frozen=True, kw_only=True):
    """A rollout that is under way: ``phase`` and ``why`` as in RolloutStatus, ``weight`` what ``version`` has."""

    number: int
    version: str
    phase: str
    weight: int
    why: str


class ServiceStatus(Shape, frozen=True, kw_only=True):
    """One service; ``upstreams`` gives the local port of each; ``weights`` are percent by version.

    ``rollout`` is null while none of the service is under way.
    """

    name: str
    protocol: Literal["http", "grpc", "tcp"]
    kind: Literal["service", "job", "external", "registered"]
    state: InstanceState
    health: Health
    identity: str
    weights: dict[str, int]
    instances: list[InstanceStatus]
    sidecar: SidecarStatus | None
    upstreams: dict[str, int]
    rollout: RolloutNote | None = None


class FaultShape(Shape, frozen=True, kw_only=True):
    """A fault that is on.

    ``subject`` is what it was made on, ``summary`` what it does in words. ``services`` are those whose users notice: of
    these only ``callers``, unless it is empty. ``own_calls`` is True when what the services ask of others meets it too.
    ``state`` is ``starting``, ``on``, or ``ending`` while it is being undone. ``remaining`` is how many seconds it
    lasts still; ``origin`` is ``command`` or ``topology``.
    """

    id: str
    kind: str
    subject: str
    services: list[str]
    callers: list[str] = msgspec.field(default_factory=list)
    own_calls: bool = False
    summary: str
    state: Literal["starting", "on", "ending"]
    started_at: float
    ends_at: float
    remaining: float
    author: str
    reason: str
    origin: Literal["command", "topology"]

    def is_met(self, source: str, destination: str) -> bool:
        """Whether requests of a caller to a service may meet it; ``source`` is empty for those of any caller."""
        if self.own_calls and source in self.services:
            return True
        return destination in self.services and (not source or not self.callers or source in self.callers)


class MeshStatus(Shape, frozen=True, kw_only=True):
    """The whole mesh as ``meshctl status -o json`` prints it; ``faults`` are those that are on."""

    mesh: str
    state: MeshState
    directory: str
    files: list[str]
    daemon_pid: int
    started_at: float
    gateway: GatewayStatus | None
    services: list[ServiceStatus]
    faults: list[FaultShape] = msgspec.field(default_factory=list)


class UpRequest(Shape, frozen=True, kw_only=True):
    """Bring the topology into effect; ``services`` empty means all of them.

    Policies that commands have set stay, unless ``reset`` is true; ``author`` is ``user@up``.
    """

    files: list[SourceFileShape]
    variables: dict[str, str]
    services: list[str]
    author: str = "up"
    reset: bool = False


class SourceFileShape(Shape, frozen=True, kw_only=True):
    """One topology file as read."""

    path: str
    directory: str
    text: str


class UpResult(Shape, frozen=True, kw_only=True):
    """What an ``up`` changed, in words, one line a change.

    ``differs`` are the policies in force that commands have set otherwise than the files say; ``notes`` tell of
    rollouts that are under way, have promoted a version that the files do not call stable, or are not begun.
    """

    changes: list[str]
    generation: int
    differs: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


class StartFailure(Shape, frozen=True, kw_only=True):
    """A service, job or sidecar that did not come up: its last exit code, the tail of its output, its log's path."""

    name: str
    message: str
    exit_code: int | None
    log: str
    tail: list[str]


class ReadyResult(Shape, frozen=True, kw_only=True):
    """The answer of the wait for readiness: everything is ready and synced, something failed, or time ran out.

    ``waiting`` names what was still awaited, each with the reason.
    """

    state: Literal["ready", "failed", "timeout"]
    failures: list[StartFailure]
    waiting: list[str]


class Event(Shape, frozen=True, kw_only=True):
    """One thing that happened; ``kind`` is a dotted name such as ``instance.ready`` or ``sidecar.rejected``."""

    seq: int
    time: float
    kind: str
    subject: str
    message: str
    level: Literal["info", "warning", "error"]


class LogLine(Shape, frozen=True, kw_only=True):
    """One captured line of a process."""

    source: str
    time: float
    stream: Literal["stdout", "stderr"]
    text: str


class Certificate(Shape, frozen=True, kw_only=True):
    """A leaf or a root as ``certs list`` shows it."""

    name: str
    kind: Literal["leaf", "root"]
    spiffe_id: str
    serial: str
    issuer_serial: str
    not_before: float
    not_after: float
    rotates_at: float | None
    active: bool
    pem: str


class CertificateList(Shape, frozen=True, kw_only=True):
    """All certificates of the mesh."""

    trust_domain: str
    certificates: list[Certificate]


class RotateRequest(Shape, frozen=True, kw_only=True):
    """Rotate the leaf of ``service``, every leaf when empty, or the root."""

    service: str
    root: bool


class AppliedResult(Shape, frozen=True, kw_only=True):
    """A change in effect: which sidecars acknowledged it and how long that took."""

    message: str
    acked: int
    total: int
    duration_ms: float


class CertificateCheck(Shape, frozen=True, kw_only=True):
    """One finding of ``certs verify``."""

    name: str
    ok: bool
    message: str


class CertificateReport(Shape, frozen=True, kw_only=True):
    """What ``certs verify`` found: the files, the chain, and what each sidecar really serves."""

    ok: bool
    checks: list[CertificateCheck]


class ProxyTypeStatus(Shape, frozen=True, kw_only=True):
    """One xDS type at one sidecar."""

    type: Literal["runtime", "clusters", "endpoints", "secrets", "listeners", "routes", "rates"]
    state: ConfigState
    resources: int
    version: str
    acked_at: float | None
    error: str


class ProxyStatus(Shape, frozen=True, kw_only=True):
    """The sync state of one sidecar."""

    sidecar: str
    state: ConfigState
    connected: bool
    types: list[ProxyTypeStatus]


class ProxyStatusList(Shape, frozen=True, kw_only=True):
    """``meshctl proxy status``."""

    proxies: list[ProxyStatus]


class ProxyConfig(Shape, frozen=True, kw_only=True):
    """What one sidecar has of one kind, as Envoy's own config dump says."""

    sidecar: str
    kind: Literal["clusters", "routes", "listeners", "endpoints", "secrets"]
    resources: list[dict[str, Any]]


class ScaleRequest(Shape, frozen=True, kw_only=True):
    """Set the number of instances of one version."""

    service: str
    version: str
    replicas: int


class RestartRequest(Shape, frozen=True, kw_only=True):
    """Restart every instance of the services, or of one instance id, one after another."""

    targets: list[str]


class RegisterRequest(Shape, frozen=True, kw_only=True):
    """Register an instance started by someone else; ``ttl`` None means until it is deregistered."""

    service: str
    address: str
    version: str
    ttl: float | None


class RegisterResult(Shape, frozen=True, kw_only=True):
    """The id to heart-beat and deregister with."""

    id: str
    service: str
    version: str
    expires_at: float | None


class ErrorBody(Shape, frozen=True, kw_only=True):
    """What every API error answers; ``code`` is that of errors.MeshctlError; problems as text for invalid files."""

    code: str
    message: str
    hint: str
    detail: str
    problems: list[ProblemShape]


class ProblemShape(Shape, frozen=True, kw_only=True):
    """A Problem; line and column are 0 when it has no place."""

    code: str
    message: str
    hint: str
    file: str
    line: int
    column: int


class CallTarget(Shape, frozen=True, kw_only=True):
    """Where ``meshctl call`` connects to send a request as a service would."""

    source: str
    socket: str
    host: str
    port: int
    """``socket`` is a unix socket path, or empty and then ``host`` and ``port`` hold."""


class CallResult(Shape, frozen=True, kw_only=True):
    """``meshctl call -o json``."""

    status: int
    headers: dict[str, str]
    body: str
    duration_ms: float
    instance: str
    version: str


class DoctorCheck(Shape, frozen=True, kw_only=True):
    """One line of ``meshctl doctor``; ``fix`` says what to do when it is not ok."""

    name: str
    level: Literal["ok", "warning", "error"]
    message: str
    fix: str


class DoctorReport(Shape, frozen=True, kw_only=True):
    """``meshctl doctor``."""

    ok: bool
    checks: list[DoctorCheck]


class ValidationReport(Shape, frozen=True, kw_only=True):
    """``meshctl validate -o json``; the counts are 0 when the topology is not valid."""

    valid: bool
    files: list[str]
    services: int
    upstreams: int
    problems: list[ProblemShape]


class VersionReport(Shape, frozen=True, kw_only=True):
    """``meshctl version -o json``; ``envoy`` and ``envoy_path`` are empty when there is no Envoy."""

    meshctl: str
    envoy: str
    envoy_path: str
    python: str
    platform: str


def encode(shape: Shape) -> bytes:
    """One shape as JSON bytes."""
    return msgspec.json.encode(shape)


def decode(data: bytes, kind: type[S]) -> S:
    """Read a shape back. Raises msgspec.ValidationError (a ValueError) when the JSON does not fit it."""
    return msgspec.json.decode(data, type=kind)
