"""The topology as frozen values: what ``spec`` makes of the files and everything else starts from.  Pure.

Durations are seconds (float), percentages are numbers from 0 to 100.  Mappings are in the order of the file and are
never changed after the Mesh is made.  Every value a user can write has its ``Where``; defaults have been filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshctl.errors import Where
from meshctl.spec.fault_schema import Fault
from meshctl.spec.policy_schema import Policies
from meshctl.spec.rollout_schema import RolloutRules
from meshctl.spec.routing_schema import Mirror, RouteRule, Sticky
from meshctl.spec.telemetry_schema import Telemetry

Protocol = Literal["http", "grpc", "tcp"]
Condition = Literal["started", "healthy", "completed_successfully"]
RestartMode = Literal["no", "on_failure", "always"]
Egress = Literal["allow_any", "registry_only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """GET on the instance's own port; healthy when the status is in ``expected`` (half-open ranges [a, b))."""

    path: str
    expected: tuple[tuple[int, int], ...] = ((200, 400),)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """A TCP connection to the instance's own port is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecProbe:
    """A command exits with 0; it runs in the service's folder with the service's environment."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A readiness or liveness check and its rhythm (seconds; thresholds count checks in a row)."""

    check: HttpProbe | TcpProbe | ExecProbe
    interval: float = 1.0
    timeout: float = 1.0
    initial_delay: float = 0.0
    success_threshold: int = 1
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When an exited process is started again: delays double from ``backoff`` to ``max_backoff``.

    ``max_restarts`` None means no bound. A process that stayed up for ``reset_after`` starts counting anew.
    """

    mode: RestartMode = "always"
    backoff: float = 0.5
    max_backoff: float = 30.0
    max_restarts: int | None = None
    reset_after: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a service: a command and how many instances of it run.

    ``command`` is argv, empty for a version that only ever has registered instances. ``port`` is the first
    instance's own port when the file fixes it (instance i gets port + i), else None. ``working_dir`` is absolute.
    ``job`` versions run to completion once: they have no port, no listener and are healthy when they exited with 0.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    working_dir: str
    replicas: int = 1
    port: int | None = None
    job: bool = False
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    readiness: Probe | None = None
    liveness: Probe | None = None
    stop_grace: float = 5.0
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAddress:
    """A service that lives outside the mesh; ``tls`` originates TLS to it with its host name as SNI."""

    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service. Exactly one of ``versions`` and ``address`` is filled, or neither for one that is registered.

    ``split`` maps every version that gets traffic to its weight, and sums to 100; ``upstreams`` are the services
    it calls; ``depends_on`` orders the start only. Requests go by the first of ``routes`` that matches, and by
    ``split`` (with ``sticky`` and ``mirror``) when none does. ``rollout`` says how a version takes over.
    """

    name: str
    protocol: Protocol = "http"
    versions: Mapping[str, Version]
    stable: str
    split: Mapping[str, int]
    upstreams: tuple[str, ...] = ()
    address: ExternalAddress | None = None
    depends_on: Mapping[str, Condition]
    policies: Policies
    routes: tuple[RouteRule, ...] = ()
    sticky: Sticky | None = None
    mirror: Mirror | None = None
    rollout: RolloutRules | None = None
    where: Where

    @property
    def is_job(self) -> bool:
        """True when every version is a one-shot job: it can call, but not be called."""
        return bool(self.versions) and all(version.job for version in self.versions.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRoute:
    """Requests whose path starts with ``path`` (whole segments) go to ``service``; the longest path wins."""

    path: str
    service: str
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The proxy that lets the outside in. ``host`` is the address it listens on."""

    port: int
    host: str
    routes: tuple[GatewayRoute, ...]
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """A whole topology. ``directory`` is the absolute folder of the first file; services and faults are by name."""

    name: str
    directory: str
    trust_domain: str
    egress: Egress
    gateway: Gateway | None
    services: Mapping[str, Service]
    defaults: Policies = field(default_factory=Policies)
    telemetry: Telemetry = field(default_factory=Telemetry)
    faults: Mapping[str, Fault] = field(default_factory=dict)
