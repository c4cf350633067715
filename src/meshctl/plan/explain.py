"""What will happen to a request, out of the very plan that the sidecars get, and which policies say so.  Pure.

Each policy has a function that adds its lines; ``CONTRIBUTIONS`` is their order, which is the way of a request: the
caller's sidecar chooses, waits, repeats; the callee's admits and limits. Where a policy was written is looked up by
its keys afterwards (``spec.provenance``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from meshctl.errors import Where
from meshctl.identity.spiffe import spiffe_id
from meshctl.plan.admission import NO_POLICY, Admission, find_admission
from meshctl.plan.explain_words import (
    describe_hash,
    describe_headers,
    describe_match,
    describe_rewrite,
    describe_split,
)
from meshctl.plan.facts import Facts
from meshctl.plan.fault_forecast import describe_fault, is_for
from meshctl.plan.matching import Asked, find_host, find_route, find_table
from meshctl.plan.model import (
    ExternalCluster,
    FilterPlan,
    Forward,
    MeshCluster,
    MeshPlan,
    ProxyPlan,
    Redirect,
    Reply,
    Route,
    TcpListener,
    VirtualHost,
)
from meshctl.plan.policies.authorization import (
    AMBIGUOUS_PATH,
    DEFAULT_ALLOW,
    DEFAULT_DENY,
    NO_ALLOW_RULE,
    Call,
)
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan
from meshctl.plan.policies.fallback import CachedFallbackPlan, StaticFallbackPlan
from meshctl.plan.policies.rate_limits import CALLER_HEADER, plan_rate_limits
from meshctl.plan.policies.timeouts import TOLD_HEADER
from meshctl.plan.routes import GATEWAY, find_gateway_route
from meshctl.plan.rules import route_name
from meshctl.spec.routing_schema import RouteRule
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.validate_routes import is_under
from meshctl.spec.values import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happens.

    ``keys`` are the paths of the policy keys that say so, and ``where`` is the place of a rule that does; neither for
    what follows from others.
    """

    topic: str
    words: str
    keys: tuple[str, ...] = ()
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A request on its way: who asks whom for what, the route it takes, and the plans of both ends."""

    mesh: Mesh
    caller: str
    service: Service
    asked: Asked
    host: VirtualHost
    route: Route
    proxy: ProxyPlan
    facts: Facts

    @property
    def filters(self) -> tuple[FilterPlan, ...]:
        """The HTTP filters that the caller's sidecar has switched on for it."""
        return (*self.route.filters, *self.host.filters)

    @property
    def rule(self) -> RouteRule | None:
        """The rule of the service whose route it takes."""
        return next((rule for rule in self.service.routes if route_name(self.service, rule) == self.route.name), None)

    @property
    def forward(self) -> Forward | None:
        """Where it goes; None for one that is answered at once."""
        return self.route.action if isinstance(self.route.action, Forward) else None

    @property
    def clusters(self) -> tuple[MeshCluster | ExternalCluster, ...]:
        """The clusters that it may go to."""
        names = {name for name, _ in self.forward.split} if self.forward is not None else set()
        return tuple(
            cluster
            for cluster in self.proxy.clusters
            if isinstance(cluster, MeshCluster | ExternalCluster) and cluster.name in names
        )


Contribution = Callable[[Situation], Iterator[Line]]


def explain(mesh: Mesh, plan: MeshPlan, facts: Facts, *, caller: str, service: Service, asked: Asked) -> list[Line]:
    """What happens to a request of a caller to a service, in the order in which it happens.

    Raises:
        KeyError: the caller has no sidecar.
    """
    proxy = plan.proxies[caller]
    if service.protocol == "tcp":
        return _explain_tcp(mesh, proxy, service, facts.open_services)
    return _explain_http(mesh, proxy, facts, service=service, asked=asked, table="outbound")


def explain_gateway(mesh: Mesh, plan: MeshPlan, facts: Facts, asked: Asked) -> tuple[Service | None, list[Line]]:
    """What happens to a request from outside of the mesh, and the service that the gateway leads it to.

    Raises:
        KeyError: the mesh has no gateway for the outside.
    """
    if mesh.gateway is None:
        raise KeyError(GATEWAY)
    rule = find_gateway_route(mesh.gateway, asked.bare_path)
    if rule is None:
        known = ", ".join(sorted(rule.path for rule in mesh.gateway.routes)) or "none"
        return None, [Line(topic="route", words=f"no route of the gateway takes it: 404; its routes: {known}")]
    service = mesh.services[rule.service]
    proxy = plan.proxies[GATEWAY]
    first = Line(topic="gateway", words=f"what is under {rule.path} goes to {service.name}", where=rule.where)
    return service, [first, *_explain_http(mesh, proxy, facts, service=service, asked=asked, table=GATEWAY)]


