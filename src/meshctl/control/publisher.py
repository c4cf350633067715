"""Plan -> sidecars: translates what changed, hands it to the xDS server, waits for acknowledgement.  I/O.

Invariant 2: only changed resources are pushed, and only to the sidecars that they concern; a plan that cannot be
translated publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from meshctl.ads.snapshot import (
    BUCKET,
    CLUSTER,
    ENDPOINT,
    LISTENER,
    ROUTE,
    RUNTIME,
    SECRET,
    Snapshot,
    resource,
    snapshot,
)
from meshctl.envoy.translate import Credentials, serialize, translate
from meshctl.plan.model import MeshPlan, ProxyPlan

_TYPE_OF_KIND = {
    "runtime": RUNTIME,
    "cluster": CLUSTER,
    "endpoints": ENDPOINT,
    "secret": SECRET,
    "listener": LISTENER,
    "routes": ROUTE,
    "bucket": BUCKET,
}


class XdsServer(Protocol):
    """What the publisher needs of the xDS server (adapters.ads_grpc)."""

    def publish(self, snapshot: Snapshot) -> None:
        """Make a snapshot the one that its node should have."""
        ...

    def forget(self, node: str) -> None:
        """Drop what a node that is no more should have."""
        ...

    def renew_leases(self, node: str) -> None:
        """Send a node what it has for a time only once more."""
        ...

    async def wait_synced(
        self, node_versions: Mapping[str, str], timeout: float, *, require_connected: bool = True
    ) -> None:
        """Return when every named node acknowledged its version or a newer one."""
        ...


@dataclass(frozen=True, slots=True)
class _Published:
    plan: ProxyPlan
    credentials: Credentials
    snapshot: Snapshot


class Publisher:
    """Keeps every sidecar at the newest plan."""

    def __init__(self, server: XdsServer, credentials: Callable[[str], Credentials]) -> None:
        """``credentials`` gives those of a node; the authority behind it issues them beforehand."""
        self._server = server
        self._credentials = credentials
        self._published: dict[str, _Published] = {}

    @property
    def versions(self) -> Mapping[str, str]:
        """The snapshot version that each node should have."""
        return {node: item.snapshot.version for node, item in self._published.items()}

    def publish(self, plan: MeshPlan) -> Mapping[str, str]:
        """Publish what changed; returns the new snapshot versions of the nodes concerned."""
        made: dict[str, _Published] = {}
        for node, proxy in plan.proxies.items():
            credentials = self._credentials(node)
            before = self._published.get(node)
            if before is None or before.plan != proxy or before.credentials != credentials:
                made[node] = _Published(proxy, credentials, _snapshot(proxy, credentials))
        changed: dict[str, str] = {}
        for node in set(self._published) - set(plan.proxies):
            self._server.forget(node)
            del self._published[node]
        for node, item in made.items():
            before = self._published.get(node)
            self._published[node] = item
            if before is None or before.snapshot.version != item.snapshot.version:
                self._server.publish(item.snapshot)
                changed[node] = item.snapshot.version
        return changed

    def renew_leases(self) -> None:
        """Renew what sidecars have for a time only: the shares of faults."""
        for node, item in self._published.items():
            if item.plan.fault_shares:
                self._server.renew_leases(node)

    async def wait(self, versions: Mapping[str, str], timeout: float, *, require_connected: bool = False) -> None:
        """Return when the nodes have acknowledged these versions or newer ones.

        Raises:
            RejectedError: a sidecar refused; the message holds Envoy's words.
            WaitTimeoutError: not all did within ``timeout`` seconds.
        """
        current = {node: version for node, version in versions.items() if node in self._published}
        if current:
            await self._server.wait_synced(current, timeout, require_connected=require_connected)


def _snapshot(plan: ProxyPlan, credentials: Credentials) -> Snapshot:
    return snapshot(
        plan.node,
        (
            resource(
                _TYPE_OF_KIND[item.kind],
                item.name,
                serialize(item),
                ((_TYPE_OF_KIND[kind], name) for kind, name in item.needs),
                leased=item.leased,
            )
            for item in translate(plan, credentials)
        ),
    )
