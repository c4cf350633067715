"""What sidecars have: their sync state, and their own account of their configuration.  I/O (admin sockets)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args

from meshctl.ads.status import SyncStatus
from meshctl.errors import ConflictError, UsageError
from meshctl.ports import ProxyAdmin
from meshctl.wire.models import ProxyConfig, ProxyStatus, ProxyStatusList, ProxyTypeStatus

ConfigKind = Literal["clusters", "routes", "listeners", "endpoints", "secrets"]

_KEYS: dict[str, tuple[str, ...]] = {
    "clusters": ("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"),
    "routes": ("static_route_configs", "dynamic_route_configs"),
    "listeners": ("static_listeners", "dynamic_listeners"),
    "endpoints": ("static_endpoint_configs", "dynamic_endpoint_configs"),
    "secrets": ("static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"),
}
# The lists of Envoy's config dump that hold each kind. Source:
# https://www.envoyproxy.io/docs/envoy/latest/api-v3/admin/v3/config_dump.proto


def list_proxies(nodes: Iterable[str], sync: Callable[[str], SyncStatus]) -> ProxyStatusList:
    """The sync state of sidecars."""
    return ProxyStatusList(proxies=[_status(node, sync(node)) for node in nodes])


async def read_proxy_config(admin: ProxyAdmin, socket: str, sidecar: str, kind: str) -> ProxyConfig:
    """What a sidecar has of one kind, from its config dump (private keys are redacted by Envoy itself).

    Raises:
        UsageError: there is no such kind.
        ConflictError: the sidecar does not answer.
    """
    for known in get_args(ConfigKind):
        if kind == known:
            try:
                dump = json.loads(await admin.get(socket, "/config_dump?include_eds"))
            except OSError as error:
                raise ConflictError(f"the sidecar of {sidecar} does not answer: {error}") from error
            return ProxyConfig(sidecar=sidecar, kind=known, resources=list(_resources(dump, known)))
    raise UsageError(f"no kind {kind!r} of configuration", hint=f"kinds: {', '.join(get_args(ConfigKind))}")


def _resources(dump: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    for section in dump.get("configs", []):
        for key in _KEYS[kind]:
            yield from section.get(key, [])


def _status(node: str, sync: SyncStatus) -> ProxyStatus:
    return ProxyStatus(
        sidecar=node,
        state=sync.state,
        connected=sync.connected,
        types=[
            ProxyTypeStatus(
                type=item.type,
                state=item.state,
                resources=item.resources,
                version=item.version,
                acked_at=item.acked_at,
                error=item.error,
            )
            for item in sync.types
        ],
    )
