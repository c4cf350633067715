"""Rows for people from a sidecar's config dump.  Pure: resources as Envoy dumps them enter, cells leave.

The dump wraps each resource in an entry of its own (``{"version_info", "cluster": {...}}``). Source:
https://www.envoyproxy.io/docs/envoy/latest/api-v3/admin/v3/config_dump.proto
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from meshctl.wire.models import ProxyConfig

Row = list[str]
Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """How one kind is shown: the column titles, the key that wraps a resource, and the rows of one resource."""

    titles: tuple[str, ...]
    wrapper: str
    rows: Callable[[Resource], list[Row]]


def rows_of(config: ProxyConfig) -> list[Row]:
    """The rows of one kind, sorted by resource; what a resource lacks is shown as ``-``.

    The rows of one resource keep their order, because the first route that matches is taken.
    """
    table = TABLES[config.kind]
    groups: list[list[Row]] = []
    for entry in config.resources:
        state = entry.get("active_state", entry.get("warming_state", entry))  # listeners are wrapped twice
        groups.append([[cell or "-" for cell in row] for row in table.rows(state.get(table.wrapper, state))])
    return [row for group in sorted(groups, key=lambda group: group[0][0]) for row in group]


def _cluster_rows(cluster: Resource) -> list[Row]:
    kind = cluster.get("type") or cluster.get("cluster_type", {}).get("name", "STATIC")
    policy = cluster.get("lb_policy", "ROUND_ROBIN")
    mtls = "mTLS" if "transport_socket" in cluster or "transport_socket_matches" in cluster else "plain"
    return [[cluster.get("name", ""), kind, policy, mtls, cluster.get("connect_timeout", "")]]


def _endpoint_rows(assignment: Resource) -> list[Row]:
    rows: list[Row] = []
    for locality in assignment.get("endpoints", []):
        for item in locality.get("lb_endpoints", []):
            address = _address(item.get("endpoint", {}).get("address", {}))
            health = item.get("health_status", "UNKNOWN")
            rows.append(
                [assignment.get("cluster_name", ""), address, health, str(item.get("load_balancing_weight", 1))]
            )
    return rows or [[assignment.get("cluster_name", ""), "none", "", ""]]


def _secret_rows(secret: Resource) -> list[Row]:
    # The entry's own name is kept inside the resource too.
    if "tls_certificate" in secret:
        kind = "certificate and key"
    elif "validation_context" in secret:
        kind = "trusted roots"
    else:
        kind = ""
    return [[secret.get("name", ""), kind]]


def _listener_rows(listener: Resource) -> list[Row]:
    chains = listener.get("filter_chains", [])
    tls = any("transport_socket" in chain for chain in chains)
    direction = listener.get("traffic_direction", "")
    return [[listener.get("name", ""), _address(listener.get("address", {})), direction, "mTLS" if tls else "plain"]]


def _route_rows(table: Resource) -> list[Row]:
    rows: list[Row] = []
    for host in table.get("virtual_hosts", []):
        domains = ", ".join(host.get("domains", []))
        rows += [
            [
                table.get("name", ""),
                domains,
                _match(route.get("match", {})),
                _conditions(route.get("match", {})),
                _action(route),
            ]
            for route in host.get("routes", [])
        ]
    return rows or [[table.get("name", ""), "none", "", "", ""]]


def _match(match: Resource) -> str:
    for key in ("prefix", "path", "path_separated_prefix"):
        if key in match:
            value = str(match[key])
            return value if key == "path" else f"{value}*"
    return str(match.get("safe_regex", {}).get("regex", "*"))


def _conditions(match: Resource) -> str:
    """What else than the path a request must have, such as ``:method DELETE|GET`` or ``idempotency-key``."""
    words: list[str] = []
    for header in match.get("headers", []):
        test = header.get("string_match", {})
        value = test.get("exact") or test.get("safe_regex", {}).get("regex") or test.get("prefix") or ""
        name = f"not {header.get('name', '')}" if header.get("invert_match") else header.get("name", "")
        words.append(f"{name} {value}".strip())
    return ", ".join(words)


def _action(route: Resource) -> str:
    action = route.get("route", {})
    if "weighted_clusters" in action:
        clusters = action["weighted_clusters"].get("clusters", [])
        return ", ".join(f"{item.get('name', '')} {item.get('weight', 0)}%" for item in clusters)
    if "cluster" in action:
        return str(action["cluster"])
    if "direct_response" in route:
        return f"answers {route['direct_response'].get('status', '')}"
    return str(action.get("cluster_header", ""))


def _address(address: Resource) -> str:
    if "pipe" in address:
        return str(address["pipe"].get("path", ""))
    place = address.get("socket_address", {})
    return f"{place['address']}:{place.get('port_value', 0)}" if "address" in place else ""


TABLES: dict[str, Table] = {
    "clusters": Table(("NAME", "TYPE", "BALANCING", "TLS", "CONNECT TIMEOUT"), "cluster", _cluster_rows),
    "endpoints": Table(("CLUSTER", "ADDRESS", "HEALTH", "WEIGHT"), "endpoint_config", _endpoint_rows),
    "secrets": Table(("NAME", "HOLDS"), "secret", _secret_rows),
    "listeners": Table(("NAME", "ADDRESS", "DIRECTION", "TLS"), "listener", _listener_rows),
    "routes": Table(("TABLE", "HOSTS", "PATH", "WHEN", "TO"), "route_config", _route_rows),
}
"""How each kind of configuration is shown."""
