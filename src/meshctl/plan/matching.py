"""Which route of a plan a request takes, as Envoy would choose it.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.plan.model import Match, ProxyPlan, Route, RouteTable, VirtualHost
from meshctl.spec.routing_schema import ValueMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request: ``path`` may have a query, ``headers`` are by name in lower case; its body is short."""

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
    """The virtual host of a host name: the one that names it, else that for all others."""
    exact = (item for item in table.virtual_hosts if host in item.domains)
    others = (item for item in table.virtual_hosts if "*" in item.domains)
    return next(exact, next(others, None))


def find_route(host: VirtualHost, asked: Asked) -> Route | None:
    """The first route that a request matches."""
    name = host.domains[0]
    return next((route for route in host.routes if matches(route.match, asked, host=name)), None)


def matches(match: Match, asked: Asked, *, host: str = "") -> bool:
    """Whether a request is what a route is for. Its body is one that declares its length, which is short."""
    return (
        _matches_path(match, asked.bare_path)
        and (not match.methods or asked.method in match.methods)
        and (not match.header_present or match.header_present in asked.headers)
        and all(_matches_value(condition, asked.headers.get(condition.name)) for condition in match.headers)
        and all(_matches_value(condition, asked.query.get(condition.name)) for condition in match.query)
        and (not match.single_label_host or "." not in host)
        and not match.body_over
        and not match.body_undeclared
    )


def is_under(path: str, prefix: str) -> bool:
    """Whether a path is a prefix or lies below it, by whole segments."""
    bare = prefix.rstrip("/")
    return path == bare or path.startswith(f"{bare}/")


def _matches_path(match: Match, path: str) -> bool:
    if match.path_exact:
        return path == match.path_exact
    return is_under(path, match.path_prefix) and (not match.path_regex or _matches_regex(match.path_regex, path))


def _matches_value(condition: ValueMatch, value: str | None) -> bool:
    if condition.kind in ("present", "absent"):
        return (value is not None) == (condition.kind == "present")
    if value is None:
        return False
    return value == condition.value if condition.kind == "exact" else _matches_regex(condition.value, value)


def _matches_regex(pattern: str, text: str) -> bool:
    # Envoy has RE2, whose expressions mean the same here; `validate` refuses those that RE2 does not take.
    return re.fullmatch(pattern, text, re.ASCII) is not None
