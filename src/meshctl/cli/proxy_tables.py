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
                _timeout(route.get("route")),
                _action(route),
            ]
            for route in host.get("routes", [])
        ]
    return rows or [[table.get("name", ""), "none", "", "", "", ""]]


def _match(match: Resource) -> str:
    for key in ("prefix", "path", "path_separated_prefix"):
        if key in match:
            value = str(match[key])
            return value if key == "path" else f"{value}*"
    return str(match.get("safe_regex", {}).get("regex", "*"))


def _conditions(match: Resource) -> str:
    """What else than the path a request must have, such as ``:method DELETE|GET`` or ``idempotency-key``."""
    words = [_condition(item) for item in match.get("headers", [])]
    words += [f"?{_condition(item)}" for item in match.get("query_parameters", [])]
    return ", ".join(words)


def _condition(item: Resource) -> str:
    name = item.get("name", "")
    if item.get("invert_match") or item.get("present_match") is False:
        name = f"not {name}"
    if "range_match" in item:
        span = item["range_match"]
        return f"{name} {span.get('start', 0)}-{int(span.get('end', 0)) - 1}"
    test = item.get("string_match", {})
    value = test.get("exact") or test.get("safe_regex", {}).get("regex") or test.get("prefix") or ""
    if "contains" in test:
        value = f"*{test['contains']}*"
    return f"{name} {value}".strip()


def _action(route: Resource) -> str:
    action = route.get("route", {})
    if "weighted_clusters" in action:
        clusters = action["weighted_clusters"].get("clusters", [])
        return ", ".join(f"{item.get('name', '')} {item.get('weight', 0)}%" for item in clusters)
    if "cluster" in action:
        return str(action["cluster"])
    if "direct_response" in route:
        return f"answers {route['direct_response'].get('status', '')}"
    if "redirect" in route:
        return _redirect(route["redirect"])
    return str(action.get("cluster_header", ""))


def _timeout(action: Resource | None) -> str:
    """How long a forwarded request may take; ``begins 5s`` where only the answer's beginning is waited for."""
    if action is None:
        return ""
    whole = str(action.get("timeout", "15s"))  # Envoy's own, where none is set
    if whole not in ("0s", "0"):
        return whole
    begins = action.get("retry_policy", {}).get("per_try_timeout")
    return f"begins {begins}" if begins else "none"


def _redirect(redirect: Resource) -> str:
    scheme = f"{redirect['scheme_redirect']}://" if "scheme_redirect" in redirect else ""
    port = f":{redirect['port_redirect']}" if "port_redirect" in redirect else ""
    target = f"{scheme}{redirect.get('host_redirect', '')}{port}{redirect.get('path_redirect', '')}"
    return f"redirects to {target}"


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
    "routes": Table(("TABLE", "HOSTS", "PATH", "WHEN", "TIMEOUT", "TO"), "route_config", _route_rows),
}
"""How each kind of configuration is shown."""
