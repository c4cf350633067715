"""The parts of a control plane that its engine drives.  Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshctl.ads.status import SyncStatus
from meshctl.control.events import EventLog
from meshctl.control.exporter import MetricsParts
from meshctl.control.health import HealthReader
from meshctl.control.identity import MeshIdentity
from meshctl.control.publisher import Publisher
from meshctl.control.supervisor import Supervisor
from meshctl.control.topology import Topology
from meshctl.lifecycle.specs import Surroundings
from meshctl.ports import Clock, ProcessHost, ProxyAdmin, RolloutStore
from meshctl.spec.schema import Mesh
from meshctl.wire.paths import MeshPaths


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the engine drives."""

    paths: MeshPaths
    host: ProcessHost
    admin: ProxyAdmin
    topology: Topology
    rollouts: RolloutStore
    publisher: Publisher
    supervisor: Supervisor
    make_identity: Callable[[Mesh], MeshIdentity]
    health: HealthReader
    metrics: MetricsParts
    events: EventLog
    clock: Clock
    around: Surroundings
    system_roots: str
    sync: Callable[[str], SyncStatus]
    retry_rejected: Callable[[str], None]