def _explain_http(
    mesh: Mesh, proxy: ProxyPlan, facts: Facts, *, service: Service, asked: Asked, table: str
) -> list[Line]:
    found = find_table(proxy, table)
    assert found is not None
    host = find_host(found, service.name)
    route = None if host is None else find_route(host, asked)
    if host is None or route is None:
        return [Line(topic="route", words="no route takes it: 404")]
    here = Situation(
        mesh=mesh, caller=proxy.node, service=service, asked=asked, host=host, route=route, proxy=proxy, facts=facts
    )
    return [line for contribute in CONTRIBUTIONS for line in contribute(here)]


def _explain_tcp(mesh: Mesh, proxy: ProxyPlan, service: Service, open_services: tuple[str, ...]) -> list[Line]:
    call = Call(source=proxy.node)
    listener = next((item for item in proxy.listeners if item.name == f"upstream/{service.name}"), None)
    if not isinstance(listener, TcpListener):
        return [Line(topic="route", words=f"{proxy.node} has no upstream {service.name}, which speaks plain TCP")]
    words = describe_split(listener.split)
    return [
        Line(topic="route", words="plain TCP: a connection is handed on as it is"),
        Line(topic="goes to", words=words, keys=("split",)),
        *([] if service.address else [describe_admission(find_admission(mesh, open_services, service.name, call))]),
    ]


def _faults(here: Situation) -> Iterator[Line]:
    for active in here.facts.faults:
        if is_for(active.fault, here.service, here.caller, here.asked):
            yield Line(topic="fault", words=f"{active.id} is on: {describe_fault(active.fault)}")


def _route(here: Situation) -> Iterator[Line]:
    action, rule = here.route.action, here.rule
    where = None if rule is None else rule.where
    if isinstance(action, Reply):
        body = action.body.strip().replace("{host}", here.service.name).replace("{path}", here.asked.path)
        yield Line(topic="route", words=f"answered at once with {action.status}: {body}", where=where)
        return
    keys = () if rule is None else ("routes",)
    yield Line(topic="route", words=f"{here.route.name}: {describe_match(here.route.match)}", keys=keys, where=where)
    if isinstance(action, Redirect):
        target = f"{action.scheme or 'http'}://{action.host or here.service.name}{action.path or here.asked.path}"
        yield Line(topic="redirect", words=f"{action.status} to {target}", keys=keys, where=where)
        return
    if action.path_rewrite is not None or (action.host_rewrite and here.service.address is None):
        words = describe_rewrite(action, here.asked.path)
        yield Line(topic="rewrite", words=words, keys=keys, where=where)
    # What sidecars tell each other goes to nobody outside, which nobody asked for.
    asked = tuple(name for name in action.request_changes.remove if name != TOLD_HEADER)
    changed = replace(action.request_changes, remove=asked)
    for name, changes in (("request", changed), ("answer", action.response_changes)):
        words = describe_headers(changes)
        if words:
            yield Line(topic="headers", words=f"of the {name}: {words}", keys=keys, where=where)


def _goes_to(here: Situation) -> Iterator[Line]:
    if here.forward is None:
        return
    rule = here.rule
    own = rule is not None and bool(rule.split)
    split = describe_split(here.forward.split)
    where = rule.where if rule is not None and own else None
    yield Line(topic="goes to", words=split, keys=("routes",) if own else ("split",), where=where)
    if here.forward.sticky:
        on = here.forward.hash_on[0]
        words = f"who has the {on.kind} {on.name} stays on one version"
        yield Line(topic="sticky", words=words, keys=("sticky",))
    mirror = here.forward.mirror
    if mirror is not None:
        words = f"a copy of {mirror.percent:g}% goes to {mirror.cluster}, whose answers are dropped"
        yield Line(topic="mirror", words=words, keys=("mirror",))
    for endpoints in here.proxy.endpoints:
        if endpoints.cluster in {cluster.name for cluster in here.clusters}:
            healthy = sum(endpoint.health == "healthy" for endpoint in endpoints.endpoints)
            words = f"{endpoints.cluster}: {healthy} of {len(endpoints.endpoints)} healthy"
            yield Line(topic="instances", words=words)


