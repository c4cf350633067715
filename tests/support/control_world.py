"""A whole control plane on a machine in memory: real engine, supervisor, topology and publisher, fake edges.

Sidecars are processes of the fake machine; those that run have acknowledged what was published, unless a test says
otherwise.  Time is real and short: probes and checks answer at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.fakes.certificate_authority import FakeAuthority
from tests.fakes.circuit_files import FakeCircuitFiles
from tests.fakes.port_claims import FakeClaims
from tests.fakes.process_host import Behaviour, FakeMachine, FakeProcessHost
from tests.fakes.state_store import FakeStateStore
from tests.fakes.traces import FakeReceiver

from meshctl.adapters.clock import SystemClock
from meshctl.adapters.otlp_forward import HttpForwarder
from meshctl.ads.snapshot import Snapshot
from meshctl.ads.status import TYPE_NAMES, SyncStatus, describe_disconnected
from meshctl.control.certs import CertRunner
from meshctl.control.control_plane import ControlPlane
from meshctl.control.engine import Engine
from meshctl.control.events import EventLog
from meshctl.control.exporter import Exporter, MetricsParts
from meshctl.control.health import HealthReader
from meshctl.control.identity import MeshIdentity
from meshctl.control.metrics import expose, running_sidecars
from meshctl.control.metrics_reader import MetricsReader
from meshctl.control.parts import Parts
from meshctl.control.publisher import Publisher
from meshctl.control.supervisor import Supervisor
from meshctl.control.taps import PASSED_STAT
from meshctl.control.topology import PortProbe, Topology
from meshctl.envoy.translate import Credentials
from meshctl.errors import RejectedError, WaitTimeoutError
from meshctl.lifecycle.model import InstanceSpec
from meshctl.lifecycle.specs import Surroundings, sidecar_name
from meshctl.ports import Exposition, RolloutStore, StateStore, Use
from meshctl.spec.schema import Mesh, Probe
from meshctl.wire.models import AppliedResult, SourceFileShape, UpRequest
from meshctl.wire.paths import MeshPaths


class FakeMeter:
    """Every process uses as much."""

    def measure(self, pids: Mapping[str, int]) -> Mapping[str, Use]:
        return {name: Use(cpu=0.5, memory=2**20) for name in pids}


class FakeMetricsServer:
    """Listens where it is told, unless the port is in ``taken``."""

    def __init__(self) -> None:
        self.port = 0
        self.taken: set[int] = set()

    async def open(self, port: int, expose: Callable[[str], Exposition]) -> None:
        self.port = 0
        if port in self.taken:
            raise OSError(98, "Address already in use")
        self.port, self.expose = port, expose

    async def close(self) -> None:
        self.port = 0


class FakeSidecars:
    """The xDS server and the admin sockets of sidecars that run on a fake machine."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.snapshots: dict[str, Snapshot] = {}
        self.published: list[Snapshot] = []
        self.refusing: dict[str, str] = {}
        self.stubborn: dict[str, str] = {}
        # Those that refuse everything but one version.
        self.refused_types = frozenset(TYPE_NAMES.values())
        self.refusals = 0
        self.late: set[str] = set()
        self.failing: set[str] = set()
        self.retried: list[str] = []
        self.renewed: list[str] = []
        self.asked = 0
        self.counted: dict[str, dict[str, int]] = {}
        self.clusters: dict[str, Any] = {}
        self.asked_clusters = 0
        self.passed: dict[str, int] = {}
        self.mute: set[str] = set()

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshots[snapshot.node] = snapshot
        self.published.append(snapshot)

    def forget(self, node: str) -> None:
        self.snapshots.pop(node, None)

    async def wait_synced(
        self, node_versions: Mapping[str, str], timeout: float, *, require_connected: bool = True
    ) -> None:
        for node in node_versions:
            if node in self.refusing:
                raise RejectedError(f"the sidecar of {node} refused: {self.refusing[node]}")
            if self.stubborn.get(node, node_versions[node]) != node_versions[node]:
                self.refusals += 1
                raise RejectedError(f"the sidecar of {node} refused: it is too new")
            if node in self.late:
                raise WaitTimeoutError(f"the sidecar of {node} did not acknowledge")

    def renew_leases(self, node: str) -> None:
        self.renewed.append(node)

    def retry_rejected(self, node: str) -> None:
        self.retried.append(node)

    def status(self, node: str) -> SyncStatus:
        away = describe_disconnected(node)
        process = self.machine.processes.get(sidecar_name(node))
        if process is None or not process.alive:
            return away
        if node in self.refusing:
            types = tuple(replace(t, error=self.refusing[node]) for t in away.types)
            return replace(away, state="rejected", connected=True, error=self.refusing[node], types=types)
        snapshot = self.snapshots.get(node)
        if snapshot is not None and self.stubborn.get(node, snapshot.version) != snapshot.version:
            words = "it is too new"
            types = tuple(replace(t, error=words if t.type in self.refused_types else "") for t in away.types)
            return replace(away, state="rejected", connected=True, error=words, types=types)
        return replace(away, state="stale" if node in self.late else "synced", connected=True)

    async def get(self, socket: str, path: str) -> str:
        """Every instance passes its check, but for those in ``failing``; counters are those in ``counted``, clusters
        those in ``clusters``, and of requests ``passed`` went by while somebody tapped, which those in ``mute`` keep to
        themselves.
        """
        self.asked += 1
        node = socket.removesuffix(".admin").rpartition("/")[2]
        if self.status(node).state == "disconnected":
            raise ConnectionRefusedError(socket)
        if path.startswith("/clusters"):
            self.asked_clusters += 1
            return json.dumps(self.clusters.get(node, {"cluster_statuses": []}))
        if "tap" in path:
            if node in self.mute:
                raise TimeoutError
            return f"{PASSED_STAT}: {self.passed[node]}\n" if node in self.passed else "\n"
        if "format=json" in path:
            return json.dumps({"stats": [{"name": k, "value": v} for k, v in self.counted.get(node, {}).items()]})
        names = [name for name in self.machine.processes if name.startswith(f"{node}-")]
        names += [f"{node}-ext-{number}" for number in range(1, 4)]
        return "\n".join(
            f"cluster.local/{name}.{stat}: {n}"
            for name in names
            for fails in (name in self.failing,)
            for stat, n in (("membership_healthy", int(not fails)), ("health_check.failure", int(fails)))
        )

    async def post(self, socket: str, path: str) -> str:
        return ""


