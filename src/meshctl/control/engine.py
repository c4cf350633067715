"""Keeps what runs equal to what is meant to run: processes by the supervisor, configuration by the publisher.  I/O.

One loop turns every change (an instance became healthy, a registration expired, the topology was replaced) into facts,
a plan, and what each sidecar is sent of it.  Changes that come together are published together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from meshctl.control.bootstraps import Bootstraps
from meshctl.control.checks import Checks
from meshctl.control.draining import drain_gateway
from meshctl.control.identity import MeshIdentity
from meshctl.control.observe import Observed, instance_facts
from meshctl.control.parts import Parts
from meshctl.control.taken_ports import TakenPorts
from meshctl.control.transports import Transports
from meshctl.errors import ConflictError, MeshctlError
from meshctl.lifecycle.model import InstanceSpec
from meshctl.lifecycle.order import find_stop_levels
from meshctl.lifecycle.registrations import expire, next_expiry
from meshctl.lifecycle.specs import build_specs, sidecar_name
from meshctl.plan.addresses import COLLECTOR_KEY, app_key, inbound_key, outbound_key, upstream_key
from meshctl.plan.build import build
from meshctl.plan.facts import ActiveFault, Facts
from meshctl.plan.model import MeshPlan
from meshctl.plan.policies.telemetry import TapPlan
from meshctl.plan.routes import GATEWAY
from meshctl.spec.schema import Mesh
from meshctl.tasks import TaskBag

DRAIN_ACK_TIMEOUT = 3.0
"""Seconds for callers' sidecars to acknowledge that an instance is gone."""

DRAIN_REQUESTS_TIMEOUT = 5.0
"""Seconds for an instance to finish the requests it is working on, once no more come."""

_DRAIN_POLL = 0.02
_CHECK_EXPIRY = 1.0
_RETRY_PUBLISH = 1.0