def _balancing(here: Situation) -> Iterator[Line]:
    if not here.clusters:
        return
    plan = here.clusters[0].load_balancing
    more = [describe_hash(item) for item in here.forward.hash_on] if here.forward and not here.forward.sticky else []
    more += [f"a new instance has its full share after {format_duration(plan.slow_start)}"] if plan.slow_start else []
    names = {cluster.name for cluster in here.clusters}
    found = [one for item in here.proxy.endpoints if item.cluster in names for one in item.endpoints]
    if any(endpoint.weight != 1 for endpoint in found):
        more.append(f"weights {', '.join(str(endpoint.weight) for endpoint in found)}")
    if plan.panic_threshold:
        more.append(f"to all instances with less than {plan.panic_threshold:g}% healthy")
    yield Line(topic="chosen by", words="; ".join([plan.algorithm, *more]), keys=("load_balancing",))


def _timeout(here: Situation) -> Iterator[Line]:
    forward, rule = here.forward, here.rule
    if forward is None:
        return
    where = rule.where if rule is not None and rule.timeout != here.service.policies.timeout else None
    words = (
        f"{format_duration(forward.timeout)} for the whole answer, retries included"
        if forward.timeout
        else "none of the mesh's own: the caller's deadline holds"
    )
    if forward.idle_timeout is not None:
        silence = f"{format_duration(forward.idle_timeout)} of silence" if forward.idle_timeout else "silence for ever"
        words += f"; {silence}"
    yield Line(topic="timeout", words=words, keys=("timeout",), where=where)


def _retries(here: Situation) -> Iterator[Line]:
    if here.forward is None:
        return
    retry = here.forward.retry
    rule = here.rule
    where = rule.where if rule is not None and rule.retry_policy != here.service.policies.retry_policy else None
    if retry is None:
        yield Line(topic="retries", words="none", keys=("retry_policy",), where=where)
        return
    if retry.repeatable:
        on = [*map(str, retry.status_codes), *retry.conditions, *retry.grpc_codes]
        why = f"on {', '.join(on)}" if on else "on nothing"
    else:
        why = f"only when it never reached {here.service.name}: {here.asked.method} may not be safe to repeat"
    delays = f"within {format_duration(retry.base_interval)} to {format_duration(retry.max_interval)}"
    parts = [f"up to {retry.retries}", delays]
    if retry.per_try_timeout:
        parts.append(f"each at most {format_duration(retry.per_try_timeout)}")
    yield Line(topic="retries", words=", ".join([*parts, why]), keys=("retry_policy",), where=where)


def _circuit(here: Situation) -> Iterator[Line]:
    plan = next((item for item in here.filters if isinstance(item, CircuitBreakerPlan)), None)
    if here.forward is None or plan is None:
        return
    if plan.forced == "open":
        yield Line(topic="circuit", words="held open: 503 at once", keys=("circuit_breaker.forced",))
        return
    if plan.forced == "closed":
        yield Line(topic="circuit", words="held closed, whatever fails", keys=("circuit_breaker.forced",))
        return
    rate = f" or {plan.failure_rate:g}% of {plan.minimum_requests}" if plan.failure_rate else ""
    slow = f", calls over {format_duration(plan.slow_call)} among them" if plan.slow_call else ""
    words = (
        f"opens after {plan.failure_threshold} failures in a row{rate}{slow}; then 503 at once for "
        f"{format_duration(plan.timeout)}, and {plan.success_threshold} successes close it"
    )
    yield Line(topic="circuit", words=words, keys=("circuit_breaker",))


def _fallback(here: Situation) -> Iterator[Line]:
    plan = next((item for item in here.filters if isinstance(item, CachedFallbackPlan | StaticFallbackPlan)), None)
    if here.forward is None or plan is None or here.asked.method != "GET":
        return
    if isinstance(plan, StaticFallbackPlan):
        words = f"instead of a failure: always {plan.status}, {len(plan.body)} characters of {plan.content_type}"
    else:
        whose = "" if plan.share_credentials else ", to the same Authorization and Cookie"
        words = f"instead of a failure: the last good answer up to {format_duration(plan.max_age)} old{whose}"
    yield Line(topic="fallback", words=words, keys=("fallback",))


