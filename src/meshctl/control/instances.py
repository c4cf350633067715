"""Instances: how many there are, which are restarted, which are registered.  I/O; fits api.backend.InstanceBackend.

Every method returns when what it asks for is in effect: acknowledged by every sidecar concerned, or it raises.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re

from meshctl.control.engine import Engine
from meshctl.control.failures import Failures
from meshctl.control.readiness import find_waiting
from meshctl.errors import ConflictError, NotFoundError, StartError, UsageError, WaitTimeoutError
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.registrations import deregister, heartbeat, register
from meshctl.plan.addresses import LOOPBACK
from meshctl.ports import Registration
from meshctl.spec.keys import SERVICE_NAME, VERSION_NAME
from meshctl.spec.validate import RESERVED
from meshctl.wire.models import AppliedResult, RegisterRequest, RegisterResult, RestartRequest, ScaleRequest

_ACK_TIMEOUT = 10.0
_SETTLE_TIMEOUT = 60.0


class Instances:
    """The instances of a running mesh."""

    def __init__(self, engine: Engine, failures: Failures) -> None:
        """``failures`` tells why an instance did not come up."""
        self._engine = engine
        self._failures = failures

    async def scale(self, request: ScaleRequest) -> AppliedResult:
        """Set the number of instances of a version; returns when they are up, or gone."""
        if not 0 <= request.replicas <= 100:
            raise UsageError(f"{request.replicas} instances are not between 0 and 100")
        engine, start = self._engine, self._engine.parts.clock.monotonic()
        async with engine.changing:
            self._engine.refuse_while_stopping()
            version = engine.parts.topology.set_replicas(
                request.service, request.version, request.replicas, in_use=engine.ports_in_use
            )
            plural = "" if request.replicas == 1 else "s"
            number = f"{request.replicas} instance{plural}"
            message = f"{request.service}: {version} is to have {number}"
            engine.parts.events.add("service.scaled", request.service, message)
            await engine.apply()
        await self._settle(frozenset({request.service}))
        return await self._applied(f"{request.service}/{version}: {number}", start)

    async def restart(self, request: RestartRequest) -> AppliedResult:
        """Restart instances one after another; returns when each is ready again."""
        engine, start = self._engine, self._engine.parts.clock.monotonic()
        self._engine.refuse_while_stopping()
        ids = self._find_instances(request.targets)
        views = engine.parts.supervisor.views()
        services = frozenset(views[name].spec.service for name in ids)
        # They come one after the other, and each may take its time to stop and to start.
        limit = sum(_SETTLE_TIMEOUT + views[name].spec.stop_grace for name in ids)
        engine.parts.events.add("service.restarting", ",".join(ids), f"restarting {', '.join(ids)}, as was asked for")
        try:
            async with asyncio.timeout(limit):
                await engine.parts.supervisor.restart(ids)
        except TimeoutError:
            raise self._late(limit, services) from None
        await self._settle(services)
        return await self._applied(f"restarted {', '.join(ids)}", start)

    async def register(self, request: RegisterRequest) -> RegisterResult:
        """Take in an instance that somebody else runs."""
        host, port = _parse_address(request.address)
        self._check_names(request.service, request.version)
        if request.ttl is not None and request.ttl <= 0:
            raise UsageError("a time to live must be positive", hint="for example --ttl 30s")
        engine = self._engine
        async with engine.changing:
            self._engine.refuse_while_stopping()
            topology = engine.parts.topology
            left, made = register(
                topology.registrations,
                request.service,
                host=host,
                port=port,
                version=request.version or "v1",
                ttl=request.ttl,
                now=engine.parts.clock.now(),
            )
            known = made.id in {item.id for item in topology.registrations}
            topology.set_registrations(left, in_use=engine.ports_in_use)
            if not known:
                engine.parts.events.add("instance.registered", made.id, f"{made.id} registered at {host}:{port}")
                await engine.apply()
        return _registered(made)

    async def heartbeat(self, registration_id: str) -> RegisterResult:
        """Renew a registration's time to live."""
        engine = self._engine
        async with engine.changing:
            topology = engine.parts.topology
            left, renewed = heartbeat(topology.registrations, registration_id, now=engine.parts.clock.now())
            topology.renew_registrations(left)
        return _registered(renewed)

    async def deregister(self, registration_id: str) -> AppliedResult:
        """Take a registered instance out; returns when no caller has it any more."""
        engine, start = self._engine, self._engine.parts.clock.monotonic()
        async with engine.changing:
            self._engine.refuse_while_stopping()
            topology = engine.parts.topology
            left = deregister(topology.registrations, registration_id)
            topology.set_registrations(left, in_use=engine.ports_in_use)
            engine.parts.events.add("instance.deregistered", registration_id, f"{registration_id} deregistered")
            await engine.apply()
        return await self._applied(f"{registration_id} deregistered", start)

    # ------------------------------------------------------------------------------------------ helpers

    async def _settle(self, services: frozenset[str]) -> None:
        """Return when some services are up, whatever the others do."""
        engine = self._engine

        def failed() -> list[InstanceView]:
            return [view for view in self._failures.find() if view.spec.service in services]

        def waits() -> bool:
            seen = engine.observe()
            return not engine.is_settled or seen is None or bool(find_waiting(seen, services))

        try:
            async with asyncio.timeout(_SETTLE_TIMEOUT):
                await engine.wait_for(lambda: engine.stopping or bool(failed()) or not waits())
        except TimeoutError:
            raise self._late(_SETTLE_TIMEOUT, services) from None
        self._engine.refuse_while_stopping()
        for view in failed():
            first = await self._failures.explain(view)
            raise StartError(
                f"{first.name}: {first.message}", hint=f"its log: {first.log}", detail="\n".join(first.tail)
            )

    def _late(self, seconds: float, services: frozenset[str]) -> WaitTimeoutError:
        seen = self._engine.observe()
        waiting = find_waiting(seen, services) if seen is not None else ()
        return WaitTimeoutError(
            f"after {seconds:g} s still waiting for {'; '.join(waiting) or 'the end of it'}",
            hint="it goes on; `meshctl status` shows how far it is",
        )

    async def _applied(self, message: str, start: float) -> AppliedResult:
        acked = await self._engine.publish_and_wait(_ACK_TIMEOUT)
        return AppliedResult(
            message=message, acked=acked, total=acked, duration_ms=self._engine.milliseconds_since(start)
        )

    def _check_names(self, service: str, version: str) -> None:
        mesh = self._engine.mesh
        if mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        if not re.fullmatch(SERVICE_NAME.pattern, service):
            raise UsageError(f"{service!r} cannot be a service's name", hint="use a-z, 0-9 and -, at most 40")
        if service in RESERVED:
            raise UsageError(f"{service!r} cannot be a service's name: the mesh uses it itself")
        if version and not re.fullmatch(VERSION_NAME.pattern, version):
            raise UsageError(f"{version!r} cannot be a version's name", hint="use a-z, 0-9, - and ., at most 24")
        found = mesh.services.get(service)
        if found is not None and (found.address is not None or found.is_job):
            kind = "lies outside the mesh" if found.address is not None else "is a job"
            raise ConflictError(f"{service} {kind}: it has no instances to register")

    def _find_instances(self, targets: list[str]) -> tuple[str, ...]:
        views = self._engine.parts.supervisor.views()
        services = {v.spec.id: v.spec.service for v in views.values() if v.spec.kind != "sidecar" and not v.removed}
        if not targets:
            return tuple(sorted(services))
        chosen: list[str] = []
        for target in targets:
            matching = sorted(name for name, service in services.items() if target in (name, service))
            if not matching:
                known = ", ".join(sorted({*services, *services.values()}))
                raise NotFoundError(f"nothing to restart is called {target}", hint=f"services and instances: {known}")
            chosen += [name for name in matching if name not in chosen]
        return tuple(chosen)


def _registered(item: Registration) -> RegisterResult:
    return RegisterResult(id=item.id, service=item.service, version=item.version, expires_at=item.expires_at)


def _parse_address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    host = host.strip("[]") or LOOPBACK
    if not separator or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"{text!r} is no address", hint="for example 127.0.0.1:9000")
    if host == "localhost":
        host = LOOPBACK
    try:
        # Sidecars are given addresses and no names: what a name means would be asked once and never again.
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        hint = "give the IP address itself; a service with a name is declared by `address` in the topology"
        raise UsageError(f"{host!r} is no IP address", hint=hint) from None
