"""Which route of a plan a request takes, as Envoy would choose it.  Pure.

A test holds it against a real Envoy over random tables and requests. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/route_matching
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.plan.model import Match, ProxyPlan, Route, RouteTable, VirtualHost
from meshctl.spec.routing_schema import ValueMatch
from meshctl.spec.validate_routes import is_under

_SINGLE_LABEL = re.compile(r"[^.:\[\]]+(:[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request: ``path`` may have a query; ``headers`` are by name in lower case, several of one joined by commas."""

    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def bare_path(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of its query as they are written; the first of each name."""
        found: dict[str, str] = {}
        for part in self.path.partition("?")[2].split("&"):
            name, _, value = part.partition("=")
            found.setdefault(name, value)
        return found


def find_table(proxy: ProxyPlan, name: str) -> RouteTable | None:
    """A table of a proxy by its name."""
    return next((table for table in proxy.route_tables if table.name == name), None)


def find_host(table: RouteTable, host: str) -> VirtualHost | None:
    """The virtual host of a host: the one that names it, else one such as ``name:*``, else that for all others."""
    wanted = host.lower()
    best: tuple[int, VirtualHost] | None = None
    for candidate in table.virtual_hosts:
        for domain in candidate.domains:
            if domain == wanted:
                return candidate
            rank = len(domain) if _fits(domain, wanted) else 0
            if rank and (best is None or rank > best[0]):
                best = (rank, candidate)
    return best[1] if best else None


def find_route(host: VirtualHost, asked: Asked, *, name: str = "") -> Route | None:
    """The first route that a request matches; ``name`` is the host it names, by default the first of ``host``."""
    named = name or host.domains[0]
    return next((route for route in host.routes if matches(route.match, asked, host=named)), None)


def matches(match: Match, asked: Asked, *, host: str = "") -> bool:
    """Whether a request is what a route is for. Its body is one that declares its length, which is short."""
    return (
        _matches_path(match, asked.bare_path)
        and (not match.methods or asked.method in match.methods)
        and (not match.header_present or match.header_present in asked.headers)
        and (not match.single_label_host or _SINGLE_LABEL.fullmatch(host) is not None)
        and _matches_body(match, asked.headers)
        and all(_matches_value(condition, asked.headers.get(condition.name)) for condition in match.headers)
        and all(_matches_value(condition, asked.query.get(condition.name)) for condition in match.query)
    )


def _fits(domain: str, host: str) -> bool:
    return domain == "*" or (domain.endswith("*") and len(host) >= len(domain) and host.startswith(domain[:-1]))


def _matches_path(match: Match, path: str) -> bool:
    if match.path_exact:
        return path == match.path_exact
    if match.path_regex and re.fullmatch(match.path_regex, path, re.ASCII) is None:
        return False
    return is_under(path, match.path_prefix.rstrip("/") or "/")


def _matches_body(match: Match, headers: Mapping[str, str]) -> bool:
    length = headers.get("content-length", "")
    if match.body_over and not (length.isdigit() and int(length) > match.body_over):
        return False
    return not match.body_undeclared or not (length or "upgrade" in headers)


def _matches_value(condition: ValueMatch, value: str | None) -> bool:
    if value is None:
        return condition.kind == "absent"
    match condition.kind:
        case "exact":
            return value == condition.value
        case "regex":
            return re.fullmatch(condition.value, value, re.ASCII) is not None
        case "present":
            return True
        case "absent":
            return False
