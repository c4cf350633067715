"""Faults on requests: injecting them, those of the topology, and renewing them at the sidecars.  I/O.

The filters are in every sidecar from its start; a fault is a change of routes, and runtime values that say how often.
These are leased: unless they are renewed they end within LEASE seconds, and never later than the fault's deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from meshctl.control.engine import Engine
from meshctl.control.faults import FaultOrder, Faults, Reach
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, Problem, UsageError, Where
from meshctl.plan.facts import ActiveFault
from meshctl.plan.fault_forecast import Forecast, describe_fault, forecast
from meshctl.plan.policies.faults import SLOTS, count_slots
from meshctl.plan.routes import GATEWAY
from meshctl.ports import FaultRecord
from meshctl.spec.fault_keys import FAULT
from meshctl.spec.fault_schema import Fault
from meshctl.spec.readers.faults import read_fault
from meshctl.spec.render import to_node
from meshctl.spec.report import Report
from meshctl.spec.schema import Mesh
from meshctl.spec.validate_faults import check_fault
from meshctl.wire.faults import (
    ClearRequest,
    ClearResult,
    FaultedCalls,
    FaultForecast,
    FaultList,
    FaultOutcome,
    InjectRequest,
    InjectResult,
)
from meshctl.wire.models import FaultShape

KIND = "http"
"""The kind of these faults in the register."""

LEASE = 10.0
"""Seconds until a fault ends that is no longer renewed."""

RENEW_EVERY = 2.0
"""Seconds between two renewals."""

_ACK_TIMEOUT = 10.0
_UNKNOWN = ("unknown-service", "unknown-version", "unknown-instance")


class RequestFaults:
    """Makes faults on requests; a control.faults.FaultKind, and fits api.backend.FaultBackend."""

    def __init__(
        self, engine: Engine, register: Faults, *, wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._engine = engine
        self._register = register
        self._wait = wait
        self._read: dict[str, Fault] = {}
        self.find_rollout: Callable[[str], str] = lambda _service: ""
        """Says of a service which rollout is under way, in words; empty when none is."""
        register.kinds[KIND] = self
        engine.plan_faults = self.plan

    # ------------------------------------------------------------------------------------------ for plans, for sidecars

    def plan(self) -> tuple[ActiveFault, ...]:
        """The faults that are meant to be in effect, oldest first."""
        return tuple(
            ActiveFault(id=record.id, fault=self._fault(record))
            for record in self._register.active(KIND)
            if self._register.is_meant(record)
        )

    def lease(self, _node: str) -> float:
        """Seconds for which runtime values of faults hold from now, unless they are renewed."""
        meant = [record for record in self._register.active(KIND) if self._register.is_meant(record)]
        return min([LEASE, *(self._register.remaining(record) for record in meant)])

    async def run(self) -> None:
        """Renew what sidecars have of faults, until cancelled."""
        while True:
            self._engine.parts.publisher.renew_leases()
            await self._wait(RENEW_EVERY)

    # ------------------------------------------------------------------------------------------ one fault

    async def begin(self, fault: FaultRecord) -> int:
        """Publish it, and wait for the sidecars that are connected; others have it when they come."""
        return await self._publish(fault)

    async def end(self, fault: FaultRecord) -> int:
        """Publish that it is over."""
        acked = await self._publish(fault)
        self._read.pop(fault.id, None)
        return acked

    async def resume(self, fault: FaultRecord) -> None:
        """Nothing is to be made again: what was published first had it."""
        self._fault(fault)

    def reach(self, fault: FaultRecord) -> Reach:
        """The callers that it was narrowed to; at the gateway, what comes in from outside."""
        meant = self._fault(fault)
        return Reach(callers=meant.callers, own_calls=meant.service == GATEWAY)

    async def _publish(self, _fault: FaultRecord) -> int:
        engine = self._engine
        if engine.mesh is None or engine.stopping:
            return 0
        if not engine.is_settled:
            # What waits to be published goes first, so that what is awaited below is this change alone.
            engine.publish()
        # What a sidecar refused earlier is not this fault's affair, and one that is away has it when it comes.
        listening = {n for n in engine.nodes if engine.parts.sync(n).state not in ("disconnected", "rejected")}
        connected = {node: version for node, version in engine.publish_changed().items() if node in listening}
        await engine.parts.publisher.wait(connected, _ACK_TIMEOUT)
        return len(connected)

    def _fault(self, record: FaultRecord) -> Fault:
        if record.id not in self._read:
            try:
                self._read[record.id] = msgspec.json.decode(record.detail, type=Fault)
            except msgspec.DecodeError as error:
                raise MeshctlError(f"what is stored of the fault {record.id} cannot be read: {error}") from error
        return self._read[record.id]

    # ------------------------------------------------------------------------------------------ verbs

    def list(self) -> FaultList:
        """The faults of every kind that are on."""
        return FaultList(faults=[self._shape(record) for record in self._register.active()])

    def list_others(self) -> tuple[FaultShape, ...]:
        """The faults that are on and not made of requests."""
        return tuple(self._shape(record) for record in self._register.active() if record.kind != KIND)

    async def inject(self, request: InjectRequest) -> InjectResult:
        """Make a fault on requests; returns when every connected sidecar concerned has acknowledged.

        Raises:
            NotFoundError: there is no such service, version, instance or caller; says which there are.
            UsageError: the fault cannot be as it is asked for.
            ConflictError: a rollout is under way, no slot is free, the name is taken, or it wants a confirmation.
            RejectedError, WaitTimeoutError: a sidecar did not take it; it was undone.
        """
        mesh = self._find_mesh()
        fault = read_request(request, mesh)
        self._check_instance(fault)
        self._check_slots(fault, mesh)
        rollout = self.find_rollout(fault.service)
        if rollout and not request.force:
            raise ConflictError(
                rollout, hint="a fault would be held against it: wait for its end, or inject it with --force"
            )
        seen = forecast(fault, mesh)
        if request.dry_run:
            return self._tell(fault, seen)
        if seen.danger and not request.confirmed:
            raise ConflictError(f"{seen.danger}: that wants a confirmation", hint="add --yes")
        start = self._engine.parts.clock.monotonic()
        record, acked = await self._register.inject(
            _order(fault, request.name, author=request.author, reason=request.reason)
        )
        return self._tell(fault, seen, record, acked=acked, duration=self._engine.milliseconds_since(start))

    async def clear(self, request: ClearRequest) -> ClearResult:
        """End faults of any kind, these or all; returns when every connected sidecar concerned has acknowledged.

        Raises NotFoundError for one that is not on, and what keeps one from being undone.
        """
        start = self._engine.parts.clock.monotonic()
        records, acked = await self._register.clear(request.ids, why=f"cleared by {request.author}")
        return ClearResult(
            faults=[self._shape(record) for record in records],
            acked=acked,
            duration_ms=self._engine.milliseconds_since(start),
        )

    # ------------------------------------------------------------------------------------------ of the topology

    async def follow(self, before: Mesh | None, after: Mesh) -> None:
        """Bring the faults of a topology into effect: those that are new or changed since the one before.

        One that was cleared, or whose time is up, stays so until the mesh starts anew or its text changes.
        """
        had = before.faults if before is not None else {}
        by_name = {record.id: record for record in self._register.active(KIND) if record.origin == "topology"}
        for name in sorted(by_name):
            if after.faults.get(name) != had.get(name, after.faults.get(name)):
                await self._register.clear(
                    [name], why="it is no longer in the topology" if name not in after.faults else ""
                )
        for name, fault in after.faults.items():
            if name in {record.id for record in self._register.active()} or had.get(name) == fault:
                continue
            running = self._engine.mesh
            # Perhaps only some of the services were asked for.
            if running is not None and (fault.service in running.services or fault.service == GATEWAY):
                await self._start(name, fault, running)

    async def _start(self, name: str, fault: Fault, mesh: Mesh) -> None:
        try:
            self._check_slots(fault, mesh)
            await self._register.inject(_order(fault, name, author="topology", origin="topology"))
        except MeshctlError as error:
            message = f"the fault {name} of the topology could not be made: {error}"
            self._engine.parts.events.add("fault.failed", fault.service, message, "error")

    # ------------------------------------------------------------------------------------------ helpers

    def _find_mesh(self) -> Mesh:
        self._engine.refuse_while_stopping()
        if self._engine.mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return self._engine.mesh

    def _check_instance(self, fault: Fault) -> None:
        mesh = self._engine.mesh
        assert mesh is not None
        known = sorted(item.id for item in self._engine.facts(mesh).instances if item.service == fault.service)
        if fault.instance and fault.instance not in known:
            raise NotFoundError(
                f"{fault.service} has no instance {fault.instance}", hint=f"instances: {', '.join(known) or 'none'}"
            )

    def _check_slots(self, fault: Fault, mesh: Mesh) -> None:
        """Refuse a fault for which no slot is left at some place where it would be made."""
        for place in _places(fault, mesh):
            here = [active for active in self.plan() if place in _places(active.fault, mesh)]
            if sum(count_slots(active.fault) for active in here) + count_slots(fault) > SLOTS:
                raise ConflictError(
                    f"there are too many faults on {place[1]} already ({', '.join(active.id for active in here)})",
                    hint=f"clear one: there is room for {SLOTS}, where --exclusive counts twice and --rate once more",
                )

    def _shape(self, record: FaultRecord) -> FaultShape:
        return shape_fault(record, self._register)

    def _tell(
        self, fault: Fault, seen: Forecast, record: FaultRecord | None = None, *, acked: int = 0, duration: float = 0.0
    ) -> InjectResult:
        return InjectResult(
            fault=None if record is None else self._shape(record),
            subject=fault.service,
            summary=describe_fault(fault),
            forecast=_shape_forecast(seen),
            acked=acked,
            duration_ms=duration,
        )


def shape_fault(record: FaultRecord, register: Faults) -> FaultShape:
    """A fault as JSON shows it."""
    reach = register.kinds[record.kind].reach(record)
    return FaultShape(
        id=record.id,
        kind=record.kind,
        subject=record.subject,
        services=list(record.services),
        callers=list(reach.callers),
        own_calls=reach.own_calls,
        summary=record.summary,
        state=register.state(record.id),
        started_at=record.started_at,
        ends_at=record.ends_at,
        remaining=round(register.remaining(record), 1),
        author=record.author,
        reason=record.reason,
        origin=record.origin,
    )


def read_request(request: InjectRequest, mesh: Mesh) -> Fault:
    """The fault that a command asks for, read and checked as one in a topology is.

    Raises NotFoundError for names that there are not, UsageError for what cannot be.
    """
    where = Where(f"({request.author})", 0, 0)
    report = Report()
    fault = read_fault(request.name, to_node(_to_value(request), where), where, report)
    if fault is not None:
        check_fault(fault, mesh, report)
    problems = report.problems
    if problems or fault is None:
        raise _refuse(problems)
    return fault


def _to_value(request: InjectRequest) -> dict[str, Any]:
    given: dict[str, Any] = {
        "service": request.service,
        "delay": request.delay,
        "jitter": request.jitter,
        "abort": request.abort,
        "grpc_status": request.grpc_status,
        "rate": request.rate,
        "reset": request.reset,
        "blackhole": request.blackhole,
        "exclusive": request.exclusive,
        "from": list(request.callers),
        "version": request.version,
        "instance": request.instance,
        "path": request.path,
        "methods": list(request.methods),
        "headers": {k: {"present": True} if v is None else v for k, v in request.headers.items()},
        "health_checks": request.health_checks,
    }
    chosen = {key: value for key, value in given.items() if value}
    percent = f"{request.percent:.6f}".rstrip("0").rstrip(".")
    return {**chosen, "percent": f"{percent}%", "side": request.side, "for": request.duration}


def _places(fault: Fault, mesh: Mesh) -> set[tuple[str, str]]:
    """Where a fault takes slots: sides of services. The gateway's own stand beside those at callers."""
    if fault.service == GATEWAY:
        return {("caller", name) for name in mesh.services}
    return {(fault.side, fault.service)}


