"""A frozen, internally consistent set of xDS resources for one sidecar.  Pure.

A resource's version is a hash of its serialised content, so equal content has an equal version across restarts of
the control plane, and a sidecar that reconnects is sent only what really differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type URL
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
RUNTIME = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
BUCKET = "type.googleapis.com/envoy.type.v3.TokenBucket"

TYPE_URLS = (CLUSTER, ENDPOINT, SECRET, LISTENER, ROUTE, RUNTIME, BUCKET)
"""Every type served, in the order in which additions are sent (make before break); removals come last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One named resource: ``body`` is the serialised message, ``version`` a hash of it.

    ``needs`` names the resources without which it must not be sent (a route's clusters, say): (type_url, name) pairs.
    ``leased`` resources are in effect for a time only, and are sent again to renew that.
    """

    type_url: str
    name: str
    body: bytes = field(repr=False)
    version: str
    needs: frozenset[tuple[str, str]] = frozenset()
    leased: bool = False


def resource(
    type_url: str, name: str, body: bytes, needs: Iterable[tuple[str, str]] = (), *, leased: bool = False
) -> Resource:
    """Make a resource with its version: 16 hex digits of the SHA-256 of the body."""
    version = hashlib.sha256(body).hexdigest()[:16]
    return Resource(type_url=type_url, name=name, body=body, version=version, needs=frozenset(needs), leased=leased)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All resources of one node (sidecar), by type and name. ``version`` is a hash over all of their versions."""

    node: str
    resources: Mapping[str, Mapping[str, Resource]]
    version: str

    def of(self, type_url: str) -> Mapping[str, Resource]:
        """The resources of one type, by name."""
        return self.resources.get(type_url, {})


def snapshot(node: str, resources: Iterable[Resource]) -> Snapshot:
    """Freeze resources into a snapshot. Raises ValueError when one is named twice or needs one that is not there."""
    by_type: dict[str, dict[str, Resource]] = {url: {} for url in TYPE_URLS}
    for item in sorted(resources, key=lambda r: (TYPE_URLS.index(r.type_url), r.name)):
        if item.name in by_type[item.type_url]:
            raise ValueError(f"{item.name} is twice among {item.type_url}")
        by_type[item.type_url][item.name] = item
    digest = hashlib.sha256()
    for url in TYPE_URLS:
        for item in by_type[url].values():
            digest.update(f"{url} {item.name} {item.version}\n".encode())
            for need_url, need_name in item.needs:
                if need_name not in by_type[need_url]:
                    raise ValueError(f"{item.name} needs {need_name}, which is not among {need_url}")
    return Snapshot(node=node, resources=by_type, version=digest.hexdigest()[:16])
