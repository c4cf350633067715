"""Authorization: who may call a service, and for what.  Pure.

One list of decisions, in this order, of which the first that applies holds; ``decide`` goes through it here, and
``envoy.filters.rbac`` translates it for the sidecar (a test holds the two together on random rules and requests):

1. Where rules name paths, a path that does not mean the same to everybody is refused.
2. A ``deny`` rule that matches refuses, whoever calls.
3. Who does not declare the service as an upstream is refused, but the gateway.
4. The gateway is admitted.
5. An ``allow`` rule that matches admits.
6. Where there are ``allow`` rules the rest is refused, and where there are none ``default`` decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from meshctl.errors import Where
from meshctl.plan.policies.request_paths import is_settled, matches_path, normalise
from meshctl.spec.policy_schema import AuthzRule, HeaderRule, Verdict
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.validate_security import ANONYMOUS

GATEWAY = "gateway"

AMBIGUOUS_PATH = "ambiguous-path"
UNDECLARED_CALLER = "undeclared-caller"
GATEWAY_CALLER = "gateway"
NO_ALLOW_RULE = "no-allow-rule"
DEFAULT_ALLOW = "default-allow"
DEFAULT_DENY = "default-deny"

DENIED_HEADER = "x-meshctl-denied"
"""Set on the answer to a request that was refused: by which rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPlan:
    """Whom the sidecar of ``service`` lets in.

    ``callers`` are the names that may call at all, ``anonymous`` for those without mTLS; None for everybody. ``plain``
    is True where there can be such callers. With ``audit`` nobody is refused. ``default_where`` is where ``default``
    was written, None for the built-in one.
    """

    service: str
    trust_domain: str
    audit: bool
    callers: tuple[str, ...] | None
    rules: tuple[AuthzRule, ...]
    default: Verdict
    plain: bool = False
    default_where: Where | None = field(default=None, compare=False)

    @property
    def allow_rules(self) -> tuple[AuthzRule, ...]:
        """The rules that admit."""
        return tuple(rule for rule in self.rules if rule.action == "allow")

    @property
    def deny_rules(self) -> tuple[AuthzRule, ...]:
        """The rules that refuse."""
        return tuple(rule for rule in self.rules if rule.action == "deny")

    @property
    def names_paths(self) -> bool:
        """Whether any rule asks for the path."""
        return any(rule.paths for rule in self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as a sidecar sees it: ``source`` is the caller's name, or ``anonymous``.

    ``headers`` are by name in lower case, with all values of each. ``path`` may have a query.
    """

    source: str
    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a call: ``policy`` is the name under which the sidecar logs it; ``rule`` the rule, if it was one.

    ``where`` is the place of what decided, None for what is built in.
    """

    allowed: bool
    policy: str
    rule: AuthzRule | None = None
    where: Where | None = None


def plan_authorization(
    mesh: Mesh, service: Service, open_services: Iterable[str], *, changing: bool = False
) -> AuthorizationPlan | None:
    """Whom a service lets in; None when that is everybody who has an identity of the mesh.

    While its callers change over to mTLS (``changing``) those that have not done so yet count as admitted callers.
    """
    security = service.policies.security
    plain = security.mtls != "strict" or changing
    if security.authz_policy == "none" or service.address is not None or service.is_job:
        return None
    callers: tuple[str, ...] | None = None
    if service.name not in open_services:
        names = {other.name for other in mesh.services.values() if service.name in other.upstreams} | {GATEWAY}
        if plain:
            names.add(ANONYMOUS)
        callers = tuple(sorted(names))
    rules = tuple(sorted(security.rules, key=lambda rule: rule.action == "allow"))
    if callers is None and not rules and security.default == "allow":
        return None
    return AuthorizationPlan(
        service=service.name,
        trust_domain=mesh.trust_domain,
        audit=security.audit,
        callers=callers,
        rules=rules,
        default=security.default,
        plain=plain,
        default_where=security.default_where,
    )


def decide(plan: AuthorizationPlan, call: Call) -> Decision:
    """What the rules say of a call; whether it is then refused, ``plan.audit`` says.

    A path that the sidecar answers with 400 counts as ambiguous.
    """
    return next(_decisions(plan, call))


def _decisions(plan: AuthorizationPlan, call: Call) -> Iterator[Decision]:
    """What applies, the first first."""
    path = normalise(call.path)
    if plan.names_paths and (path is None or not is_settled(path)):
        yield Decision(allowed=False, policy=AMBIGUOUS_PATH)
    for rule in plan.deny_rules:
        if _matches(rule, call, path or "/"):
            yield Decision(allowed=False, policy=rule_policy(rule), rule=rule, where=rule.where)
    if plan.callers is not None and call.source not in plan.callers:
        yield Decision(allowed=False, policy=UNDECLARED_CALLER)
    if call.source == GATEWAY:
        yield Decision(allowed=True, policy=GATEWAY_CALLER)
    for rule in plan.allow_rules:
        if _matches(rule, call, path or "/"):
            yield Decision(allowed=True, policy=rule_policy(rule), rule=rule, where=rule.where)
    if plan.allow_rules:
        yield Decision(allowed=False, policy=NO_ALLOW_RULE)
    allowed = plan.default == "allow"
    yield Decision(allowed=allowed, policy=DEFAULT_ALLOW if allowed else DEFAULT_DENY, where=plan.default_where)


def admitted(plan: AuthorizationPlan, names: Iterable[str]) -> tuple[str, ...]:
    """Those of some callers who may connect to a service that speaks plain TCP, sorted: its rules ask for no more."""
    return tuple(sorted(name for name in names if plan.audit or decide(plan, Call(source=name)).allowed))


def rule_policy(rule: AuthzRule) -> str:
    """The name under which a sidecar logs what a rule decided."""
    return f"rule:{rule.name}"


def header_regex(header: HeaderRule, action: Verdict) -> str | None:
    """The regular expression that the values of a header, joined by commas, match as a whole; None to ask only for it.

    An ``allow`` rule wants all of them to be what it says; for a ``deny`` rule one is enough, or a second value beside
    the one that is refused would be a way around it.
    """
    if header.present is not None:
        return None
    wanted = re.escape(header.exact) if header.exact is not None else _scoped(header.regex or "")
    return wanted if action == "allow" else rf"(?:.*,)?[ \t]*(?:{wanted})[ \t]*(?:,.*)?"


def _scoped(pattern: str) -> str:
    # Flags at the start of a whole expression hold for a part of a larger one.
    flags = re.match(r"\(\?([ims]+)\)", pattern)
    return f"(?{flags[1]}:{pattern[flags.end() :]})" if flags else f"(?:{pattern})"


def _matches(rule: AuthzRule, call: Call, path: str) -> bool:
    return (
        (not rule.sources or call.source in rule.sources)
        and (not rule.methods or call.method in rule.methods)
        and (not rule.paths or any(matches_path(pattern, path) for pattern in rule.paths))
        and all(_matches_header(header, rule.action, call.headers.get(header.name)) for header in rule.headers)
    )


def _matches_header(header: HeaderRule, action: Verdict, values: Sequence[str] | None) -> bool:
    if header.present is not None:
        return header.present == (values is not None)
    if values is None:
        return False
    regex = header_regex(header, action)
    return regex is not None and re.fullmatch(regex, ",".join(values), re.ASCII | re.DOTALL) is not None
