"""A control plane without processes: keeps what it is asked, answers what it is told to, raises what it is given."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.fakes.authorization import FakeAuthorization
from tests.fakes.circuits import FakeCircuits
from tests.fakes.disturbances import FakeDisturbances
from tests.fakes.faults import FakeFaults
from tests.fakes.rollouts import FakeRollouts
from tests.fakes.shifts import FakeShifts
from tests.fakes.taps import FakeTaps
from tests.fakes.traces import FakeTracing

from meshctl.errors import MeshctlError, NotFoundError
from meshctl.wire.explain import ExplainLine, ExplainRequest, ExplainSource, Explanation
from meshctl.wire.metrics import Figures, History, Metrics, Point, ProcessUse, Row, Series, SidecarFigures
from meshctl.wire.models import (
    AppliedResult,
    CallTarget,
    Certificate,
    CertificateCheck,
    CertificateList,
    CertificateReport,
    Event,
    GatewayStatus,
    InstanceStatus,
    LogLine,
    MeshStatus,
    ProxyConfig,
    ProxyStatus,
    ProxyStatusList,
    ProxyTypeStatus,
    ReadyResult,
    RegisterRequest,
    RegisterResult,
    RestartRequest,
    RotateRequest,
    ScaleRequest,
    ServiceStatus,
    SidecarStatus,
    UpRequest,
    UpResult,
)
from meshctl.wire.policies import (
    ApplyRequest,
    DeleteRequest,
    DiffRequest,
    PolicyChangeShape,
    PolicyDiff,
    PolicyList,
    PolicyOrigin,
    PolicyResult,
    PolicyShape,
    RevisionList,
    RevisionShape,
    RollbackRequest,
)

T = TypeVar("T")

T0 = 1_770_000_000.0
"""When everything in the fake mesh began: 2026-02-02T02:40:00Z."""


def make_sidecar(pid: int = 4100, **changes: object) -> SidecarStatus:
    values: dict[str, object] = {
        "pid": pid,
        "state": "ready",
        "outbound_port": 20100,
        "inbound_ports": {},
        "config": "synced",
        "config_error": "",
        "admin_socket": "/run/mesh/x.admin",
        "restarts": 0,
    }
    return SidecarStatus(**{**values, **changes})  # type: ignore[arg-type]


def make_instance(instance_id: str, version: str = "v1", **changes: object) -> InstanceStatus:
    values: dict[str, object] = {
        "id": instance_id,
        "version": version,
        "pid": 4000,
        "address": "127.0.0.1",
        "port": 20001,
        "inbound_port": 20002,
        "state": "ready",
        "health": "healthy",
        "reason": "",
        "restarts": 0,
        "exit_code": None,
        "started_at": T0,
        "log": f"/mesh/.meshctl/logs/{instance_id}.log",
    }
    return InstanceStatus(**{**values, **changes})  # type: ignore[arg-type]


def make_service(name: str, instances: list[InstanceStatus], **changes: object) -> ServiceStatus:
    values: dict[str, object] = {
        "name": name,
        "protocol": "http",
        "kind": "service",
        "state": "ready",
        "health": "healthy",
        "identity": f"spiffe://shop.mesh/{name}",
        "weights": {"v1": 100},
        "instances": instances,
        "sidecar": make_sidecar(),
        "upstreams": {},
    }
    return ServiceStatus(**{**values, **changes})  # type: ignore[arg-type]


def make_status(**changes: object) -> MeshStatus:
    """A shop of three services, one of them in two versions, one waiting to be started again."""
    services = [
        make_service(
            "checkout",
            [
                make_instance("checkout-v1-1", pid=4001, port=20001, inbound_port=20011),
                make_instance("checkout-v2-1", "v2", pid=4002, port=20002, inbound_port=20012, restarts=1),
            ],
            weights={"v1": 90, "v2": 10},
            upstreams={"payment": 20021},
            sidecar=make_sidecar(4101, inbound_ports={"checkout-v1-1": 20011, "checkout-v2-1": 20012}),
        ),
        make_service("frontend", [make_instance("frontend-v1-1", pid=4003, port=20003, inbound_port=20013)]),
        make_service(
            "payment",
            [
                make_instance(
                    "payment-v1-1",
                    pid=None,
                    state="backoff",
                    health="unhealthy",
                    reason="exited with 1; next try in 2.0 s",
                    restarts=3,
                    exit_code=1,
                    port=20004,
                    inbound_port=20014,
                    started_at=None,
                )
            ],
            state="backoff",
            health="unhealthy",
            sidecar=make_sidecar(4103, config="rejected", config_error="Proto constraint validation failed"),
        ),
    ]
    values: dict[str, object] = {
        "mesh": "shop",
        "state": "degraded",
        "directory": "/mesh",
        "files": ["mesh.yaml"],
        "daemon_pid": 2_000_000_000,
        "started_at": T0,
        "gateway": GatewayStatus(
            url="http://127.0.0.1:8080", host="127.0.0.1", port=8080, sidecar=make_sidecar(4110, outbound_port=None)
        ),
        "services": services,
    }
    return MeshStatus(**{**values, **changes})  # type: ignore[arg-type]


def make_event(
    seq: int, message: str, *, subject: str = "", kind: str = "instance.ready", level: str = "info"
) -> Event:
    named = subject or message.split(maxsplit=1)[0]
    values: dict[str, Any] = {"kind": kind, "subject": named, "message": message, "level": level}
    return Event(seq=seq, time=T0 + seq, **values)


def make_line(source: str, text: str, *, time: float = T0, stream: str = "stdout") -> LogLine:
    return LogLine(source=source, time=time, stream=stream, text=text)  # type: ignore[arg-type]


class FakePolicies:
    """Fits api.backend.PolicyBackend: two policies, one of them set by a command."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note
        self.origin = PolicyOrigin(file="mesh.yaml", line=12, column=14, revision=0, author="")
        self.set_by = PolicyOrigin(file="policy.yaml", line=3, column=14, revision=7, author="ann@apply")
        self.timeout = PolicyShape(owner="payment", kind="timeout", value="1s", words="1s", origin=self.set_by)
        self.split = PolicyShape(
            owner="checkout",
            kind="split",
            value={"v1": 90, "v2": 10},
            words="{v1: 90, v2: 10}",
            origin=self.origin,
        )
        self.change = PolicyChangeShape(
            owner="payment",
            kind="timeout",
            path="timeout",
            before="2s",
            after="1s",
            before_origin=self.origin,
            after_origin=self.set_by,
        )
        self.changes = [self.change]
        self.heads = [
            RevisionShape(
                number=7,
                time=T0 + 60,
                author="ann@apply",
                reason="payment is slow",
                state="applied",
                changes=["payment timeout: 2s -> 1s"],
                owners=["payment"],
                note="",
            ),
            RevisionShape(
                number=6,
                time=T0,
                author="bob@up",
                reason="",
                state="applied",
                changes=["checkout split: not set -> {v1: 90, v2: 10}", "payment timeout: not set -> 2s"],
                owners=["checkout", "payment"],
                note="",
            ),
        ]

    def list(self, owner: str = "", kind: str = "") -> PolicyList:
        self._note("policies.list", (owner, kind))
        found = [
            policy for policy in (self.split, self.timeout) if owner in ("", policy.owner) and kind in ("", policy.kind)
        ]
        return PolicyList(revision=7, policies=found, yaml="services:\n  payment:\n    timeout: 1s\n")

    async def apply(self, request: ApplyRequest) -> PolicyResult:
        self._note("policies.apply", request)
        return self._result()

    async def delete(self, request: DeleteRequest) -> PolicyResult:
        self._note("policies.delete", request)
        return self._result()

    async def roll_back(self, request: RollbackRequest) -> PolicyResult:
        self._note("policies.roll_back", request)
        return self._result()

    def diff(self, request: DiffRequest) -> PolicyDiff:
        self._note("policies.diff", request)
        return PolicyDiff(changes=self.changes)

    def history(self, owner: str = "", limit: int | None = None) -> RevisionList:
        self._note("policies.history", (owner, limit))
        found = [head for head in self.heads if not owner or owner in head.owners]
        return RevisionList(revisions=found[:limit], total=len(found))

    def explain(self, request: ExplainRequest) -> Explanation:
        self._note("policies.explain", request)
        set_by = ExplainSource(path="timeout", owner=request.service, origin=self.set_by)
        attempts = ExplainSource(path="retry_policy.max_attempts", owner="defaults", origin=self.origin)
        return Explanation(
            service=request.service,
            source=request.source,
            method=request.method,
            path=request.path,
            revision=7,
            lines=[
                ExplainLine(topic="route", words="payment: any path", policy="", sources=[]),
                ExplainLine(topic="timeout", words="1s for the whole answer", policy="timeout", sources=[set_by]),
                ExplainLine(topic="retries", words="up to 2", policy="retry_policy", sources=[attempts]),
                ExplainLine(topic="chosen by", words="round_robin", policy="load_balancing", sources=[]),
            ],
        )

    def _result(self) -> PolicyResult:
        acked = 2 if self.changes else 0
        return PolicyResult(
            message="revision 8" if self.changes else "nothing changed",
            revision=8,
            changes=self.changes,
            acked=acked,
            total=acked,
            duration_ms=12.3,
        )


