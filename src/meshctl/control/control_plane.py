"""What the API asks of a running mesh, verb by verb.  I/O; fits api.backend.Backend.

A verb that changes something returns when that is in effect: acknowledged by every sidecar concerned, or it raises.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

from meshctl.control.authorization import Authorization
from meshctl.control.circuits import Circuits
from meshctl.control.declared_rollouts import DeclaredRollouts
from meshctl.control.disturbances import Disturbances
from meshctl.control.engine import Engine
from meshctl.control.failures import Failures
from meshctl.control.faults import Faults
from meshctl.control.instances import Instances
from meshctl.control.metrics import MetricsDesk
from meshctl.control.observe import gateway_status, service_statuses
from meshctl.control.policies import EnvoyCheck, Policies, accept_all
from meshctl.control.proxies import list_proxies, read_proxy_config
from meshctl.control.readiness import find_waiting, mesh_state
from meshctl.control.request_faults import RequestFaults
from meshctl.control.revisions import Stamp
from meshctl.control.rollout_desk import RolloutDesk
from meshctl.control.rollouts import Rollouts
from meshctl.control.shifting import Shifts
from meshctl.control.taps import Taps
from meshctl.control.tracing import MakeForwarder, SpanReceiver, Tracing
from meshctl.errors import NotFoundError, UsageError
from meshctl.plan.addresses import LOOPBACK, outbound_key
from meshctl.plan.diff import describe_changes
from meshctl.plan.routes import GATEWAY
from meshctl.ports import CircuitFiles, LogReader, SourceFile, StateStore, TopologySource
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
    RotateRequest,
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
        receiver: SpanReceiver,
        make_forwarder: MakeForwarder,
        store: StateStore,
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
        self._failures = Failures(engine, logs)
        self.instances = Instances(engine, self._failures)
        self.shifts = Shifts(engine, self.policies, self._failures)
        self.rollout_runner = Rollouts(engine, self.shifts, self.metrics)
        self.rollouts = RolloutDesk(engine, self.rollout_runner, self.metrics)
        self.declared = DeclaredRollouts(engine, self.rollout_runner)
        self.policies.find_rollout = self.rollout_runner.describe
        self.fault_register = Faults(engine, store)
        self.faults = RequestFaults(engine, self.fault_register)
        self.faults.find_rollout = self.shifts.find_rollout
        self.rollout_runner.find_fault = self.fault_register.describe
        self.disturbances = Disturbances(
            engine, self.fault_register, publish=self.faults.begin, find_rollout=self.shifts.find_rollout
        )
        self.policies.list_disturbances = self.faults.list_others
        self.taps = Taps(engine)
        engine.plan_taps = self.taps.plan
        self.tracing = Tracing(engine, receiver=receiver, make_forwarder=make_forwarder)
        engine.plan_sampling = self.tracing.shares
        self._logs = logs
        self._daemon_pid = daemon_pid
        self._on_down = on_down
        self._started_at = engine.parts.clock.now()
        self._was_ready = False
        self._generation = self._told_ready = 0

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
            services=list(self.rollouts.mark(service_statuses(seen))),
            faults=self.faults.list().faults,
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
            self._engine.refuse_while_stopping()
            topology = engine.parts.topology
            before, declared = topology.mesh, topology.declared
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
            self._failures.since = engine.parts.clock.now()
            await engine.apply()
            assert topology.declared is not None
            follow = self.faults.follow(declared if running else None, topology.declared)
            engine.spawn("faults", follow)
            self.policies.changer.resume()
            # What failed or was refused is given another chance: its reason may have gone, though no file changed.
            retried = engine.parts.supervisor.retry() if running else ()
            for node in sorted(engine.nodes):
                if engine.parts.sync(node).state == "rejected":
                    engine.parts.retry_rejected(node)
            changes += tuple(f"{name}: started again, after it had failed" for name in retried)
            self._generation += 1
            changes += self.declared.announce(request.author, self._is_up)
            for line in changes:
                engine.parts.events.add("topology.changed", line.partition(":")[0], line)
            differs, notes = self.declared.explain(differs)
        return UpResult(changes=list(changes), generation=self._generation, differs=list(differs), notes=list(notes))

    async def begin(self) -> None:
        """Take over what an earlier control plane left under way, and begin what goes on by itself."""
        engine = self._engine
        self.policies.changer.resume()
        engine.spawn("circuits", self.circuits.run())
        engine.spawn("rollouts", self.rollout_runner.run())
        await self.fault_register.take_over()
        engine.spawn("faults", self.fault_register.run())
        engine.spawn("fault leases", self.faults.run())

    async def ready(self, timeout: float | None) -> ReadyResult:
        """Wait until everything is ready and every sidecar synced, something failed, or time ran out."""
        try:
            async with asyncio.timeout(timeout):
                await self._engine.wait_for(lambda: self._engine.stopping or self._is_ready() or self._has_failed())
        except TimeoutError:
            seen = self._engine.observe()
            waiting = list(find_waiting(seen)) if seen is not None else ["no topology was applied"]
            return ReadyResult(state="timeout", failures=[], waiting=waiting)
        self._engine.refuse_while_stopping()
        failed = self._failures.find()
        if failed:
            failures = [await self._failures.explain(view) for view in failed]
            return ReadyResult(state="failed", failures=failures, waiting=[])
        self._was_ready = True
        self._tell_ready()
        return ReadyResult(state="ready", failures=[], waiting=[])

    async def down(self, force: bool) -> None:  # noqa: FBT001 - as the API has it
        """Stop everything; return when nothing is left."""
        # First, or what is paused by a fault would not hear that it is to stop.
        await self.fault_register.end_all("the mesh goes down")
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
        return msgspec.structs.replace(applied, message=message, duration_ms=self._engine.milliseconds_since(start))

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

    def _tell_ready(self) -> None:
        # Once for each `up`, however many wait for it.
        mesh = self._engine.mesh
        if mesh is not None and self._told_ready != self._generation:
            self._told_ready = self._generation
            self._engine.parts.events.add("mesh.ready", "mesh", f"{mesh.name} is ready")

    def _has_failed(self) -> bool:
        return bool(self._failures.find())

    def _is_ready(self) -> bool:
        # Whoever waits finds the rollouts that the topology names under way.
        return self.declared.begun and self._is_up()

    def _is_up(self) -> bool:
        seen = self._engine.observe()
        return seen is not None and self._engine.is_settled and not find_waiting(seen)

    def _widen(self, services: list[str], *, running: bool) -> tuple[str, ...]:
        # `up SERVICE` on a running mesh adds to what runs; `up` alone asks for everything.
        selection = self._engine.parts.topology.selection
        if not services:
            return ()
        if running and not selection:
            return ()
        return tuple(sorted({*services, *(selection if running else ())}))

    def _check_node(self, node: str) -> None:
        if node not in self._engine.nodes:
            known = ", ".join(sorted(self._engine.nodes))
            raise NotFoundError(f"no sidecar {node} in this mesh", hint=f"sidecars: {known}")

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