def _refuse(problems: tuple[Problem, ...]) -> MeshctlError:
    kind = NotFoundError if all(problem.code in _UNKNOWN for problem in problems) else UsageError
    return kind("; ".join(_plainly(problem.message) for problem in problems), hint=_plainly(problems[0].hint))


def _plainly(text: str) -> str:
    # A fault without a name: the one that is being asked for, by options instead of keys.
    text = text.replace("the fault ``", "the fault")
    for key in FAULT.names:
        text = text.replace(f"`{key}`", f"--{key.replace('_', '-')}")
    return text


def _order(
    fault: Fault, name: str, *, author: str, reason: str = "", origin: Literal["command", "topology"] = "command"
) -> FaultOrder:
    return FaultOrder(
        kind=KIND,
        subject=fault.service,
        services=(fault.service,),
        summary=describe_fault(fault),
        detail=_encode(fault),
        duration=fault.duration,
        author=author,
        reason=reason,
        id=name,
        origin=origin,
    )


def _encode(fault: Fault) -> str:
    return msgspec.json.encode(fault).decode()


def _shape_forecast(seen: Forecast) -> FaultForecast:
    return FaultForecast(
        outcomes=[FaultOutcome(what=item.what, share=item.share) for item in seen.outcomes],
        calls=[FaultedCalls(which=item.which, attempts=item.attempts, fails=item.fails) for item in seen.calls],
        notes=list(seen.notes),
        danger=seen.danger,
    )