class Engine:
    """The running mesh. Its parts call back into it, so it is made first and given them by ``attach``."""

    def __init__(self) -> None:
        self._parts: Parts | None = None
        self._dirty = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: TaskBag | None = None
        self._identity: MeshIdentity | None = None
        self._bootstraps: Bootstraps | None = None
        self.checks = Checks(lambda: self.parts, self.mark_dirty)
        self.transports = Transports()
        self._stop: asyncio.Task[None] | None = None
        self.plan_sampling: Callable[[], Mapping[str, int]] = dict  # set by whoever decides of what spans are made
        self.plan_taps: Callable[[Mesh], Mapping[str, TapPlan]] = lambda _mesh: {}  # set by those who tap sidecars
        self.plan_faults: Callable[[], tuple[ActiveFault, ...]] = lambda: ()  # set by those who make faults
        self.plan_detours: Callable[[], Mapping[tuple[str, str], int]] = dict  # as above
        self.plan_cuts: Callable[[], Mapping[tuple[str, str], str]] = dict  # as above
        self.false_certificates: Callable[[], frozenset[str]] = frozenset  # services that keep an invalid one
        self.renewed_services: Callable[[], frozenset[str]] = frozenset  # whose connections are made anew
        self.changing = asyncio.Lock()
        # Held for one change of the topology at a time.
        self.stopping = False
        self.stopped = False

    @property
    def parts(self) -> Parts:
        """The parts, once attached."""
        assert self._parts is not None, "attach comes first"
        return self._parts

    def attach(self, parts: Parts) -> None:
        """Give the engine what it drives."""
        self._parts = parts
        self._bootstraps = Bootstraps(parts.paths)
        self._tasks = TaskBag(self.report_bug)

    # ------------------------------------------------------------------------------------------ starting, stopping

    async def start(self, *, teardown: bool = False) -> None:
        """Begin to drive; takes up what an earlier control plane left running, without a lost request.

        With ``teardown`` nothing is started: what runs is taken up to be stopped.
        """
        parts = self.parts
        # With nothing running there is nothing to take over: the next `up` says what to start.
        takes_over = bool(await parts.host.running()) and self._restore()
        if takes_over and not teardown:
            # The crash may have come between the commit of a topology and what it needs.
            self._prepare()
        await parts.supervisor.adopt(self._specs() if takes_over else {}, only_running=teardown)
        assert self._tasks is not None
        self._tasks.spawn("supervisor", parts.supervisor.run())
        if teardown:
            return
        if takes_over:
            # What Envoy says of each instance has to be known before anything is published, or instances that
            # serve would leave their callers' endpoints for a moment.
            await parts.health.read()
            self.publish()
            parts.events.add("mesh.adopted", "mesh", f"took over {len(parts.supervisor.views())} processes")
        self._tasks.spawn("refresh", self._refresh_forever())
        self._tasks.spawn("health", parts.health.run())
        self._tasks.spawn("metrics", parts.metrics.reader.run())
        self._tasks.spawn("exporter", parts.metrics.exporter.run())
        self._tasks.spawn("registrations", self._expire_forever())
        taken = TakenPorts(
            nodes=self.running_versions,
            sync=parts.sync,
            probe=parts.topology.probe,
            retry=parts.retry_rejected,
            report=self._report_taken_port,
        )
        self._tasks.spawn("taken ports", taken.run())

    async def apply(self) -> None:
        """Bring the topology into effect: certificates, sidecars, instances, configuration."""
        if self.mesh is None or self.stopping:
            return
        self.checks.keep(frozenset(item.id for item in self.parts.topology.registrations))
        self._prepare()
        self.parts.supervisor.reconcile(self._specs())
        self.instance_changed()

    async def stop(self, *, force: bool) -> None:
        """Stop every process; return when none is left. With ``force``, a stop under way becomes a kill."""
        assert self._tasks is not None
        if self._stop is None or (self._stop.done() and not self.stopped):
            self._stop = self._tasks.spawn("stop", self._stop_everything(force=force))
        elif force:
            self.parts.supervisor.force()
        # Whoever asks goes away when they like: what was begun is brought to its end.
        await asyncio.shield(self._stop)

    async def _stop_everything(self, *, force: bool) -> None:
        parts = self.parts
        self.stopping = True
        parts.events.add("mesh.stopping", "mesh", "stopping every service" if not force else "killing every service")
        self._changed.set()
        try:
            specs = [view.spec for view in parts.supervisor.views().values()]
            levels = find_stop_levels([spec for spec in specs if spec.id != GATEWAY])
            # The gateway goes first: nothing comes in any more while the rest stops.
            if not force and GATEWAY in parts.supervisor.views():
                await drain_gateway(parts.admin, parts.paths.admin_socket(GATEWAY), parts.clock)
            await parts.supervisor.stop_all([(GATEWAY,), *levels], force=force)
            parts.topology.clear()
        except Exception:
            self.stopping = False
            raise
        self.stopped = True
        parts.events.add("mesh.stopped", "mesh", "every process has ended")

    async def close(self) -> None:
        """Stop driving; processes go on."""
        if self._tasks is not None:
            await self._tasks.close()

    # ------------------------------------------------------------------------------------------ what is so

    @property
    def mesh(self) -> Mesh | None:
        """The mesh that is meant to run."""
        return self.parts.topology.mesh

    @property
    def identity(self) -> MeshIdentity:
        """The mesh's authority and certificates.

        Raises:
            ConflictError: there was no ``up`` yet.
        """
        if self._identity is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return self._identity

    @property
    def nodes(self) -> frozenset[str]:
        """Every sidecar's node name, the gateway's included."""
        mesh = self.mesh
        if mesh is None:
            return frozenset()
        return frozenset({GATEWAY, *(s.name for s in mesh.services.values() if s.address is None)})

    @property
    def ports_in_use(self) -> frozenset[str]:
        """Keys of the ports that running processes of this mesh hold, and ``gateway``."""
        mesh, views, held = self.mesh, self.parts.supervisor.views(), set[str]()
        # The ports of a sidecar that is down just now are its own as long as somebody runs who was told them.
        running = {view.spec.service for view in views.values() if view.state.pid is not None}
        for name, view in views.items():
            service = view.spec.service
            if service not in running:
                continue
            if view.spec.kind == "sidecar" and name != GATEWAY:
                held.add(outbound_key(service))
                if mesh is not None and service in mesh.services:
                    held.update(upstream_key(service, upstream) for upstream in mesh.services[service].upstreams)
            elif view.state.pid is not None:
                held.add(GATEWAY if name == GATEWAY else app_key(name))
        held.update(inbound_key(item.id) for item in self.parts.topology.registrations)
        held.update(inbound_key(name) for name, view in views.items() if view.spec.kind == "service")
        if held:
            # Processes were told to send spans there, whether or not somebody listens just now.
            held.add(COLLECTOR_KEY)
        return frozenset(held)

    def observe(self) -> Observed | None:
        """Everything that is known now; None before any ``up``."""
        parts, mesh = self.parts, self.mesh
        if mesh is None:
            return None
        return Observed(
            mesh=mesh,
            views=parts.supervisor.views(),
            registrations=parts.topology.registrations,
            checks=self.checks.answers,
            ports=parts.topology.ports,
            sync=parts.sync,
            log=parts.paths.log,
            admin_socket=parts.paths.admin_socket,
        )

    @property
    def is_settled(self) -> bool:
        """True when no change waits to be published, and no callers are between plain text and mTLS."""
        return not self._dirty.is_set() and self.transports.is_settled

    def refuse_while_stopping(self) -> None:
        """Raise ConflictError when the mesh is being stopped."""
        if self.stopping:
            raise ConflictError("the mesh is being stopped", hint="wait until it has ended, then run: meshctl up")

    def milliseconds_since(self, start: float) -> float:
        """Milliseconds since a reading of the monotonic clock."""
        return round((self.parts.clock.monotonic() - start) * 1000, 1)

    # ------------------------------------------------------------------------------------------ what changes

    def mark_dirty(self) -> None:
        """Something that plans or status depend on has changed."""
        self._dirty.set()
        self._changed.set()

    def notify(self) -> None:
        """Something that only those who wait need to know has changed (a sidecar acknowledged, say)."""
        self._changed.set()

    def instance_changed(self) -> None:
        """The supervisor's state changed, or the registrations."""
        self.checks.expect()
        self.mark_dirty()

    def publish(self) -> Mapping[str, str]:
        """Plan anew and hand every sidecar what changed for it; returns the new versions by node."""
        mesh = self.mesh
        self._dirty.clear()
        if mesh is None or self.stopping:
            return {}
        steps = self.transports.advance(mesh)
        changed = self.parts.publisher.publish(self.plan(mesh))
        if steps:
            self.spawn("mtls", self._finish_step())
        return changed

    def plan(self, mesh: Mesh) -> MeshPlan:
        """What every sidecar would be told of a mesh, as things are now."""
        return build(mesh, self.facts(mesh))

    def facts(self, mesh: Mesh) -> Facts:
        """What is so now, as far as plans depend on it."""
        parts = self.parts
        found = instance_facts(
            parts.supervisor.views().values(),
            parts.topology.registrations,
            checks=self.checks.answers,
            ports=parts.topology.ports,
        )
        return Facts(
            # Instances of a service that has just left the topology live on for a moment, unseen.
            instances=tuple(item for item in found if item.service in mesh.services),
            ports=parts.topology.ports,
            gateway_pipe=parts.paths.gateway_pipe,
            open_services=parts.topology.open_services,
            system_roots=parts.system_roots,
            transports=self.transports.under_way,
            taps=self.plan_taps(mesh),
            sampling=self.plan_sampling(),
            faults=self.plan_faults(),
            detours=self.plan_detours(),
            cuts=self.plan_cuts(),
            renewed=self.renewed_services(),
            circuit_files={node: parts.paths.circuits(node) for node in self.nodes},
        )

    def publish_changed(self) -> Mapping[str, str]:
        """Publish; the new versions of those running sidecars whose configuration changed by that."""
        changed = self.publish()
        self.notify()
        return {node: version for node, version in self.running_versions().items() if node in changed}

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as the engine drives."""
        assert self._tasks is not None
        return self._tasks.spawn(name, work)

    def running_versions(self) -> dict[str, str]:
        """The version that each running sidecar should have."""
        views = self.parts.supervisor.views()
        return {
            node: version
            for node, version in self.parts.publisher.versions.items()
            if (view := views.get(sidecar_name(node))) is not None and view.state.pid is not None
        }

    async def publish_and_wait(self, timeout: float) -> int:
        """Publish, and wait until every running sidecar has all it should; how many there are."""
        self.publish()
        await self.transports.wait(timeout)
        versions = self.running_versions()
        await self.parts.publisher.wait(versions, timeout, require_connected=True)
        return len(versions)

    async def _finish_step(self) -> None:
        wait = self.parts.publisher.wait(self.running_versions(), DRAIN_ACK_TIMEOUT)
        await self.transports.finish_step(wait, self.parts.events)
        self.mark_dirty()

    async def drain(self, instance: str) -> None:
        """Return when no caller sends an instance requests any more and it has answered those it had."""
        parts = self.parts
        view = parts.supervisor.views().get(instance)
        if view is None or view.spec.kind != "service" or self.stopping:
            return
        self.publish()
        # A sidecar that refused something earlier must not keep this from waiting for the others.
        versions = {n: v for n, v in self.running_versions().items() if parts.sync(n).state != "rejected"}
        try:
            await parts.publisher.wait(versions, DRAIN_ACK_TIMEOUT)
        except MeshctlError as error:
            parts.events.add("instance.drain", instance, f"draining {instance}: {error}", "warning")
        socket = parts.paths.admin_socket(view.spec.service)
        deadline = parts.clock.monotonic() + DRAIN_REQUESTS_TIMEOUT
        while parts.clock.monotonic() < deadline and await parts.health.active_requests(socket, instance) > 0:  # noqa: ASYNC110 - Envoy has no event for it
            await asyncio.sleep(_DRAIN_POLL)

    # ------------------------------------------------------------------------------------------ waiting

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when a condition holds; it is looked at after every change."""
        while not condition():
            self._changed.clear()
            if condition():
                return
            await self._changed.wait()

    # ------------------------------------------------------------------------------------------ loops

    async def _refresh_forever(self) -> None:
        trouble = ""
        while True:
            await self._dirty.wait()
            # Let everything that happens in this turn of the loop come together.
            await asyncio.sleep(0)
            try:
                self.publish()
            except Exception as error:  # noqa: BLE001 - the runner's boundary: sidecars keep what they have
                if trouble != repr(error):
                    trouble = repr(error)
                    self.report_bug("refresh", error)
                self._dirty.set()
                await asyncio.sleep(_RETRY_PUBLISH)
                continue
            trouble = ""
            self._changed.set()
            await asyncio.sleep(0.002)

    async def _expire_forever(self) -> None:
        parts = self.parts
        while True:
            due = next_expiry(parts.topology.registrations)
            delay = _CHECK_EXPIRY if due is None else max(0.0, due - parts.clock.now())
            await asyncio.sleep(min(delay, _CHECK_EXPIRY))
            try:
                await self._expire()
            except MeshctlError as error:
                self.report_bug("registrations", error)
                await asyncio.sleep(_CHECK_EXPIRY)

    async def _expire(self) -> None:
        parts = self.parts
        async with self.changing:
            left, expired = expire(parts.topology.registrations, parts.clock.now())
            if not expired or self.stopping:
                return
            parts.topology.set_registrations(left, in_use=self.ports_in_use)
            for item in expired:
                parts.events.add("instance.expired", item.id, f"{item.id} was not heard of in time", "warning")
            await self.apply()

    def report_bug(self, name: str, error: BaseException) -> None:
        """Tell that something failed that should not have; whoever calls this goes on."""
        self.parts.events.add("daemon.error", name, f"{name} failed: {error!r}", "error")

    def _report_taken_port(self, node: str, message: str) -> None:
        self.parts.events.add("sidecar.rejected", node, message, "error")

    def _specs(self) -> dict[str, InstanceSpec]:
        parts, mesh = self.parts, self.mesh
        assert mesh is not None
        return build_specs(mesh, ports=parts.topology.ports, replicas=parts.topology.replicas, around=parts.around)

    def _restore(self) -> bool:
        try:
            return self.parts.topology.restore()
        except MeshctlError as error:
            message = f"what runs is stopped, because its topology cannot be read any more: {error}"
            self.parts.events.add("mesh.unreadable", "mesh", message, "error")
            return False

    def _prepare(self) -> None:
        """Make what sidecars need before they start: certificates and bootstrap files."""
        mesh = self.mesh
        assert mesh is not None
        assert self._bootstraps is not None
        self._ensure_certificates()
        for node in sorted(self.nodes):
            self._bootstraps.write(node, mesh=mesh.name)

    def _ensure_certificates(self) -> None:
        mesh = self.mesh
        assert mesh is not None
        assert self._tasks is not None
        identity = self._identity or self.parts.make_identity(mesh)
        identity.runner.ensure(self.nodes)
        if self._identity is None:
            self._identity = identity
            self._tasks.spawn("certificates", identity.runner.run())