def make_row(destination: str, version: str = "", *, source: str = "", **changes: Any) -> Row:
    """A row of ten requests a second, one in a hundred of which failed."""
    values: dict[str, object] = {
        "requests": 100,
        "failures": 1,
        "retries": 4,
        "rate": 10.0,
        "success": 0.99,
        "p50_ms": 4.2,
        "p90_ms": 18.0,
        "p95_ms": 31.0,
        "p99_ms": 1250.0,
        "statuses": {"200": 99, "503": 1},
        "reasons": {"UH": 1},
        "sent_rate": 1200.0,
        "received_rate": 34000.0,
        "active": 2,
        "connections": 3,
        "secured": True,
        "age_s": 0.4,
        "served": Figures(requests=104, failures=5, rate=10.4, success=0.951923, p99_ms=900.0),
    }
    return Row(source=source, destination=destination, version=version, **{**values, **changes})


def make_idle_row(destination: str, version: str = "", *, source: str = "", **changes: Any) -> Row:
    """A row in whose window there was no request."""
    values: dict[str, object] = {"rate": 0.0, "active": 0, "connections": 0, "secured": True, "age_s": 0.4}
    return Row(source=source, destination=destination, version=version, **{**values, **changes})


def make_metrics(**changes: object) -> Metrics:
    """The shop's figures: checkout in two versions, payment without traffic, its caller's sidecar silent for long."""
    old: dict[str, Any] = {"stale": ["checkout"], "age_s": 12.3, "rate": None, "active": None, "connections": None}
    values: dict[str, object] = {
        "time": T0 + 60,
        "window_s": 10.0,
        "services": [make_row("checkout"), make_row("frontend", secured=False), make_idle_row("payment", **old)],
        "versions": [
            make_row("checkout", "v1", rate=9.0, requests=90),
            make_idle_row("checkout", "v2"),
            make_row("frontend", "v1", secured=False),
            make_idle_row("payment", "v1", **old),
        ],
        "edges": [
            make_idle_row("payment", source="checkout", **old),
            make_row("checkout", source="frontend", circuit="half_open", ejected=1),
            make_row("frontend", source="gateway", secured=False),
        ],
        "routes": [make_row("checkout", route="checkout")],
        "flows": [make_row("checkout", "v1", source="frontend", route="checkout")],
        "instances": [make_row("checkout", "v1", instance="checkout-v1-1", served=None)],
        "sidecars": [
            SidecarFigures(sidecar="checkout", age_s=12.3, stale=True, error="it hangs", resets=0),
            SidecarFigures(sidecar="frontend", age_s=0.4, stale=False, error="", resets=1),
            SidecarFigures(sidecar="gateway", age_s=0.4, stale=False, error="", resets=0),
            SidecarFigures(sidecar="payment", age_s=None, stale=True, error="", resets=0),
        ],
        "processes": [ProcessUse(name="checkout-v1-1", service="checkout", pid=4001, cpu=0.25, memory=50_000_000)],
    }
    return Metrics(**{**values, **changes})  # type: ignore[arg-type]


