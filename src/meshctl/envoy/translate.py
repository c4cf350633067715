"""ProxyPlan -> Resources: all that one sidecar is sent.  Pure.

Invariant 1: equal plans give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.clusters import build_cluster
from meshctl.envoy.endpoints import build_assignment
from meshctl.envoy.listeners import build_listener
from meshctl.envoy.routes import build_route_table
from meshctl.envoy.runtime import FAULT_LAYER, RUNTIME_LAYER, build_buckets, build_fault_shares, build_runtime
from meshctl.envoy.tls import build_peers, build_secrets
from meshctl.plan.model import Forward, HttpListener, LocalCluster, MeshCluster, ProxyPlan, RouteTable, TcpListener


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a sidecar proves itself with and whom it trusts; all PEM."""

    leaf_chain: bytes
    leaf_key: bytes = field(repr=False)
    roots: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """One resource: ``message`` is the protobuf, ``needs`` what must be at the sidecar before it: (kind, name).

    A ``leased`` one is in effect only for as long as its sidecar is told again and again that it is.
    """

    kind: str
    name: str
    message: Any
    needs: frozenset[tuple[str, str]] = frozenset()
    leased: bool = False


def translate(plan: ProxyPlan, credentials: Credentials) -> tuple[Translated, ...]:
    """All resources of one proxy; kinds are ``runtime``, ``cluster``, ``endpoints``, ``secret``, ``listener``,
    ``routes`` and ``bucket``.
    """
    return tuple(_resources(plan, credentials))


def _resources(plan: ProxyPlan, credentials: Credentials) -> Iterator[Translated]:
    discovered = {c.name for c in plan.clusters if isinstance(c, MeshCluster | LocalCluster)}
    for cluster in plan.clusters:
        yield Translated(kind="cluster", name=cluster.name, message=build_cluster(cluster))
    for item in plan.endpoints:
        message = build_assignment(item.cluster, item.endpoints)
        yield Translated(kind="endpoints", name=item.cluster, message=message)
    secrets = [*build_secrets(credentials.leaf_chain, credentials.leaf_key, credentials.roots)]
    if plan.peers is not None:
        secrets.append(build_peers(plan.peers, credentials.roots))
    for secret in secrets:
        yield Translated(kind="secret", name=secret.name, message=secret)
    for listener in plan.listeners:
        used: set[str] = set()
        if isinstance(listener, TcpListener):
            used = {cluster for cluster, _ in listener.split}
        yield Translated(
            kind="listener",
            name=listener.name,
            message=build_listener(listener, plan.node),
            needs=_needs(used, discovered),
        )
    tables_in_use = {item.route_table for item in plan.listeners if isinstance(item, HttpListener)}
    for table in plan.route_tables:
        assert table.name in tables_in_use, f"no listener of {plan.node} uses the routes {table.name}"
        needs = _needs(_clusters_of(table), discovered)
        yield Translated(kind="routes", name=table.name, message=build_route_table(table), needs=needs)
    yield Translated(kind="runtime", name=RUNTIME_LAYER, message=build_runtime(plan.telemetry))
    shares = plan.fault_shares
    yield Translated(kind="runtime", name=FAULT_LAYER, message=build_fault_shares(shares), leased=bool(shares))
    for name, message in build_buckets().items():
        yield Translated(kind="bucket", name=name, message=message)


def _clusters_of(table: RouteTable) -> set[str]:
    actions = [route.action for host in table.virtual_hosts for route in host.routes]
    forwards = [action for action in actions if isinstance(action, Forward)]
    mirrors = {action.mirror.cluster for action in forwards if action.mirror is not None}
    return mirrors | {cluster for action in forwards for cluster, _ in action.split}


def _needs(clusters: set[str], discovered: set[str]) -> frozenset[tuple[str, str]]:
    return frozenset([("cluster", name) for name in clusters] + [("endpoints", name) for name in clusters & discovered])


def serialize(item: Translated) -> bytes:
    """The bytes of a resource, equal for equal content."""
    return pb.serialize(item.message)
