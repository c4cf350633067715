"""Which route of a plan a request takes, as Envoy would choose it.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.plan.model import Match, ProxyPlan, Route, RouteTable, VirtualHost


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
    """Whether a request is what a route is for."""
    return (
        _is_under(asked.bare_path, match.path_prefix)
        and (not match.methods or asked.method in match.methods)
        and (not match.header_present or match.header_present in asked.headers)
        and (not match.single_label_host or "." not in host)
        and not match.body_over
        and not match.body_undeclared
    )


def _is_under(path: str, prefix: str) -> bool:
    """Whether a path is a prefix or lies below it, by whole segments."""
    bare = prefix.rstrip("/")
    return path == bare or path.startswith(f"{bare}/")