class FakeMetrics:
    """Fits api.backend.MetricsBackend: always the same figures; a stream gives ``repeats`` of them."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note
        self.found = make_metrics()
        self.repeats = 2
        point = Point(time=T0 + 60, requests=10, failures=0, rate=10.0, success=1.0, p50_ms=4.0, p99_ms=9.0)
        series = Series(source="frontend", destination="checkout", version="v1", points=[point])
        self.past = History(time=T0 + 60, step_s=1.0, series=[series])

    def get(
        self,
        service: str = "",
        version: str = "",
        window: float = 10.0,
        *,
        until: float | None = None,
        buckets: bool = False,
    ) -> Metrics:
        self._note("metrics.get", (service, version, window, until, buckets))
        return self.found

    async def stream(
        self, service: str = "", version: str = "", window: float = 10.0, interval: float = 1.0
    ) -> AsyncIterator[Metrics]:
        self._note("metrics.stream", (service, version, window, interval))
        for _ in range(self.repeats):
            yield self.found

    def history(self, service: str = "", *, window: float = 60.0, step: float = 1.0) -> History:
        self._note("metrics.history", (service, window, step))
        return self.past


class FakeInstances:
    """Fits api.backend.InstanceBackend; ``note`` is told of every call."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note
        self.registrations: dict[str, RegisterResult] = {}

    async def scale(self, request: ScaleRequest) -> AppliedResult:
        self._note("scale", request)
        return AppliedResult(message=f"{request.service}/{request.version}: 2 -> {request.replicas}", **_APPLIED)

    async def restart(self, request: RestartRequest) -> AppliedResult:
        self._note("restart", request)
        return AppliedResult(message=f"restarted {', '.join(request.targets)}", **_APPLIED)

    async def register(self, request: RegisterRequest) -> RegisterResult:
        self._note("register", request)
        expires = None if request.ttl is None else T0 + request.ttl
        result = RegisterResult(
            id=f"{request.service}-r1", service=request.service, version=request.version, expires_at=expires
        )
        self.registrations[result.id] = result
        return result

    async def heartbeat(self, registration_id: str) -> RegisterResult:
        self._note("heartbeat", registration_id)
        return self._registered(registration_id)

    async def deregister(self, registration_id: str) -> AppliedResult:
        self._note("deregister", registration_id)
        self._registered(registration_id)
        del self.registrations[registration_id]
        return AppliedResult(message=f"deregistered {registration_id}", **_APPLIED)

    def _registered(self, registration_id: str) -> RegisterResult:
        if registration_id not in self.registrations:
            raise NotFoundError(f"no registration {registration_id}", hint="it may have expired: register again")
        return self.registrations[registration_id]


