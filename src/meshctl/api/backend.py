"""What the API needs of the control plane, in wire shapes.  Pure (declarations only).

The control plane fits this Protocol structurally; so does the fake in tests/fakes/backend.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from meshctl.wire.authorization import AuthzAnswer, AuthzRequest
from meshctl.wire.circuits import CircuitList, ForceRequest
from meshctl.wire.disturbances import DisturbRequest, DisturbResult
from meshctl.wire.explain import ExplainRequest, Explanation
from meshctl.wire.faults import ClearRequest, ClearResult, FaultList, InjectRequest, InjectResult
from meshctl.wire.metrics import History, Metrics
from meshctl.wire.models import (
    AppliedResult,
    CallTarget,
    CertificateList,
    CertificateReport,
    Event,
    LogLine,
    MeshStatus,
    ProxyConfig,
    ProxyStatusList,
    ReadyResult,
    RegisterRequest,
    RegisterResult,
    RestartRequest,
    RotateRequest,
    ScaleRequest,
    UpRequest,
    UpResult,
)
from meshctl.wire.policies import (
    ApplyRequest,
    DeleteRequest,
    DiffRequest,
    PolicyDiff,
    PolicyList,
    PolicyResult,
    RevisionList,
    RollbackRequest,
)
from meshctl.wire.requests import TapItem
from meshctl.wire.rollouts import ChangeRequest, RolloutHistory, RolloutList, RolloutStatus, StartRequest
from meshctl.wire.shifts import MirrorRequest, ShiftRequest, TrafficResult
from meshctl.wire.taps import TapQuery
from meshctl.wire.traces import Trace, TraceList, TraceQuery


class PolicyBackend(Protocol):
    """What the control plane does with policies."""

    def list(self, owner: str, kind: str) -> PolicyList:
        """The policies that are written, of one owner and of one kind when these are not empty."""
        ...

    async def apply(self, request: ApplyRequest) -> PolicyResult:
        """Set the policies that files name; returns when every sidecar concerned has acknowledged."""
        ...

    async def delete(self, request: DeleteRequest) -> PolicyResult:
        """Take one policy away; returns as ``apply`` does."""
        ...

    async def roll_back(self, request: RollbackRequest) -> PolicyResult:
        """Return to the policies of an earlier revision; returns as ``apply`` does."""
        ...

    def diff(self, request: DiffRequest) -> PolicyDiff:
        """What differs between two sets of policies."""
        ...

    def history(self, owner: str, limit: int | None) -> RevisionList:
        """The newest revisions that are kept, newest first; those that concern one owner when it is not empty."""
        ...

    def explain(self, request: ExplainRequest) -> Explanation:
        """What will happen to a request, and which policies say so."""
        ...


class AuthorizationBackend(Protocol):
    """What the control plane says about authorization."""

    def check(self, request: AuthzRequest) -> AuthzAnswer:
        """Whether one service may call another, by the rules in effect."""
        ...


class CircuitBackend(Protocol):
    """What the control plane does with circuit breakers."""

    def list(self, service: str) -> CircuitList:
        """The state of every breaker, or of those to one service when it is not empty."""
        ...

    async def force(self, request: ForceRequest) -> AppliedResult:
        """Hold circuits open or closed, or let them work; returns when every sidecar concerned has acknowledged."""
        ...


class MetricsBackend(Protocol):
    """What the control plane tells of the traffic; windows and steps are in seconds."""

    def get(
        self,
        service: str = "",
        version: str = "",
        window: float = 10.0,
        *,
        until: float | None = None,
        buckets: bool = False,
    ) -> Metrics:
        """The golden signals of a window that ends ``until``, or now: all, or those of one service (and version)."""
        ...

    def stream(
        self, service: str = "", version: str = "", window: float = 10.0, interval: float = 1.0
    ) -> AsyncIterator[Metrics]:
        """The golden signals every ``interval`` seconds."""
        ...

    def history(self, service: str = "", *, window: float = 60.0, step: float = 1.0) -> History:
        """Figures of each edge and version in equal steps."""
        ...


class ShiftBackend(Protocol):
    """What the control plane does to shift traffic between versions."""

    async def shift(self, request: ShiftRequest) -> TrafficResult:
        """Shift traffic; returns when every sidecar concerned has acknowledged."""
        ...

    async def mirror(self, request: MirrorRequest) -> TrafficResult:
        """Send copies of requests to a version, or stop that; returns as ``shift`` does."""
        ...


class RolloutBackend(Protocol):
    """What the control plane does with rollouts."""

    async def start(self, request: StartRequest) -> RolloutStatus:
        """Begin a rollout; returns when its first step is in effect."""
        ...

    def list(self, service: str = "") -> RolloutList:
        """The newest rollout of each service, or of one when it is not empty."""
        ...

    def history(self, service: str = "", number: int = 0) -> RolloutHistory:
        """Rollouts with their decisions: all, those of one service, or one by its number."""
        ...

    def stream(self, service: str, interval: float = 1.0) -> AsyncIterator[RolloutStatus]:
        """The newest rollout of a service after each change and every ``interval`` seconds; ends when it has ended."""
        ...

    async def pause(self, request: ChangeRequest) -> RolloutStatus:
        """Hold the weight."""
        ...

    async def resume(self, request: ChangeRequest) -> RolloutStatus:
        """Go on."""
        ...

    async def promote(self, request: ChangeRequest) -> RolloutStatus:
        """Take the next step now, or all of the traffic; returns when it is in effect."""
        ...

    async def roll_back(self, request: ChangeRequest) -> RolloutStatus:
        """Take all traffic from the version; returns when it is in effect."""
        ...

    async def retry(self, request: ChangeRequest) -> RolloutStatus:
        """Begin the newest rollout anew; returns as ``start`` does."""
        ...


class FaultBackend(Protocol):
    """What the control plane does with faults."""

    def list(self) -> FaultList:
        """The faults that are on."""
        ...

    async def inject(self, request: InjectRequest) -> InjectResult:
        """Make a fault on requests; returns when every sidecar concerned has acknowledged."""
        ...

    async def clear(self, request: ClearRequest) -> ClearResult:
        """End faults; returns as ``inject`` does."""
        ...


class DisturbanceBackend(Protocol):
    """What the control plane does with faults that are not made of requests."""

    async def disturb(self, request: DisturbRequest) -> DisturbResult:
        """Disturb a service or an instance; returns when that is in effect."""
        ...


class InstanceBackend(Protocol):
    """What the control plane does with instances."""

    async def scale(self, request: ScaleRequest) -> AppliedResult:
        """Set the number of instances of a version; returns when it is in effect."""
        ...

    async def restart(self, request: RestartRequest) -> AppliedResult:
        """Restart services or instances one after another; returns when they are ready again."""
        ...

    async def register(self, request: RegisterRequest) -> RegisterResult:
        """Add an instance that someone else runs; returns when its callers know of it."""
        ...

    async def heartbeat(self, registration_id: str) -> RegisterResult:
        """Renew the TTL of a registration."""
        ...

    async def deregister(self, registration_id: str) -> AppliedResult:
        """Remove a registration; returns when no caller uses it any more."""
        ...


class TapBackend(Protocol):
    """What the control plane tells of requests as they pass."""

    def tap(self, query: TapQuery, *, count: int | None, seconds: float | None) -> AsyncIterator[TapItem]:
        """Requests that fit as they end, and summaries; ends after ``count`` requests or ``seconds``."""
        ...


class TracingBackend(Protocol):
    """What the control plane tells of traces."""

    def list(self, query: TraceQuery) -> TraceList:
        """The newest traces that fit."""
        ...

    def get(self, trace_id: str) -> Trace:
        """One trace, by the beginning of its id."""
        ...


class Backend(Protocol):
    """The control plane of one mesh. Methods raise leaves of MeshctlError; times are seconds since the epoch."""

    @property
    def authorization(self) -> AuthorizationBackend:
        """What it says about authorization."""
        ...

    @property
    def policies(self) -> PolicyBackend:
        """What it does with policies."""
        ...

    @property
    def circuits(self) -> CircuitBackend:
        """What it does with circuit breakers."""
        ...

    @property
    def faults(self) -> FaultBackend:
        """What it does with faults."""
        ...

    @property
    def disturbances(self) -> DisturbanceBackend:
        """What it does with faults that are not made of requests."""
        ...

    @property
    def instances(self) -> InstanceBackend:
        """What it does with instances."""
        ...

    @property
    def shifts(self) -> ShiftBackend:
        """What it does to shift traffic."""
        ...

    @property
    def rollouts(self) -> RolloutBackend:
        """What it does with rollouts."""
        ...

    @property
    def metrics(self) -> MetricsBackend:
        """What it tells of the traffic."""
        ...

    @property
    def taps(self) -> TapBackend:
        """What it tells of requests as they pass."""
        ...

    @property
    def tracing(self) -> TracingBackend:
        """What it tells of traces."""
        ...

    def status(self) -> MeshStatus:
        """The whole mesh as it is now."""
        ...

    async def up(self, request: UpRequest) -> UpResult:
        """Commit a topology and begin to bring it into effect; returns when it is accepted, not when all is ready."""
        ...

    async def ready(self, timeout: float | None) -> ReadyResult:
        """Wait until everything is ready and every sidecar synced, something failed, or ``timeout`` seconds passed."""
        ...

    async def down(self, force: bool) -> None:  # noqa: FBT001 - one argument
        """Stop everything and return when nothing is left; a second call with ``force`` makes a running one kill."""
        ...

    def events(self, since: int | None, follow: bool) -> AsyncIterator[Event]:  # noqa: FBT001 - a wire parameter
        """Events after sequence number ``since`` (None: all that are kept), then, with ``follow``, those to come."""
        ...

    def logs(
        self,
        *,
        sources: list[str],
        sidecars: bool,
        tail: int | None,
        since: float | None,
        until: float | None,
        grep: str,
        follow: bool,
    ) -> AsyncIterator[LogLine]:
        """Captured lines of services or instances (``sources`` empty: all), merged by time, then those to come."""
        ...

    def certificates(self) -> CertificateList:
        """All certificates of the mesh."""
        ...

    async def rotate(self, request: RotateRequest) -> AppliedResult:
        """Rotate certificates; returns when the sidecars serve the new ones."""
        ...

    async def verify_certificates(self) -> CertificateReport:
        """Check files, chains, and what each sidecar really serves."""
        ...

    def proxy_status(self) -> ProxyStatusList:
        """The sync state of every sidecar, by xDS type."""
        ...

    async def proxy_config(self, sidecar: str, kind: str) -> ProxyConfig:
        """What one sidecar has of ``clusters``, ``routes``, ``listeners``, ``endpoints`` or ``secrets``."""
        ...

    def call_target(self, source: str) -> CallTarget:
        """Where to connect to send a request as the service ``source`` (or ``gateway``) would."""
        ...