def _outliers(here: Situation) -> Iterator[Line]:
    plan = here.clusters[0].outlier_detection if here.clusters else None
    if plan is not None:
        words = (
            f"an instance is left out for {format_duration(plan.ejection_time)} after {plan.consecutive_failures} "
            f"failures in a row, at most {plan.max_ejection}% of them at once"
        )
        yield Line(topic="outliers", words=words, keys=("outlier_detection",))


def _caps(here: Situation) -> Iterator[Line]:
    caps = here.clusters[0].caps if here.clusters else None
    if caps is None:
        return
    named = (
        (caps.connections, "connections"),
        (caps.pending, "waiting requests"),
        (caps.requests, "requests"),
        (caps.retries, "retries"),
    )
    found = [f"{number} {what}" for number, what in named if number is not None]
    if found:
        keys = ("limits.max_connections", "limits.max_pending_requests", "limits.max_requests", "limits.max_retries")
        yield Line(topic="limits", words=f"at most {', '.join(found)} at once from {here.caller}", keys=keys)


def _mtls(here: Situation) -> Iterator[Line]:
    for cluster in here.clusters[:1]:
        if isinstance(cluster, ExternalCluster):
            how = "TLS, with the certificate of its host" if cluster.tls else "plain text, as its address says"
            yield Line(topic="connection", words=f"{how} ({cluster.host}:{cluster.port})")
        elif cluster.identity:
            me = spiffe_id(here.mesh.trust_domain, here.caller)
            yield Line(topic="connection", words=f"mTLS as {me}, to {cluster.identity}", keys=("security.mtls",))
        else:
            yield Line(topic="connection", words="plain text", keys=("security.mtls",))


def _authorization(here: Situation) -> Iterator[Line]:
    if here.forward is None or here.service.address is not None:
        return
    asked = here.asked
    headers = {name: (value,) for name, value in asked.headers.items()}
    call = Call(source=here.caller, method=asked.method, path=asked.path, headers=headers)
    yield describe_admission(find_admission(here.mesh, here.facts.open_services, here.service.name, call))


def describe_admission(found: Admission) -> Line:
    """Whether the callee lets the caller in, and the policy that says so."""
    kind = found.policy.partition(":")[0]
    keys = {
        "rule": "security.rules",
        AMBIGUOUS_PATH: "security.rules",
        NO_ALLOW_RULE: "security.rules",
        DEFAULT_ALLOW: "security.default",
        DEFAULT_DENY: "security.default",
        NO_POLICY: "security.authz_policy",
    }
    found_keys = (keys[kind],) if kind in keys else ()
    return Line(topic="authorization", words=found.words, keys=found_keys, where=found.where)


def _rate_limits(here: Situation) -> Iterator[Line]:
    if here.forward is None or here.service.address is not None:
        return
    me = spiffe_id(here.mesh.trust_domain, here.caller)
    for limit in plan_rate_limits(here.service, here.mesh.trust_domain):
        if limit.identities and me not in limit.identities:
            continue
        if limit.methods and here.asked.method not in limit.methods:
            continue
        path = here.asked.bare_path
        if limit.path and not (path == limit.path if limit.path_exact else is_under(path, limit.path)):
            continue
        each = f" for each value of {limit.header}" if limit.header else ""
        if limit.header == CALLER_HEADER:
            each = " for each caller"
        words = (
            f"{limit.name}: {limit.tokens} in {format_duration(limit.per)}{each} at each instance, "
            f"bursts of {limit.burst}; then 429"
        )
        yield Line(topic="rate limit", words=words, keys=("rate_limits",))


def _size(here: Situation) -> Iterator[Line]:
    limits = here.service.policies.limits
    if here.forward is None or here.service.address is not None:
        return
    if limits.max_request_bytes is not None and here.service.protocol == "http":
        words = f"at most {limits.max_request_bytes} bytes; more is answered with 413"
        yield Line(topic="body", words=words, keys=("limits.max_request_bytes",))
    if limits.adaptive_concurrency:
        words = "each instance's sidecar finds by its latency how many it takes at once; then 503"
        yield Line(topic="concurrency", words=words, keys=("limits.adaptive_concurrency",))


CONTRIBUTIONS: tuple[Contribution, ...] = (
    # First, so that nobody looks for the reason elsewhere.
    _faults,
    _route,
    _goes_to,
    _balancing,
    _circuit,
    _timeout,
    _retries,
    _fallback,
    _outliers,
    _caps,
    _mtls,
    _authorization,
    _rate_limits,
    _size,
)
"""One function for each policy, in the order in which a request meets them."""
