"""Faults that are not made of requests: processes, certificates, the way between services.  I/O.

Enters: what the API asks for, by names.  Leaves: faults in the register, made by the kinds that this object puts there;
``kill`` and ``exit`` are over at once and leave nothing to be undone. Fits api.backend.DisturbanceBackend.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import msgspec

from meshctl.control import cert_faults, detours, process_faults
from meshctl.control.cert_faults import CERT_KIND, CertFaults
from meshctl.control.detours import DETOUR_KINDS, Detours
from meshctl.control.engine import Engine
from meshctl.control.faults import FaultOrder, Faults
from meshctl.control.process_faults import HELD_KINDS, HeldProcesses, describe_return, find_targets, strike
from meshctl.errors import ConflictError, NotFoundError, UsageError
from meshctl.plan.routes import GATEWAY
from meshctl.ports import FaultRecord
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.values import format_duration
from meshctl.wire.disturbances import DisturbRequest, DisturbResult

_LONGEST_DELAY_MS = 60_000.0


class Disturbances:
    """Disturbs services of a running mesh."""

    def __init__(
        self,
        engine: Engine,
        register: Faults,
        *,
        publish: Callable[[FaultRecord], Awaitable[int]],
        find_rollout: Callable[[str], str],
    ) -> None:
        """``publish`` hands sidecars what has changed; ``find_rollout`` tells the rollout of a service, if any."""
        self._engine = engine
        self._register = register
        self.find_rollout = find_rollout
        held, ways = HeldProcesses(engine, register), Detours(engine, register, publish)
        certificates = CertFaults(engine, register, publish)
        register.kinds.update(dict.fromkeys(HELD_KINDS, held))
        register.kinds.update(dict.fromkeys(DETOUR_KINDS, ways))
        register.kinds[CERT_KIND] = certificates
        engine.plan_detours, engine.plan_cuts = ways.plan, ways.cuts
        engine.false_certificates = certificates.services
        engine.renewed_services = certificates.renewed

    async def disturb(self, request: DisturbRequest) -> DisturbResult:
        """Disturb something; returns when it is in effect.

        Raises:
            NotFoundError: there is no such service or instance; says which are.
            UsageError: it cannot be as it is asked for.
            ConflictError: nothing of it runs, a rollout is under way, or a fault of that name is on.
            MeshctlError: it could not be made, and was undone.
        """
        mesh = self._find_mesh()
        start = self._engine.parts.clock.monotonic()
        match request.kind:
            case "kill" | "exit":
                result = await self._strike(request)
            case "pause" | "cpu":
                result = await self._inject(request, self._plan_hold(request))
            case "partition" | "latency":
                result = await self._inject(request, self._plan_detour(request, mesh))
            case "cert-expired":
                result = await self._inject(request, self._plan_certificate(request, mesh))
        return msgspec.structs.replace(result, duration_ms=self._engine.milliseconds_since(start))

    async def _strike(self, request: DisturbRequest) -> DisturbResult:
        views = find_targets(self._engine, request.target)
        self._check_rollouts(request, {view.spec.service for view in views})
        names = [view.spec.id for view in views]
        word = "killed" if request.kind == "kill" else "told to end"
        await strike(self._engine, views, signal.SIGKILL if request.kind == "kill" else signal.SIGTERM)
        return DisturbResult(
            id="",
            kind=request.kind,
            subject=request.target,
            message=f"{word}: {', '.join(names)}",
            instances=names,
            note=describe_return(views),
        )

    async def _inject(self, request: DisturbRequest, order: FaultOrder) -> DisturbResult:
        self._check_rollouts(request, set(order.services))
        record, acked = await self._register.inject(order)
        return DisturbResult(
            id=record.id,
            kind=request.kind,
            subject=record.subject,
            message=f"{record.subject}: {record.summary}",
            ends_at=record.ends_at,
            acked=acked,
            note=self._note(record),
        )

    def _note(self, record: FaultRecord) -> str:
        if record.kind == CERT_KIND:
            return "it is not valid before the deadline, and becomes so by itself"
        mesh = self._engine.mesh
        if record.kind in DETOUR_KINDS and mesh is not None:
            services = [mesh.services.get(callee) for _, callee in detours.read_pairs(record)]
            if any(service is not None and service.protocol == "tcp" for service in services):
                cut = record.kind == "partition"
                return f"connections of plain TCP that are open {'are cut within 5s' if cut else 'go on as they were'}"
        return ""

    # ------------------------------------------------------------------------------------------ what is asked for

    def _plan_hold(self, request: DisturbRequest) -> FaultOrder:
        views = find_targets(self._engine, request.target)
        share = 1.0 if request.kind == "pause" else request.percent / 100
        if request.kind == "cpu" and not 0 < share < 1:
            raise UsageError(
                f"{request.percent:g}% of its time cannot be taken", hint="between 0 and 100; `inject pause` takes all"
            )
        held = {
            name for r in self._register.active() if r.kind in HELD_KINDS for name in process_faults.read_detail(r)[1]
        }
        taken = sorted(held & {view.spec.id for view in views})
        if taken:
            raise ConflictError(f"{', '.join(taken)}: held by a fault already", hint="`meshctl inject list` shows it")
        names = ", ".join(view.spec.id for view in views)
        return _order(
            request,
            subject=names if len(views) == 1 else f"{request.target} ({names})",
            services=tuple(sorted({view.spec.service for view in views})),
            summary="paused" if share >= 1 else f"{share:.0%} of its processor time taken",
            detail=process_faults.write_detail(share, views),
        )

    def _plan_detour(self, request: DisturbRequest, mesh: Mesh) -> FaultOrder:
        if request.kind == "latency":
            target = self._find_service(mesh, request.target)
            if not 0 < request.delay_ms <= _LONGEST_DELAY_MS or not 0 <= request.jitter_ms <= request.delay_ms:
                raise UsageError(
                    f"a delay of {request.delay_ms:g} ms and {request.jitter_ms:g} ms of jitter cannot be",
                    hint="a delay up to 60 s, a jitter up to the delay",
                )
            known = _callers_of(mesh, target)
            if request.source and request.source not in known:
                raise UsageError(
                    f"{request.source} does not call {target.name}", hint=f"its callers: {', '.join(known) or 'none'}"
                )
            callers = [request.source] if request.source else known
            pairs = [(caller, target.name) for caller in callers]
            delay, jitter = request.delay_ms / 1000, request.jitter_ms / 1000
            subject = f"{request.source or 'all'} -> {target.name}"
            spread = f" ± {format_duration(jitter)}" if jitter else ""
            summary = f"bytes come {format_duration(delay)}{spread} late, each way"
            detail = detours.write_detail(pairs, delay=delay, jitter=jitter)
            services: tuple[str, ...] = (target.name,)
        else:
            sides = (request.source, request.target)
            found = {name: self._find_service(mesh, name) for name in sides if name != GATEWAY or mesh.gateway is None}
            asked = [sides] if request.one_way else [sides, sides[::-1]]
            pairs = [(one, two) for one, two in asked if two in found and one in _callers_of(mesh, found[two])]
            subject = f" {'->' if request.one_way else '<->'} ".join(sides)
            summary, services = "nothing passes", tuple(sorted(found))
            detail = detours.write_detail(pairs, drop=True)
        if not pairs:
            one_way = request.kind == "latency" or request.one_way
            reason = "nobody calls it so" if one_way else "neither calls the other"
            raise ConflictError(f"{subject}: {reason}", hint="`meshctl edges` shows who calls whom")
        ways = {way for pair in pairs for way in self._ways(mesh, *pair)}
        taken = set(self._engine.plan_detours()) & ways
        if taken:
            caller, instance = min(taken)
            raise ConflictError(
                f"the way from {caller} to {instance} is disturbed already", hint="clear that fault first"
            )
        return _order(request, subject=subject, services=services, summary=summary, detail=detail)

    def _plan_certificate(self, request: DisturbRequest, mesh: Mesh) -> FaultOrder:
        service = self._find_service(mesh, request.target)
        if service.policies.security.mtls == "off":
            raise ConflictError(f"{service.name} is reached in plain text: nobody looks at its certificate")
        if service.name in self._engine.false_certificates():
            raise ConflictError(f"{service.name} has a certificate that is not valid already")
        return _order(
            request,
            subject=service.name,
            services=(service.name,),
            summary="its certificate is not valid: peers refuse it",
            detail=cert_faults.write_detail(service.name),
        )

    def _ways(self, mesh: Mesh, caller: str, callee: str) -> list[tuple[str, str]]:
        found = [item for item in self._engine.facts(mesh).instances if item.service == callee]
        if not found:
            raise ConflictError(f"no instance of {callee} runs here", hint="`meshctl status` shows what does")
        return [(caller, item.id) for item in sorted(found, key=lambda item: item.id)]

    def _find_service(self, mesh: Mesh, name: str) -> Service:
        service = mesh.services.get(name)
        if service is None:
            known = ", ".join(sorted(mesh.services))
            raise NotFoundError(f"there is no service {name}", hint=f"services: {known}")
        if service.address is not None or service.is_job:
            why = "lies outside the mesh" if service.address is not None else "is a job"
            raise ConflictError(f"{name} {why}: it cannot be disturbed so", hint="`meshctl inject fault` may do")
        return service

    def _check_rollouts(self, request: DisturbRequest, services: set[str]) -> None:
        for service in sorted(services):
            rollout = self.find_rollout(service)
            if rollout and not request.force:
                raise ConflictError(rollout, hint="a fault would be held against it: wait for its end, or add --force")

    def _find_mesh(self) -> Mesh:
        mesh = self._engine.mesh
        if mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return mesh


def _order(
    request: DisturbRequest, *, subject: str, services: tuple[str, ...], summary: str, detail: str
) -> FaultOrder:
    return FaultOrder(
        kind=request.kind,
        subject=subject,
        services=services,
        summary=summary,
        detail=detail,
        duration=request.duration,
        author=request.author,
        reason=request.reason,
        id=request.name,
    )


def _callers_of(mesh: Mesh, target: Service) -> list[str]:
    callers = [service.name for service in mesh.services.values() if target.name in service.upstreams]
    routed = mesh.gateway is not None and any(route.service == target.name for route in mesh.gateway.routes)
    return sorted([*callers, *([GATEWAY] if routed else [])])