class ControlWorld:
    """A machine and a store that outlive any number of control planes, each made by ``running``."""

    def __init__(self, folder: Path, store: StateStore | None = None) -> None:
        self.paths = MeshPaths(str(folder), str(folder / "run"))
        commands = {"envoy": Behaviour(), "./web": Behaviour(), "./job": Behaviour(exit_code=0)}
        self.machine = FakeMachine(commands={**commands, "./crash": Behaviour(exit_code=3)})
        self.sidecars = FakeSidecars(self.machine)
        self.store: StateStore = store or FakeStateStore()
        self.rollouts: RolloutStore = self.store if isinstance(self.store, FakeStateStore) else FakeStateStore()
        self.authority = FakeAuthority()
        self.circuit_files = FakeCircuitFiles()
        self.taken: set[int] = set()
        self.sick: set[str] = set()
        self.ended = False

    def make(self) -> ControlPlane:
        clock = SystemClock()
        engine = Engine()
        events = EventLog(clock)
        host = FakeProcessHost(self.machine)
        supervisor = Supervisor(
            host=host,
            probe=self.probe,
            clock=clock,
            drain=engine.drain,
            recall=self.store.instances,
            remember=self.store.put_instance,
            forget=self.store.drop_instance,
            report=events.add,
            changed=engine.instance_changed,
        )
        probe = PortProbe(
            explain=lambda _, port: f"port {port} is held by python3 (pid 7)" if port in self.taken else "",
            is_free=lambda _, port: port not in self.taken,
            claims=FakeClaims(),
        )
        self.engine = engine

        def credentials(node: str) -> Credentials:
            return engine.identity.credentials(node)

        engine.attach(
            Parts(
                paths=self.paths,
                host=host,
                admin=self.sidecars,
                topology=Topology(self.store, probe),
                rollouts=self.rollouts,
                publisher=Publisher(self.sidecars, credentials),
                supervisor=supervisor,
                make_identity=self.make_identity,
                health=HealthReader(
                    admin=self.sidecars,
                    sidecars=engine.checks.sidecars,
                    report=engine.checks.take,
                    on_error=engine.report_bug,
                ),
                metrics=MetricsParts(
                    reader=MetricsReader(
                        admin=self.sidecars,
                        sidecars=lambda: running_sidecars(engine),
                        known=lambda: engine.nodes,
                        clock=clock,
                        on_error=engine.report_bug,
                    ),
                    meter=FakeMeter(),
                    exporter=Exporter(
                        server=FakeMetricsServer(),
                        mesh=lambda: engine.mesh,
                        expose=lambda accept: expose(engine, accept),
                        events=events,
                    ),
                ),
                events=events,
                clock=clock,
                around=Surroundings(
                    envoy="envoy",
                    environment={"PATH": "/bin"},
                    fallback_path="/opt/bin",
                    bootstrap=self.paths.bootstrap,
                    log=self.paths.log,
                ),
                system_roots="/roots.pem",
                sync=self.sidecars.status,
                retry_rejected=self.sidecars.retry_rejected,
            )
        )
        return ControlPlane(
            engine,
            logs=self.read_logs,
            circuit_files=self.circuit_files,
            receiver=FakeReceiver(),
            make_forwarder=HttpForwarder,
            store=self.store,
            daemon_pid=7,
            on_down=lambda: setattr(self, "ended", True),
        )

    @asynccontextmanager
    async def running(self, *, teardown: bool = False) -> AsyncIterator[ControlPlane]:
        """A control plane at work; at the end it is gone, as if it had been killed, and processes go on."""
        plane = self.make()
        await self.engine.start(teardown=teardown)
        if not teardown:
            plane.policies.changer.resume()
        try:
            yield plane
        finally:
            await self.engine.close()
            await self.engine.parts.host.close(stop=False)

    def make_identity(self, mesh: Mesh) -> MeshIdentity:
        runner = CertRunner(
            authority=self.authority,
            clock=SystemClock(),
            services=lambda: self.engine.nodes,
            publish=self.publish_certificates,
            report=self.engine.parts.events.add,
            wait=asyncio.sleep,
        )
        return MeshIdentity(trust_domain=mesh.trust_domain, authority=self.authority, runner=runner)

    async def publish_certificates(self) -> AppliedResult:
        acked = await self.engine.publish_and_wait(1.0)
        return AppliedResult(message="certificates", acked=acked, total=acked, duration_ms=0.0)

    async def probe(self, spec: InstanceSpec, _probe: Probe) -> tuple[bool, str]:
        await asyncio.sleep(0)
        return spec.id not in self.sick, "answered 503" if spec.id in self.sick else "answered 200"

    async def read_logs(self, paths: Any, **_: Any) -> AsyncIterator[Any]:
        return
        yield

    @property
    def alive(self) -> set[str]:
        """The names of the processes that run."""
        return {name for name, process in self.machine.processes.items() if process.alive}

    def starts(self, name: str) -> int:
        """How often a process was started, by whichever control plane."""
        return sum(spec.name == name for spec in self.machine.started)

    async def event_lines(self) -> list[str]:
        """What happened, as ``kind subject: message``."""
        events = self.engine.parts.events.read(None, follow=False)
        return [f"{event.kind} {event.subject}: {event.message}" async for event in events]


def make_request(text: str, *services: str, author: str = "up", reset: bool = False) -> UpRequest:
    """A request to bring a topology up."""
    file = SourceFileShape(path="mesh.yaml", directory="/work/shop", text=text)
    return UpRequest(files=[file], variables={}, services=list(services), author=author, reset=reset)


async def until_awaited(plane: ControlPlane, *expected: str) -> None:
    """Return when just this is what keeps the mesh from being ready; fails the test after a minute."""
    found = await plane.ready(0.01)
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while found.waiting != [*expected]:
                await asyncio.sleep(0.01)
                found = await plane.ready(0.01)
    assert (found.state, found.waiting) == ("timeout", [*expected])


async def until(condition: Any, what: str) -> None:
    """Return when a condition holds; fails the test after a minute."""
    try:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"still not: {what}") from None
