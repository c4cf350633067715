"""The routes that lead to one service: its own rules, then its split, each by what may be repeated.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meshctl.plan.facts import Facts
from meshctl.plan.model import Forward, Match, PathRewrite, Redirect, Route
from meshctl.plan.policies.hashing import name_source, plan_balancing_hash, plan_sticky
from meshctl.plan.policies.mirror import plan_mirror
from meshctl.plan.policies.retry import IDEMPOTENCY_HEADER, IDEMPOTENT_METHODS, plan_retry
from meshctl.plan.policies.timeouts import TOLD_HEADER, plan_timeout
from meshctl.plan.splits import split_of
from meshctl.spec.policy_schema import RetryPolicy
from meshctl.spec.routing_schema import NO_CHANGES, HeaderChanges, RedirectTo, RouteMatch, RouteRule, Sticky
from meshctl.spec.schema import Service
from meshctl.spec.validate_routes import GATEWAY, is_under

_NOT_OUTSIDE = HeaderChanges(remove=(TOLD_HEADER,))
# What sidecars tell each other is nobody else's business.


def service_routes(service: Service, caller: str, facts: Facts, *, under: str = "/") -> tuple[Route, ...]:
    """The routes of one caller to a service, for requests whose path lies under a prefix; the first that matches wins.

    The service's rules that are not for this caller, or for no path under the prefix, are left out.
    """
    routes: list[Route] = []
    for rule in service.routes:
        if rule.match.callers and caller not in rule.match.callers:
            continue
        match = _plan_match(rule.match, under)
        if match is not None:
            routes += _plan_rule(service, rule, match, facts)
    routes += _by_repeatability(service.name, Match(path_prefix=under), _forward(service, facts), service, None)
    return tuple(routes) if caller == GATEWAY else tuple(_from_caller(route, caller) for route in routes)


def _from_caller(route: Route, caller: str) -> Route:
    if not isinstance(route.action, Forward):
        return route
    hash_on = name_source(route.action.hash_on, caller)
    return route if hash_on == route.action.hash_on else replace(route, action=replace(route.action, hash_on=hash_on))


def route_name(service: Service, rule: RouteRule) -> str:
    """The name of a rule's routes."""
    return f"{service.name}/{rule.name}"


def _plan_rule(service: Service, rule: RouteRule, match: Match, facts: Facts) -> Iterator[Route]:
    name = route_name(service, rule)
    if rule.redirect is not None:
        yield Route(name=name, match=match, action=_redirect(rule.redirect))
        return
    yield from _by_repeatability(name, match, _forward_by_rule(service, rule, facts), service, rule.retry_policy)


def _by_repeatability(
    name: str, match: Match, base: Forward, service: Service, policy: RetryPolicy | None
) -> Iterator[Route]:
    """Requests that may be repeated (by method, or because they carry an Idempotency-Key) are retried on more."""
    repeatable = plan_retry(service, policy, repeatable=True)
    if repeatable is None:
        yield Route(name=name, match=match, action=base)
        return
    careful = plan_retry(service, policy, repeatable=False)
    again = replace(base, retry=repeatable)
    methods = tuple(method for method in IDEMPOTENT_METHODS if not match.methods or method in match.methods)
    if methods:
        yield Route(name=name, match=replace(match, methods=methods), action=again)
    if match.methods and set(match.methods) <= set(methods):
        return
    yield Route(name=name, match=replace(match, header_present=IDEMPOTENCY_HEADER), action=again)
    yield Route(name=name, match=match, action=replace(base, retry=careful))


def _forward(service: Service, facts: Facts) -> Forward:
    address = service.address
    base = Forward(
        split=split_of(service, facts),
        timeout=plan_timeout(service),
        idle_timeout=service.policies.timeout.idle,
        host_rewrite="" if address is None else _host_header(address.host, address.port, tls=address.tls),
        request_changes=NO_CHANGES if address is None else _NOT_OUTSIDE,
        mirror=plan_mirror(service, service.mirror),
    )
    return _stick(base, service, service.sticky, split_of(service, facts, sticky=True))


def _forward_by_rule(service: Service, rule: RouteRule, facts: Facts) -> Forward:
    base = _forward(service, facts)
    mirror = plan_mirror(service, rule.mirror) if rule.mirror is not None else base.mirror
    base = replace(
        base,
        split=split_of(service, facts, rule.split),
        timeout=plan_timeout(service, rule.timeout, explicit=rule.own_timeout),
        idle_timeout=rule.timeout.idle,
        request_changes=replace(
            rule.request_headers, remove=(*rule.request_headers.remove, *base.request_changes.remove)
        ),
        response_changes=rule.response_headers,
        mirror=mirror,
    )
    rewrite = rule.rewrite
    if rewrite is not None and rewrite.host:
        base = replace(base, host_rewrite=rewrite.host)
    if rewrite is not None and (rewrite.prefix or rewrite.path):
        prefix = rule.match.path.value if rewrite.prefix else ""
        base = replace(base, path_rewrite=PathRewrite(prefix=prefix, replacement=rewrite.prefix or rewrite.path))
    sticky = rule.sticky or service.sticky
    return _stick(base, service, sticky, split_of(service, facts, rule.split, sticky=True))


def _stick(base: Forward, service: Service, sticky: Sticky | None, split: tuple[tuple[str, int], ...]) -> Forward:
    """The split made sticky, if it is to be and there is something to choose from."""
    hash_on = plan_sticky(sticky)
    if hash_on is None or len(split) < 2:
        return replace(base, hash_on=plan_balancing_hash(service), sticky=False)
    return replace(base, split=split, hash_on=(hash_on,), sticky=True)


def _redirect(target: RedirectTo) -> Redirect:
    return Redirect(status=target.status, path=target.path, host=target.host, scheme=target.scheme)


def _plan_match(match: RouteMatch, under: str) -> Match | None:
    """A rule's match for paths under a prefix; None when there are none."""
    conditions = Match(methods=match.methods, headers=match.headers, query=match.query)
    prefix = under.rstrip("/") or "/"
    path = match.path
    if path.kind == "regex":
        return replace(conditions, path_prefix=under, path_regex=path.value)
    if path.kind == "exact":
        return replace(conditions, path_exact=path.value) if is_under(path.value, prefix) else None
    if is_under(path.value, prefix):
        return replace(conditions, path_prefix=path.value)
    return replace(conditions, path_prefix=under) if is_under(prefix, path.value) else None


def _host_header(host: str, port: int, *, tls: bool) -> str:
    # RFC 3986, section 3.2.2: IPv6 addresses stand in brackets.
    shown = f"[{host}]" if ":" in host else host
    return shown if port == (443 if tls else 80) else f"{shown}:{port}"