@dataclass(kw_only=True)
class FakeBackend:
    """Fits api.backend.Backend. ``asked`` keeps every call that changes something; ``failures`` maps the name of a
    method to what it raises; streams send what they hold and, followed, go on until ``finish``.
    """

    mesh: MeshStatus = field(default_factory=make_status)
    changes: list[str] = field(default_factory=lambda: ["started 3 services"])
    readiness: ReadyResult = field(default_factory=lambda: ReadyResult(state="ready", failures=[], waiting=[]))
    event_list: list[Event] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    failures: dict[str, MeshctlError] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    open_streams: int = 0
    waiting: int = 0
    stopping: int = 0
    break_streams: MeshctlError | None = None
    hold_down: bool = False
    hold_ready: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    authorization: FakeAuthorization = field(init=False)
    policies: FakePolicies = field(init=False)
    circuits: FakeCircuits = field(init=False)
    faults: FakeFaults = field(init=False)
    disturbances: FakeDisturbances = field(init=False)
    instances: FakeInstances = field(init=False)
    shifts: FakeShifts = field(init=False)
    rollouts: FakeRollouts = field(init=False)
    metrics: FakeMetrics = field(init=False)
    taps: FakeTaps = field(default_factory=FakeTaps)
    tracing: FakeTracing = field(default_factory=FakeTracing)

    def __post_init__(self) -> None:
        self.authorization = FakeAuthorization(self._note)
        self.policies = FakePolicies(self._note)
        self.circuits = FakeCircuits(self._note, T0)
        self.faults = FakeFaults(self._note)
        self.disturbances = FakeDisturbances(self._note, T0)
        self.instances = FakeInstances(self._note)
        self.shifts = FakeShifts(self._note)
        self.rollouts = FakeRollouts(self._note)
        self.metrics = FakeMetrics(self._note)

    def _note(self, name: str, what: object = None) -> None:
        self.asked.append((name, what))
        if name in self.failures:
            raise self.failures[name]

    def status(self) -> MeshStatus:
        if "status" in self.failures:
            raise self.failures["status"]
        return self.mesh

    async def up(self, request: UpRequest) -> UpResult:
        self._note("up", request)
        return UpResult(changes=self.changes, generation=1, differs=self.differs, notes=self.notes)

    async def ready(self, timeout: float | None) -> ReadyResult:
        self._note("ready", timeout)
        self.waiting += 1
        try:
            if self.hold_ready:
                await self.finished.wait()
        finally:
            self.waiting -= 1
        return self.readiness

    async def down(self, force: bool) -> None:
        self._note("down", force)
        if force or not self.hold_down:
            await self.finish()
        self.stopping += 1
        await self.finished.wait()
        self.stopping -= 1

    async def finish(self) -> None:
        """End every followed stream, as the control plane does when it has stopped everything."""
        self.finished.set()
        async with self.changed:
            self.changed.notify_all()

    async def add_event(self, event: Event) -> None:
        self.event_list.append(event)
        async with self.changed:
            self.changed.notify_all()

    async def add_line(self, line: LogLine) -> None:
        self.lines.append(line)
        async with self.changed:
            self.changed.notify_all()

    async def events(self, since: int | None, follow: bool) -> AsyncIterator[Event]:
        self._note("events", (since, follow))
        async for event in self._follow(self.event_list, follow):
            if since is None or event.seq > since:
                yield event

    async def logs(
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
        self._note("logs", (sources, sidecars, tail, since, until, grep, follow))
        known = {s.name for s in self.mesh.services} | {i.id for s in self.mesh.services for i in s.instances}
        for source in sources:
            if source not in known:
                raise NotFoundError(f"no service or instance {source}", hint=f"services: {', '.join(sorted(known))}")
        skip = 0 if tail is None else max(0, len(self.lines) - tail)
        async for line in self._follow(self.lines, follow, skip=skip):
            wanted = not sources or any(line.source == s or line.source.startswith(f"{s}-") for s in sources)
            if wanted and re.search(grep, line.text):
                yield line

    async def _follow(self, items: list[T], follow: bool, *, skip: int = 0) -> AsyncIterator[T]:
        position = skip
        self.open_streams += 1
        try:
            while True:
                while position < len(items):
                    yield items[position]
                    position += 1
                if self.break_streams is not None:
                    raise self.break_streams
                if not follow or self.finished.is_set():
                    return
                async with self.changed:
                    if position >= len(items) and not self.finished.is_set():
                        await self.changed.wait()
        finally:
            self.open_streams -= 1

    def certificates(self) -> CertificateList:
        if "certificates" in self.failures:
            raise self.failures["certificates"]
        root = Certificate(
            name="root-1",
            kind="root",
            spiffe_id="",
            serial="0a",
            issuer_serial="0a",
            not_before=T0,
            not_after=T0 + 365 * 86400,
            rotates_at=None,
            active=True,
            pem="-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        )
        leaf = Certificate(
            name="checkout",
            kind="leaf",
            spiffe_id="spiffe://shop.mesh/checkout",
            serial="0b",
            issuer_serial="0a",
            not_before=T0,
            not_after=T0 + 86400,
            rotates_at=T0 + 43200,
            active=True,
            pem="-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        )
        return CertificateList(trust_domain="shop.mesh", certificates=[root, leaf])

    async def rotate(self, request: RotateRequest) -> AppliedResult:
        self._note("rotate", request)
        return AppliedResult(message="rotated", **_APPLIED)

    async def verify_certificates(self) -> CertificateReport:
        self._note("verify_certificates")
        checks = [CertificateCheck(name="checkout", ok=True, message="served as it is stored")]
        return CertificateReport(ok=True, checks=checks)

    def proxy_status(self) -> ProxyStatusList:
        if "proxy_status" in self.failures:
            raise self.failures["proxy_status"]
        types = [
            ProxyTypeStatus(type=kind, state="synced", resources=2, version="a1", acked_at=T0, error="")
            for kind in ("clusters", "endpoints", "secrets", "listeners", "routes")
        ]
        rejected = [
            ProxyTypeStatus(
                type="clusters", state="rejected", resources=1, version="b2", acked_at=None, error="bad port"
            )
        ]
        return ProxyStatusList(
            proxies=[
                ProxyStatus(sidecar="checkout", state="synced", connected=True, types=types),
                ProxyStatus(sidecar="payment", state="rejected", connected=True, types=rejected),
            ]
        )

    async def proxy_config(self, sidecar: str, kind: str) -> ProxyConfig:
        self._note("proxy_config", (sidecar, kind))
        if sidecar not in {service.name for service in self.mesh.services}:
            raise NotFoundError(f"no sidecar {sidecar}")
        return ProxyConfig(sidecar=sidecar, kind=kind, resources=[{"name": "payment"}])  # type: ignore[arg-type]

    def call_target(self, source: str) -> CallTarget:
        if source not in {"gateway", *(service.name for service in self.mesh.services)}:
            raise NotFoundError(f"no service {source}")
        return CallTarget(source=source, socket="", host="127.0.0.1", port=20100)


_APPLIED: dict[str, Any] = {"acked": 2, "total": 2, "duration_ms": 12.0}
