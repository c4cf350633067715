"""What the API asks of a running mesh, verb by verb.  I/O; fits api.backend.Backend.

A verb that changes something returns when that is in effect: acknowledged by every sidecar concerned, or it raises.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

from meshctl.control.authorization import Authorization
from meshctl.control.circuits import Circuits
from meshctl.control.engine import Engine
from meshctl.control.metrics import MetricsDesk
from meshctl.control.observe import gateway_status, service_statuses
from meshctl.control.policies import EnvoyCheck, Policies, accept_all
from meshctl.control.proxies import list_proxies, read_proxy_config
from meshctl.control.readiness import find_failed, find_waiting, mesh_state
from meshctl.control.revisions import Stamp
from meshctl.errors import ConflictError, NotFoundError, StartError, UsageError, WaitTimeoutError
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.registrations import deregister, heartbeat, register
from meshctl.plan.addresses import LOOPBACK, outbound_key
from meshctl.plan.diff import describe_changes
from meshctl.plan.routes import GATEWAY
from meshctl.ports import CircuitFiles, LogReader, Registration, SourceFile, TopologySource
from meshctl.spec.keys import SERVICE_NAME, VERSION_NAME
from meshctl.spec.validate import RESERVED
from meshctl.wire.metrics import Metrics
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
    StartFailure,
    UpRequest,
    UpResult,
)

_ACK_TIMEOUT = 10.0
_SETTLE_TIMEOUT = 60.0
_TAIL = 10


class ControlPlane:
    """The control plane of one mesh."""

    def __init__(
        self,
        engine: Engine,
        *,
        logs: LogReader,
        circuit_files: CircuitFiles,
        daemon_pid: int,
        on_down: Callable[[], None],
        check_envoy: EnvoyCheck = accept_all,
    ) -> None:
        """``on_down`` is called when everything has been stopped, to end the daemon; ``check_envoy`` has Envoy look at
        configuration that no sidecar is to have yet.
        """
        self._engine = engine
        self.authorization = Authorization(engine)
        self.policies = Policies(engine, check_envoy)
        self.circuits = Circuits(engine, self.policies.changer, circuit_files)
        self.metrics = MetricsDesk(engine, circuits=self.circuits.states)
        self._logs = logs
        self._daemon_pid = daemon_pid
        self._on_down = on_down
        self._started_at = engine.parts.clock.now()
        self._was_ready = False
        self._generation = 0
        # Output of earlier runs is not this one's failure.
        self._up_at = self._started_at

    # ------------------------------------------------------------------------------------------ up, ready, down

    def status(self) -> MeshStatus:
        """The whole mesh as it is now."""
        parts, seen = self._engine.parts, self._engine.observe()
        source = parts.topology.source
        if seen is None:
            return MeshStatus(
                mesh="",
                state="stopping" if self._engine.stopping else "starting",
                directory=parts.paths.directory,
                files=[],
                daemon_pid=self._daemon_pid,
                started_at=self._started_at,
                gateway=None,
                services=[],
            )
        state = mesh_state(seen, was_ready=self._was_ready, stopping=self._engine.stopping)
        self._was_ready = self._was_ready or state == "ready"
        return MeshStatus(
            mesh=seen.mesh.name,
            state=state,
            directory=parts.paths.directory,
            files=[file.path for file in source.files] if source else [],
            daemon_pid=self._daemon_pid,
            started_at=self._started_at,
            gateway=gateway_status(seen),
            services=service_statuses(seen),
        )

    def get_metrics(self, service: str = "", version: str = "", window: float = 10.0) -> Metrics:
        """The golden signals of a window of so many seconds that ends now; see MetricsDesk."""
        return self.metrics.get(service, version, window)

    async def up(self, request: UpRequest) -> UpResult:
        """Commit a topology and begin to bring it into effect."""
        engine = self._engine
        files = tuple(SourceFile(path=f.path, directory=f.directory, text=f.text) for f in request.files)
        source = TopologySource(files=files, variables=dict(request.variables))
        async with self.policies.changer.lock, engine.changing:
            self._refuse_while_stopping()
            topology = engine.parts.topology
            before = topology.mesh
            running = before is not None and bool(engine.parts.supervisor.views())
            differs = topology.replace(
                source,
                self._widen(request.services, running=running),
                in_use=engine.ports_in_use,
                stamp=Stamp(author=request.author, time=engine.parts.clock.now()),
                reset=request.reset,
            )
            after = topology.mesh
            assert after is not None
            changes = describe_changes(before if running else None, after)
            self._up_at = engine.parts.clock.now()
            await engine.apply()
            self.policies.changer.resume()
            # What failed or was refused is given another chance: its reason may have gone, though no file changed.
            retried = engine.parts.supervisor.retry() if running else ()
            for node in sorted(engine.nodes):
                if engine.parts.sync(node).state == "rejected":
                    engine.parts.retry_rejected(node)
            changes += tuple(f"{name}: started again, after it had failed" for name in retried)
            self._generation += 1
            for line in changes:
                engine.parts.events.add("topology.changed", line.partition(":")[0], line)
        return UpResult(changes=list(changes), generation=self._generation, differs=list(differs))

    async def ready(self, timeout: float | None) -> ReadyResult:
        """Wait until everything is ready and every sidecar synced, something failed, or time ran out."""
        try:
            async with asyncio.timeout(timeout):
                await self._engine.wait_for(lambda: self._engine.stopping or self._is_up() or bool(self._failed()))
        except TimeoutError:
            seen = self._engine.observe()
            waiting = list(find_waiting(seen)) if seen is not None else ["no topology was applied"]
            return ReadyResult(state="timeout", failures=[], waiting=waiting)
        self._refuse_while_stopping()
        failed = self._failed()
        if failed:
            failures = [await self._explain_failure(view) for view in failed]
            return ReadyResult(state="failed", failures=failures, waiting=[])
        self._was_ready = True
        return ReadyResult(state="ready", failures=[], waiting=[])

    async def down(self, force: bool) -> None:  # noqa: FBT001 - as the API has it
        """Stop everything; return when nothing is left."""
        await self._engine.stop(force=force)
        self._engine.parts.events.close()
        self._on_down()

    # ------------------------------------------------------------------------------------------ what happened

    def events(self, since: int | None, follow: bool) -> AsyncIterator[Event]:  # noqa: FBT001 - as the API has it
        """Events after number ``since``, then those to come."""
        return self._engine.parts.events.read(since, follow=follow)

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
        """Captured lines, merged by time, then those to come."""
        try:
            pattern = re.compile(grep) if grep else None
        except re.error as error:
            raise UsageError(f"--grep is not a regular expression: {error}") from error
        self._log_paths(sources, sidecars=sidecars, strict=True)
        lines = self._logs(
            lambda: self._log_paths(sources, sidecars=sidecars, strict=False),
            tail=tail,
            since=since,
            until=until,
            grep=pattern,
            follow=follow,
        )
        async for entry in lines:
            line = entry.line
            yield LogLine(source=entry.source, time=line.time, stream=line.stream, text=line.text)

    # ------------------------------------------------------------------------------------------ instances

    async def scale(self, request: ScaleRequest) -> AppliedResult:
        """Set the number of instances of a version; returns when they are up, or gone."""
        if not 0 <= request.replicas <= 100:
            raise UsageError(f"{request.replicas} instances are not between 0 and 100")
        engine, start = self._engine, self._engine.parts.clock.monotonic()
        async with engine.changing:
            self._refuse_while_stopping()
            version = engine.parts.topology.set_replicas(
                request.service, request.version, request.replicas, in_use=engine.ports_in_use
            )
            await engine.apply()
        await self._settle(frozenset({request.service}))
        plural = "" if request.replicas == 1 else "s"
        return await self._applied(f"{request.service}/{version}: {request.replicas} instance{plural}", start)

    async def restart(self, request: RestartRequest) -> AppliedResult:
        """Restart instances one after another; returns when each is ready again."""
        engine, start = self._engine, self._engine.parts.clock.monotonic()
        self._refuse_while_stopping()
        ids = self._find_instances(request.targets)
        views = engine.parts.supervisor.views()
        services = frozenset(views[name].spec.service for name in ids)
        # They come one after the other, and each may take its time to stop and to start.
        limit = sum(_SETTLE_TIMEOUT + views[name].spec.stop_grace for name in ids)
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
            self._refuse_while_stopping()
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
            self._refuse_while_stopping()
            topology = engine.parts.topology
            left = deregister(topology.registrations, registration_id)
            topology.set_registrations(left, in_use=engine.ports_in_use)
            engine.parts.events.add("instance.deregistered", registration_id, f"{registration_id} deregistered")
            await engine.apply()
        return await self._applied(f"{registration_id} deregistered", start)

    # ------------------------------------------------------------------------------------------ certificates, proxies

    def certificates(self) -> CertificateList:
        """All certificates of the mesh."""
        mesh = self._engine.mesh
        return CertificateList(
            trust_domain=mesh.trust_domain if mesh is not None else "",
            certificates=list(self._engine.identity.runner.list()),
        )

    async def rotate(self, request: RotateRequest) -> AppliedResult:
        """Issue anew: one leaf, every leaf, or the root."""
        engine, start = self._engine, self._engine.parts.clock.monotonic()
        if request.service and request.service not in engine.nodes:
            raise NotFoundError(f"no sidecar {request.service}", hint=f"sidecars: {', '.join(sorted(engine.nodes))}")
        if request.root:
            applied = await engine.identity.runner.rotate_root()
            message = "rotated the root and every certificate"
        else:
            applied = await engine.identity.runner.rotate(request.service or None)
            message = f"rotated {request.service or 'every certificate'}"
        return msgspec.structs.replace(applied, message=message, duration_ms=self._milliseconds_since(start))

    async def verify_certificates(self) -> CertificateReport:
        """Check files, chains, and what each sidecar really serves."""
        return await self._engine.identity.runner.verify()

    def proxy_status(self) -> ProxyStatusList:
        """The sync state of every sidecar."""
        return list_proxies(sorted(self._engine.nodes), self._engine.parts.sync)

    async def proxy_config(self, sidecar: str, kind: str) -> ProxyConfig:
        """What a sidecar has of one kind, as Envoy says itself."""
        self._check_node(sidecar)
        parts = self._engine.parts
        return await read_proxy_config(parts.admin, parts.paths.admin_socket(sidecar), sidecar, kind)

    def call_target(self, source: str) -> CallTarget:
        """Where to connect to send a request as a service would."""
        source = source or GATEWAY
        self._check_node(source)
        if source == GATEWAY:
            return CallTarget(source=source, socket=self._engine.parts.paths.gateway_pipe, host="", port=0)
        port = self._engine.parts.topology.ports[outbound_key(source)]
        return CallTarget(source=source, socket="", host=LOOPBACK, port=port)

    # ------------------------------------------------------------------------------------------ helpers

    def _is_up(self) -> bool:
        seen = self._engine.observe()
        return seen is not None and self._engine.is_settled and not find_waiting(seen)

    def _failed(self) -> tuple[InstanceView, ...]:
        return find_failed(self._engine.parts.supervisor.views())

    async def _explain_failure(self, view: InstanceView) -> StartFailure:
        path = self._engine.parts.paths.log(view.spec.id)
        entries = self._logs(
            lambda: {view.spec.id: path}, tail=_TAIL, since=self._up_at, until=None, grep=None, follow=False
        )
        return StartFailure(
            name=view.spec.id,
            message=view.state.reason,
            exit_code=view.state.exit_code,
            log=path,
            tail=[entry.line.text async for entry in entries],
        )

    async def _settle(self, services: frozenset[str]) -> None:
        """Return when some services are up, whatever the others do."""
        engine = self._engine

        def failed() -> list[InstanceView]:
            return [view for view in self._failed() if view.spec.service in services]

        def waits() -> bool:
            seen = engine.observe()
            return not engine.is_settled or seen is None or bool(find_waiting(seen, services))

        try:
            async with asyncio.timeout(_SETTLE_TIMEOUT):
                await engine.wait_for(lambda: engine.stopping or bool(failed()) or not waits())
        except TimeoutError:
            raise self._late(_SETTLE_TIMEOUT, services) from None
        self._refuse_while_stopping()
        for view in failed():
            first = await self._explain_failure(view)
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
        return AppliedResult(message=message, acked=acked, total=acked, duration_ms=self._milliseconds_since(start))

    def _milliseconds_since(self, start: float) -> float:
        return round((self._engine.parts.clock.monotonic() - start) * 1000, 1)

    def _widen(self, services: list[str], *, running: bool) -> tuple[str, ...]:
        # `up SERVICE` on a running mesh adds to what runs; `up` alone asks for everything.
        selection = self._engine.parts.topology.selection
        if not services:
            return ()
        if running and not selection:
            return ()
        return tuple(sorted({*services, *(selection if running else ())}))

    def _refuse_while_stopping(self) -> None:
        if self._engine.stopping:
            raise ConflictError("the mesh is being stopped", hint="wait until it has ended, then run: meshctl up")

    def _check_node(self, node: str) -> None:
        if node not in self._engine.nodes:
            known = ", ".join(sorted(self._engine.nodes))
            raise NotFoundError(f"no sidecar {node} in this mesh", hint=f"sidecars: {known}")

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

    def _log_paths(self, sources: list[str], *, sidecars: bool, strict: bool) -> Mapping[str, str]:
        paths = self._engine.parts.paths
        known: dict[str, set[str]] = {}
        for name, view in self._engine.parts.supervisor.views().items():
            if view.spec.kind != "sidecar" or sidecars or name in sources:
                known[name] = {name, view.spec.service}
        if sidecars or "daemon" in sources:
            known["daemon"] = {"daemon"}
        chosen = {name: paths.log(name) for name, names in sorted(known.items()) if not sources or names & set(sources)}
        if strict and sources:
            answered: set[str] = set().union(*(known[name] for name in chosen)) if chosen else set()
            missing = [name for name in sources if name not in answered]
            if missing:
                names = ", ".join(sorted(set().union(*known.values()))) if known else "none"
                raise NotFoundError(f"nothing is called {', '.join(missing)}", hint=f"there are: {names}")
        return chosen


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
