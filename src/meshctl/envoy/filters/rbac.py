"""Authorization: the rules of a service as one matcher, of which the first that applies decides.  Pure.

The filter stands in every inbound listener, disabled; a service's virtual host switches it on and holds the rules, so
that they change with routes and hold at once on connections that are open. ``plan.policies.authorization`` says what
the rules mean and decides in the same order. A matcher rather than Envoy's policies, because it names the rule that
refused, and because one list says in which order deny and allow rules are looked at.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/rbac_filter
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from meshctl.envoy import pb
from meshctl.identity.spiffe import spiffe_id
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.authorization import (
    AMBIGUOUS_PATH,
    DEFAULT_ALLOW,
    DEFAULT_DENY,
    GATEWAY,
    GATEWAY_CALLER,
    NO_ALLOW_RULE,
    UNDECLARED_CALLER,
    AuthorizationPlan,
    header_regex,
    rule_policy,
)
from meshctl.plan.policies.request_paths import NESTED, SETTLED, path_regex
from meshctl.spec.policy_schema import AuthzRule, HeaderRule, Verdict
from meshctl.spec.validate_security import ANONYMOUS

NAME = "envoy.filters.http.rbac"

_Matcher = pb.matcher_pb2.Matcher
_Predicate = _Matcher.MatcherList.Predicate


def build(listener: HttpListener) -> Any | None:
    """The filter of an inbound listener, which refuses nobody until a virtual host switches it on."""
    if listener.role != "inbound":
        return None
    return pb.http_connection_manager_pb2.HttpFilter(
        name=NAME, disabled=True, typed_config=pb.any_of(pb.http_rbac_pb2.RBAC())
    )


def configure(plan: AuthorizationPlan) -> Any:
    """What switches it on: the rules, in effect or only looked at."""
    matcher = build_matcher(plan)
    rbac = pb.http_rbac_pb2.RBAC(shadow_matcher=matcher) if plan.audit else pb.http_rbac_pb2.RBAC(matcher=matcher)
    return pb.http_rbac_pb2.RBACPerRoute(rbac=rbac)


def build_matcher(plan: AuthorizationPlan) -> Any:
    """The rules of a plan as a matcher whose actions are named as ``decide`` names its decisions.

    On a connection without TLS Envoy has no identity to ask for, and refuses whatever asks for one. So where plain text
    is taken the two kinds of callers have a matcher each. They are told apart by the header in which the sidecar hands
    on a certificate's identity: it is there on every request over TLS, and on no other, whatever the client wrote.
    """
    known = _build(plan, anonymous=False)
    if not plan.plain:
        return known
    has_identity = _Matcher.MatcherList.FieldMatcher(
        predicate=_header("x-forwarded-client-cert", "(?s).*"), on_match=_Matcher.OnMatch(matcher=known)
    )
    return _Matcher(
        matcher_list=_Matcher.MatcherList(matchers=[has_identity]),
        on_no_match=_Matcher.OnMatch(matcher=_build(plan, anonymous=True)),
    )


def _build(plan: AuthorizationPlan, *, anonymous: bool) -> Any:
    if plan.callers and not plan.rules and plan.default == "allow" and not anonymous:
        # What most services have, for every request: one look into a table.
        names = [name for name in plan.callers if name != ANONYMOUS]
        policies = {name: GATEWAY_CALLER if name == GATEWAY else DEFAULT_ALLOW for name in names}
        table = {spiffe_id(plan.trust_domain, name): _on_match(policies[name], "allow") for name in names}
        tree = _Matcher.MatcherTree(input=_identity_input(), exact_match_map=_Matcher.MatcherTree.MatchMap(map=table))
        return _Matcher(matcher_tree=tree, on_no_match=_on_match(UNDECLARED_CALLER, "deny"))
    matchers = [
        _Matcher.MatcherList.FieldMatcher(predicate=_all(conditions), on_match=_on_match(policy, verdict))
        for conditions, policy, verdict in _steps(plan, anonymous=anonymous)
        if conditions is not None
    ]
    rest = _on_match(*_rest(plan))
    return (
        _Matcher(matcher_list=_Matcher.MatcherList(matchers=matchers), on_no_match=rest)
        if matchers
        else _Matcher(on_no_match=rest)
    )


def _steps(plan: AuthorizationPlan, *, anonymous: bool) -> Iterator[tuple[list[Any] | None, str, Verdict]]:
    """Conditions that must hold together (None: never), what that is called, and what it means; the first decides."""
    if plan.names_paths:
        unsettled = _any([_not(_header(":path", f"(?s){SETTLED}")), _header(":path", f"(?s){NESTED}")])
        yield [unsettled], AMBIGUOUS_PATH, "deny"
    for rule in plan.deny_rules:
        yield _rule(plan, rule, anonymous=anonymous), rule_policy(rule), "deny"
    if plan.callers is not None:
        yield _others(plan, plan.callers, anonymous=anonymous), UNDECLARED_CALLER, "deny"
    yield _sources(plan, (GATEWAY,), anonymous=anonymous), GATEWAY_CALLER, "allow"
    for rule in plan.allow_rules:
        yield _rule(plan, rule, anonymous=anonymous), rule_policy(rule), "allow"


def _rest(plan: AuthorizationPlan) -> tuple[str, Verdict]:
    if plan.allow_rules:
        return NO_ALLOW_RULE, "deny"
    return (DEFAULT_ALLOW, "allow") if plan.default == "allow" else (DEFAULT_DENY, "deny")


def _rule(plan: AuthorizationPlan, rule: AuthzRule, *, anonymous: bool) -> list[Any] | None:
    conditions = _sources(plan, rule.sources, anonymous=anonymous) if rule.sources else []
    if conditions is None:
        return None
    if rule.methods:
        conditions.append(_any([_input(_header_input(":method"), exact=method) for method in rule.methods]))
    if rule.paths:
        conditions.append(_any([_header(":path", path_regex(path)) for path in rule.paths]))
    return conditions + [_header_condition(header, rule.action) for header in rule.headers]


def _header_condition(header: HeaderRule, action: Verdict) -> Any:
    regex = header_regex(header, action)
    if regex is not None:
        return _header(header.name, f"(?s){regex}")
    is_there = _header(header.name, "(?s).*")
    return is_there if header.present else _not(is_there)


def _sources(plan: AuthorizationPlan, names: Sequence[str], *, anonymous: bool) -> list[Any] | None:
    """Conditions for a caller being one of those named; None when it cannot be."""
    if anonymous:
        return [] if ANONYMOUS in names else None
    identities = [spiffe_id(plan.trust_domain, name) for name in names if name != ANONYMOUS]
    return [_any([_input(_identity_input(), exact=identity) for identity in identities])] if identities else None


def _others(plan: AuthorizationPlan, names: Sequence[str], *, anonymous: bool) -> list[Any] | None:
    """Conditions for a caller being none of those named; None when it cannot be."""
    named = _sources(plan, names, anonymous=anonymous)
    if named is None:
        return []
    return [_not(_all(named))] if named else None


def _all(predicates: Sequence[Any]) -> Any:
    if not predicates:
        return _header(":method", ".*")
    if len(predicates) == 1:
        return predicates[0]
    return _Predicate(and_matcher=_Predicate.PredicateList(predicate=predicates))


def _any(predicates: Sequence[Any]) -> Any:
    if len(predicates) == 1:
        return predicates[0]
    return _Predicate(or_matcher=_Predicate.PredicateList(predicate=predicates))


def _not(predicate: Any) -> Any:
    return _Predicate(not_matcher=predicate)


def _header(name: str, regex: str) -> Any:
    matcher = pb.xds_regex_pb2.RegexMatcher(regex=regex, google_re2=pb.xds_regex_pb2.RegexMatcher.GoogleRE2())
    return _input(_header_input(name), safe_regex=matcher)


def _input(source: Any, **matcher: Any) -> Any:
    value = pb.xds_string_pb2.StringMatcher(**matcher)
    return _Predicate(single_predicate=_Predicate.SinglePredicate(input=source, value_match=value))


def _header_input(name: str) -> Any:
    return _extension("header", pb.http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=name))


def _identity_input() -> Any:
    return _extension("identity", pb.ssl_inputs_pb2.UriSanInput())


def _on_match(policy: str, verdict: Verdict) -> Any:
    action = pb.rbac_pb2.Action(name=policy, action=pb.rbac_pb2.RBAC.Action.Value(verdict.upper()))
    return _Matcher.OnMatch(action=_extension("verdict", action))


def _extension(name: str, message: Any) -> Any:
    return pb.xds_extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(message))
