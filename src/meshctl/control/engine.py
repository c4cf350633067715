"""Keeps what runs equal to what is meant to run: processes by the supervisor, configuration by the publisher.  I/O.

One loop turns every change (an instance became healthy, a registration expired, the topology was replaced) into facts,
a plan, and what each sidecar is sent of it.  Changes that come together are published together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from meshctl.ads.status import SyncStatus
from meshctl.control.events import EventLog
from meshctl.control.health import HealthReader
from meshctl.control.identity import MeshIdentity
from meshctl.control.observe import Observed, instance_facts
from meshctl.control.publisher import Publisher
from meshctl.control.supervisor import Supervisor
from meshctl.control.topology import Topology
from meshctl.envoy.bootstrap import build_bootstrap
from meshctl.errors import ConflictError, MeshctlError
from meshctl.lifecycle.model import InstanceSpec
from meshctl.lifecycle.order import find_stop_levels
from meshctl.lifecycle.registrations import expire, next_expiry
from meshctl.lifecycle.specs import Surroundings, build_specs, sidecar_name
from meshctl.plan.addresses import app_key, inbound_key, outbound_key, upstream_key
from meshctl.plan.build import build
from meshctl.plan.facts import Facts
from meshctl.plan.routes import GATEWAY
from meshctl.ports import Clock, ProcessHost
from meshctl.spec.schema import Mesh
from meshctl.tasks import TaskBag
from meshctl.wire.paths import MeshPaths

DRAIN_ACK_TIMEOUT = 3.0
"""Seconds for callers' sidecars to acknowledge that an instance is gone."""

DRAIN_REQUESTS_TIMEOUT = 5.0
"""Seconds for an instance to finish the requests it is working on, once no more come."""

