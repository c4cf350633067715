"""What must hold of the rules of a service: versions, callers, and that each can match.  Pure.

A rule is found never to match only when that is certain: some one rule before it takes all that it could.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from meshctl.errors import Where
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.routing_keys import MATCH, SERVICE_ROUTE
from meshctl.spec.routing_schema import PathMatch, RouteMatch, RouteRule, ValueMatch
from meshctl.spec.schema import Service
from meshctl.spec.source import ListNode, MapNode
from meshctl.spec.tree import find, key_place

GATEWAY = "gateway"
_NO_ROUTES = ("routes", "sticky", "mirror")
_PLAIN_REGEX = re.compile(r"(?:[A-Za-z0-9/_~%=, -]|\\[.+*?/-]|\[[A-Za-z0-9_-]+\]|[.*+?()|])*")
# What means the same in every engine, so that Python may say what RE2 will match.


def check_routes(service: Service, services: Mapping[str, Service], root: MapNode, report: Report) -> None:
    """Report what does not fit together in the rules of one service."""
    written = [name for name in _NO_ROUTES if find(root, "services", service.name, name)]
    reason = "speaks plain TCP" if service.protocol == "tcp" else "is a job, which takes no calls"
    if written and (service.protocol == "tcp" or service.is_job):
        message = f"{quote(service.name)} {reason}, so {join_names(map(quote, written))} would do nothing"
        where = key_place(root, "services", service.name, written[0])
        report.add("conflicting-keys", message, where, "routes are for requests: remove it")
        return
    for label, version, where in _versions(service, root):
        _check_version(service, label, version, where, report)
    understood = _all_keys_known(service, root)
    for number, rule in enumerate(service.routes):
        _check_callers(service, rule, services, report)
        if understood:
            _check_reachable(rule, service.routes[:number], report)


def covers(wide: RouteMatch, narrow: RouteMatch) -> bool:
    """Whether it is certain that every request which ``narrow`` matches is one that ``wide`` matches."""
    return (
        _covers_path(wide.path, narrow.path)
        and _covers_names(wide.methods, narrow.methods)
        and _covers_names(wide.callers, narrow.callers)
        and all(any(_implies(given, wanted) for given in narrow.headers) for wanted in wide.headers)
        and all(any(_implies(given, wanted) for given in narrow.query) for wanted in wide.query)
    )


def _all_keys_known(service: Service, root: MapNode) -> bool:
    """Whether the rules are read as they are meant: one whose condition has a misspelt key seems to take everything."""
    entry = find(root, "services", service.name, "routes")
    items = entry.node.items if entry is not None and isinstance(entry.node, ListNode) else ()
    known = {key.name for key in SERVICE_ROUTE.keys}, {key.name for key in MATCH.keys}
    for item in items:
        match = item.get("match") if isinstance(item, MapNode) else None
        for node, keys in zip((item, match), known, strict=True):
            if isinstance(node, MapNode) and not node.entries.keys() <= keys:
                return False
    return True


def _versions(service: Service, root: MapNode) -> Iterator[tuple[str, str, Where]]:
    if service.mirror is not None:
        where = key_place(root, "services", service.name, "mirror", "version")
        yield "`mirror`", service.mirror.version, where
    for rule in service.routes:
        label = f"the route {quote(rule.name)}"
        for version in rule.split:
            yield label, version, rule.where
        if rule.mirror is not None:
            yield label, rule.mirror.version, rule.where


def _check_version(service: Service, label: str, version: str, where: Where, report: Report) -> None:
    if service.address is not None:
        message = f"{label} names the version {quote(version)} of a service with an `address`, which has none"
        report.add("conflicting-keys", message, where, "remove the version")
    elif service.versions and version not in service.versions:
        suggestion = report.suggest(version, service.versions)
        message = f"{label} names {quote(version)}, which is no version of {quote(service.name)}{suggestion}"
        report.add("unknown-version", message, where, f"versions: {', '.join(service.versions)}")


def _check_callers(service: Service, rule: RouteRule, services: Mapping[str, Service], report: Report) -> None:
    for name in rule.match.callers:
        if name == GATEWAY:
            continue
        caller = services.get(name)
        label = f"the route {quote(rule.name)} is for requests from {quote(name)}"
        if caller is None:
            known = [*services, GATEWAY]
            message = f"{label}, which is no service{report.suggest(name, known)}"
            report.add("unknown-service", message, rule.where, f"services: {', '.join(sorted(known))}")
        elif service.name not in caller.upstreams:
            callers = sorted(other.name for other in services.values() if service.name in other.upstreams)
            message = f"{label}, which does not call {quote(service.name)}"
            hint = f"its callers: {', '.join([*callers, GATEWAY])}; or add it to the `upstreams` of {quote(name)}"
            report.add("route-caller", message, rule.where, hint)


def _check_reachable(rule: RouteRule, before: tuple[RouteRule, ...], report: Report) -> None:
    taker = next((other for other in before if covers(other.match, rule.match)), None)
    if taker is not None:
        message = (
            f"the route {quote(rule.name)} can never match: {quote(taker.name)} (line {taker.where.line}) "
            "takes every request that it could"
        )
        hint = f"move it above {quote(taker.name)}, or remove it: the first route that matches wins"
        report.add("unreachable-route", message, rule.where, hint)


def _covers_path(wide: PathMatch, narrow: PathMatch) -> bool:
    if wide == narrow or wide == PathMatch():
        return True
    if wide.kind == "prefix":
        return narrow.kind != "regex" and is_under(narrow.value, wide.value)
    if wide.kind == "regex" and narrow.kind == "exact":
        return _certainly_matches(wide.value, narrow.value)
    return False


def is_under(path: str, prefix: str) -> bool:
    """Whether a path begins with the segments of a prefix that does not end with a slash (but for ``/`` itself)."""
    return prefix in ("/", path) or path.startswith(f"{prefix}/")


def _covers_names(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _implies(given: ValueMatch, wanted: ValueMatch) -> bool:
    if given.name != wanted.name:
        return False
    if given == wanted:
        return True
    if wanted.kind == "present":
        return given.kind in ("exact", "regex")
    return wanted.kind == "regex" and given.kind == "exact" and _certainly_matches(wanted.value, given.value)


def _certainly_matches(pattern: str, text: str) -> bool:
    return _PLAIN_REGEX.fullmatch(pattern) is not None and re.fullmatch(pattern, text, re.ASCII) is not None
