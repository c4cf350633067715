"""The intermediate form between topology and Envoy: what each proxy is to do, in our own words.  Pure, no protobuf.

A MeshPlan is one ProxyPlan per sidecar (and one for the gateway).  Everything is sorted and frozen, so that equal
meshes and facts give equal plans, and a plan that did not change need not be translated again.  Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshctl.plan.policies.authorization import AuthorizationPlan
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan
from meshctl.plan.policies.fallback import FallbackPlan
from meshctl.plan.policies.faults import FaultDraw, FaultPlan
from meshctl.plan.policies.hashing import HashOn
from meshctl.plan.policies.health_check import HealthCheckPlan
from meshctl.plan.policies.limits import NO_CAPS, AdaptiveConcurrencyPlan, BufferPlan, CapsPlan
from meshctl.plan.policies.load_balancing import ROUND_ROBIN, LoadBalancingPlan
from meshctl.plan.policies.mirror import MirrorPlan
from meshctl.plan.policies.mtls import InboundTls, Peers
from meshctl.plan.policies.outlier_detection import OutlierPlan
from meshctl.plan.policies.rate_limits import RateLimitPlan
from meshctl.plan.policies.retry import BUILT_IN_BUDGET, RetryPlan
from meshctl.plan.policies.telemetry import TelemetryPlan
from meshctl.plan.policies.timeouts import HeedDeadline, KeepDeadline
from meshctl.spec.policy_schema import RetryBudget
from meshctl.spec.routing_schema import NO_CHANGES, HeaderChanges, ValueMatch

EndpointHealth = Literal["healthy", "unhealthy"]
AppProtocol = Literal["http", "grpc", "tcp"]


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A TCP address; ``host`` is an IP address."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PipeAddress:
    """A unix socket."""

    path: str


Address = SocketAddress | PipeAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpListener:
    """An HTTP listener (HTTP/1.1, HTTP/2 and upgrades) whose routes are a table of their own.

    ``role`` decides what is trusted: ``gateway`` faces the outside, ``outbound`` the own service, ``inbound`` other
    sidecars. ``passthrough`` is True where hosts outside the mesh may be reached. ``circuit_file`` is where the sidecar
    keeps the state of its circuit breakers, all listeners together; empty where they are kept out of sight.
    """

    name: str
    address: Address
    role: Literal["inbound", "outbound", "gateway"]
    route_table: str
    tls: InboundTls | None = None
    passthrough: bool = False
    circuit_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpListener:
    """A TCP listener that forwards connections to clusters by weight (weights sum to 100).

    ``idle_timeout`` closes a connection that is silent so long; 0 never does, None after Envoy's own hour. When
    ``cut`` changes, those that are open are cut off.
    """

    name: str
    address: Address
    role: Literal["inbound", "outbound"]
    split: tuple[tuple[str, int], ...]
    tls: InboundTls | None = None
    idle_timeout: float | None = None
    cut: str = ""


ListenerPlan = HttpListener | TcpListener


FilterPlan = (
    AdaptiveConcurrencyPlan
    | AuthorizationPlan
    | BufferPlan
    | CircuitBreakerPlan
    | FallbackPlan
    | FaultDraw
    | FaultPlan
    | HeedDeadline
    | KeepDeadline
    | RateLimitPlan
)
"""What an HTTP filter is to do for a route or for all routes of a virtual host: one type for each policy that has a
filter of its own (in ``plan.policies``), translated by the module of that filter in ``envoy.filters``.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a request must look like; all given conditions hold at once. ``path_prefix`` counts whole segments.

    ``path_exact`` and ``path_regex`` are for the whole path without its query, and empty for any. ``body_over`` is for
    bodies that declare more bytes than this (0: any), ``body_undeclared`` for those whose length is not declared;
    neither is for upgraded connections.
    """

    path_prefix: str = "/"
    path_exact: str = ""
    path_regex: str = ""
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    header_present: str = ""
    single_label_host: bool = False
    body_over: int = 0
    body_undeclared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRewrite:
    """The upstream is asked for ``replacement`` in place of ``prefix`` (whole segments), or of the whole path if empty.

    Both begin with a slash; the query stays.
    """

    prefix: str = ""
    replacement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the request on to clusters by weight; ``timeout`` 0 means none of the proxy's own.

    ``timeout`` counts from the end of the request to the end of the answer, all attempts included; it is shortened to
    what the application says is left (``timeouts.DEADLINE_HEADER``), and of an event stream it bounds the wait for the
    answer to begin. ``idle_timeout`` bounds silence, 0 for none, None for the listener's own.

    ``host_rewrite`` is the Host that the upstream gets, empty to leave it; ``response_headers`` are set on the answer.
    ``hash_on`` is tried in order until the request has one; with ``sticky`` the hash also chooses among the clusters,
    whose order then is that in which they are to keep their users.
    """

    split: tuple[tuple[str, int], ...]
    timeout: float
    idle_timeout: float | None = None
    retry: RetryPlan | None = None
    host_rewrite: str = ""
    path_rewrite: PathRewrite | None = None
    response_headers: tuple[tuple[str, str], ...] = ()
    request_changes: HeaderChanges = NO_CHANGES
    response_changes: HeaderChanges = NO_CHANGES
    hash_on: tuple[HashOn, ...] = ()
    sticky: bool = False
    mirror: MirrorPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Send the caller elsewhere; what is empty stays as it was asked for, and so does the query."""

    status: int
    path: str = ""
    host: str = ""
    scheme: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer at once. ``body`` is text in which ``{host}`` and ``{path}`` stand for those of the request."""

    status: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One rule of a virtual host; the first that matches wins.

    ``filters`` switches HTTP filters on for what it matches; each filter at most once. Where the virtual host switches
    the same filter on, the route's plan holds.
    """

    name: str
    match: Match
    action: Forward | Reply | Redirect
    filters: tuple[FilterPlan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHost:
    """The routes of some host names (``*`` for all others); ``filters`` switches HTTP filters on for all of them."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    filters: tuple[FilterPlan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """A named set of virtual hosts: one xDS RouteConfiguration."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshCluster:
    """The instances of one version of a mesh service; their sidecars must prove ``identity``, if it is not empty.

    Without an identity they are reached in plain text, as ``security: {mtls: false}`` asks. While it is ``renewed`` it
    differs from what it was, so that its connections are made anew.
    """

    name: str
    identity: str
    protocol: AppProtocol
    load_balancing: LoadBalancingPlan
    connect_timeout: float
    outlier_detection: OutlierPlan | None = None
    caps: CapsPlan = NO_CAPS
    retry_budget: RetryBudget = BUILT_IN_BUDGET
    renewed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCluster:
    """A sidecar's own instance, in plain text on loopback."""

    name: str
    protocol: AppProtocol
    health_check: HealthCheckPlan | None
    connect_timeout: float
    load_balancing: LoadBalancingPlan = ROUND_ROBIN


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalCluster:
    """An address outside the mesh, resolved by DNS; with ``tls`` its certificate is verified against ``roots_file``."""

    name: str
    host: str
    port: int
    tls: bool
    roots_file: str
    protocol: AppProtocol
    load_balancing: LoadBalancingPlan
    health_check: HealthCheckPlan | None
    connect_timeout: float
    outlier_detection: OutlierPlan | None = None
    caps: CapsPlan = NO_CAPS
    retry_budget: RetryBudget = BUILT_IN_BUDGET


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughCluster:
    """Any host the request names, resolved as requests come."""

    name: str
    connect_timeout: float


ClusterPlan = MeshCluster | LocalCluster | ExternalCluster | PassthroughCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a cluster; its share of the requests is its ``weight`` among those of the others."""

    host: str
    port: int
    health: EndpointHealth = "healthy"
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointsPlan:
    """The endpoints of one cluster, by address."""

    cluster: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyPlan:
    """Everything one proxy is to do. ``node`` is the sidecar's name: its service's, or ``gateway``.

    ``fault_shares`` are the millionths of the requests that the faults among the filters are made of, by key.
    ``peers`` are those who may connect to its inbound listeners for plain TCP; None when it has none.
    """

    node: str
    identity: str
    listeners: tuple[ListenerPlan, ...]
    route_tables: tuple[RouteTable, ...]
    clusters: tuple[ClusterPlan, ...]
    endpoints: tuple[EndpointsPlan, ...]
    peers: Peers | None = None
    telemetry: TelemetryPlan = field(default_factory=TelemetryPlan)
    fault_shares: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPlan:
    """The plans of all proxies, by node."""

    proxies: Mapping[str, ProxyPlan]