_DRAIN_POLL = 0.02
_FAR_FUTURE = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the engine drives."""

    paths: MeshPaths
    host: ProcessHost
    topology: Topology
    publisher: Publisher
    supervisor: Supervisor
    make_identity: Callable[[Mesh], MeshIdentity]
    health: HealthReader
    events: EventLog
    clock: Clock
    around: Surroundings
    system_roots: str
    sync: Callable[[str], SyncStatus]


class Engine:
    """The running mesh. Its parts call back into it, so it is made first and given them by ``attach``."""

    def __init__(self) -> None:
        self._parts: Parts | None = None
        self._dirty = asyncio.Event()
        self._changed = asyncio.Event()
        self._checks: dict[str, bool] = {}
        self._tasks: TaskBag | None = None
        self._identity: MeshIdentity | None = None
        self._bootstraps: set[str] = set()
        self.lock = asyncio.Lock()
        self.stopping = False

    @property
    def parts(self) -> Parts:
        """The parts, once attached."""
        assert self._parts is not None, "attach comes first"
        return self._parts

    def attach(self, parts: Parts) -> None:
        """Give the engine what it drives."""
        self._parts = parts
        self._tasks = TaskBag(self._report_bug)

    # ------------------------------------------------------------------------------------------ starting, stopping

    async def start(self) -> None:
        """Begin to drive; takes up what an earlier control plane left running, without a lost request."""
        parts = self.parts
        # With nothing running there is nothing to take over: the next `up` says what to start.
        takes_over = bool(await parts.host.running()) and parts.topology.restore()
        await parts.supervisor.adopt(self._specs() if takes_over else {})
        assert self._tasks is not None
        self._tasks.spawn("supervisor", parts.supervisor.run())
        if takes_over:
            self._ensure_certificates()
            # What Envoy says of each instance has to be known before anything is published, or instances that
            # serve would leave their callers' endpoints for a moment.
            await parts.health.read()
            self.publish()
            parts.events.add("mesh.adopted", "mesh", f"took over {len(parts.supervisor.views())} processes")
        self._tasks.spawn("refresh", self._refresh_forever())
        self._tasks.spawn("health", parts.health.run())
        self._tasks.spawn("registrations", self._expire_forever())

    async def apply(self) -> None:
        """Bring the topology into effect: certificates, sidecars, instances, configuration."""
        parts = self.parts
        self._ensure_certificates()
        for node in self.nodes:
            self._write_bootstrap(node)
        parts.supervisor.reconcile(self._specs())
        self.mark_dirty()

    async def stop(self, *, force: bool) -> None:
        """Stop every process; a second call with ``force`` makes one under way kill."""
        parts = self.parts
        if self.stopping:
            if force:
                parts.supervisor.force()
            return
        self.stopping = True
        parts.events.add("mesh.stopping", "mesh", "stopping every service" if not force else "killing every service")
        self._changed.set()
        specs = [view.spec for view in parts.supervisor.views().values()]
        levels = find_stop_levels([spec for spec in specs if spec.id != GATEWAY])
        # The gateway goes first: nothing comes in any more while the rest stops.
        await parts.supervisor.stop_all([(GATEWAY,), *levels], force=force)
        parts.topology.clear()
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
        mesh, held = self.mesh, set[str]()
        for name, view in self.parts.supervisor.views().items():
            if view.state.pid is None:
                continue
            service = view.spec.service
            if view.spec.kind != "sidecar":
                held.add(app_key(name))
            elif name == GATEWAY:
                held.add(GATEWAY)
            else:
                held.add(outbound_key(service))
                if mesh is not None and service in mesh.services:
                    held.update(upstream_key(service, upstream) for upstream in mesh.services[service].upstreams)
        held.update(inbound_key(item.id) for item in self.parts.topology.registrations)
        held.update(inbound_key(name) for name, v in self.parts.supervisor.views().items() if v.spec.kind == "service")
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
            checks=self._checks,
            ports=parts.topology.ports,
            sync=parts.sync,
            log=parts.paths.log,
            admin_socket=parts.paths.admin_socket,
        )

    @property
    def is_settled(self) -> bool:
        """True when no change waits to be published."""
        return not self._dirty.is_set()

    # ------------------------------------------------------------------------------------------ what changes

    def mark_dirty(self) -> None:
        """Something that plans or status depend on has changed."""
        self._dirty.set()
        self._changed.set()

    def notify(self) -> None:
        """Something that only those who wait need to know has changed (a sidecar acknowledged, say)."""
        self._changed.set()

    def take_check(self, instance: str, passes: bool | None) -> None:  # noqa: FBT001 - Envoy's answer
        """Take Envoy's answer about an instance; no answer changes nothing."""
        if passes is None:
            return
        if instance in self.parts.supervisor.views():
            self.parts.supervisor.set_envoy_check(instance, passes)
        elif self._checks.get(instance) is not passes:
            self._checks[instance] = passes
            state = "healthy" if passes else "unhealthy"
            self.parts.events.add(f"instance.{state}", instance, f"{instance} is {state}")
            self.mark_dirty()

    def instance_changed(self) -> None:
        """The supervisor's state changed."""
        if any(
            view.state.ready and view.envoy_check is not True and view.spec.envoy_checked
            for view in self.parts.supervisor.views().values()
        ):
            self.parts.health.hurry()
        self.mark_dirty()

    def checked_sidecars(self) -> Mapping[str, tuple[str, ...]]:
        """The instances behind each running sidecar's admin socket."""
        parts = self.parts
        behind: dict[str, list[str]] = {}
        views = parts.supervisor.views()
        for name, view in views.items():
            if view.spec.kind == "service" and view.state.phase in ("ready", "draining"):
                behind.setdefault(view.spec.service, []).append(name)
        for item in parts.topology.registrations:
            behind.setdefault(item.service, []).append(item.id)
        return {
            parts.paths.admin_socket(service): tuple(sorted(instances))
            for service, instances in sorted(behind.items())
            if (sidecar := views.get(sidecar_name(service))) is not None and sidecar.state.pid is not None
        }

    def publish(self) -> Mapping[str, str]:
        """Plan anew and hand every sidecar what changed for it; returns the new versions by node."""
        parts, mesh = self.parts, self.mesh
        self._dirty.clear()
        if mesh is None or self.stopping:
            return {}
        found = instance_facts(
            parts.supervisor.views().values(),
            parts.topology.registrations,
            checks=self._checks,
            ports=parts.topology.ports,
        )
        facts = Facts(
            # Instances of a service that has just left the topology live on for a moment, unseen.
            instances=tuple(item for item in found if item.service in mesh.services),
            ports=parts.topology.ports,
            gateway_pipe=parts.paths.gateway_pipe,
            open_services=parts.topology.open_services,
            system_roots=parts.system_roots,
        )
        return parts.publisher.publish(build(mesh, facts))

    async def publish_and_wait(self, timeout: float) -> tuple[int, int]:
        """Publish, and wait until every running sidecar has all it should; (how many have, of how many)."""
        self.publish()
        versions = self._running_versions()
        await self.parts.publisher.wait(versions, timeout, require_connected=True)
        return len(versions), len(versions)

    async def drain(self, instance: str) -> None:
        """Return when no caller sends an instance requests any more and it has answered those it had."""
        parts = self.parts
        view = parts.supervisor.views().get(instance)
        if view is None or view.spec.kind != "service" or self.stopping:
            return
        self.publish()
        try:
            await parts.publisher.wait(self._running_versions(), DRAIN_ACK_TIMEOUT)
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

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """One change of the topology at a time."""
        async with self.lock:
            yield

    # ------------------------------------------------------------------------------------------ loops

    async def _refresh_forever(self) -> None:
        while True:
            await self._dirty.wait()
            # Let everything that happens in this turn of the loop come together.
            await asyncio.sleep(0)
            self.publish()
            self._changed.set()
            await asyncio.sleep(0.002)

    async def _expire_forever(self) -> None:
        parts = self.parts
        while True:
            due = next_expiry(parts.topology.registrations)
            delay = _FAR_FUTURE if due is None else max(0.0, due - parts.clock.now())
            await asyncio.sleep(min(delay, 1.0))
            left, expired = expire(parts.topology.registrations, parts.clock.now())
            if not expired:
                continue
            parts.topology.set_registrations(left, in_use=self.ports_in_use)
            for item in expired:
                self._checks.pop(item.id, None)
                parts.events.add("instance.expired", item.id, f"{item.id} was not heard of in time", "warning")
            await self.apply()

    def _report_bug(self, name: str, error: BaseException) -> None:
        self.parts.events.add("daemon.error", name, f"{name} failed: {error!r}", "error")

    def _running_versions(self) -> dict[str, str]:
        views = self.parts.supervisor.views()
        return {
            node: version
            for node, version in self.parts.publisher.versions.items()
            if (view := views.get(sidecar_name(node))) is not None and view.state.pid is not None
        }

    def _specs(self) -> dict[str, InstanceSpec]:
        parts, mesh = self.parts, self.mesh
        assert mesh is not None
        return build_specs(mesh, ports=parts.topology.ports, replicas=parts.topology.replicas, around=parts.around)

    def _ensure_certificates(self) -> None:
        mesh = self.mesh
        assert mesh is not None
        assert self._tasks is not None
        if self._identity is None:
            self._identity = self.parts.make_identity(mesh)
            self._identity.runner.ensure(self.nodes)
            self._tasks.spawn("certificates", self._identity.runner.run())
        else:
            self._identity.runner.ensure(self.nodes)

    def _write_bootstrap(self, node: str) -> None:
        paths, mesh = self.parts.paths, self.mesh
        assert mesh is not None
        if node in self._bootstraps:
            return
        self._bootstraps.add(node)
        text = build_bootstrap(
            node=node, mesh=mesh.name, admin_socket=paths.admin_socket(node), ads_socket=paths.ads_socket
        )
        path = Path(paths.bootstrap(node))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            temporary = path.with_suffix(".new")
            temporary.write_text(text)
            temporary.replace(path)
