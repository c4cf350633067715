"""Whether one service may call another, in words: for ``authz check`` and for explanations.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from meshctl.errors import ConflictError, NotFoundError, UsageError, Where
from meshctl.plan.policies.authorization import (
    AMBIGUOUS_PATH,
    DEFAULT_ALLOW,
    DEFAULT_DENY,
    GATEWAY,
    GATEWAY_CALLER,
    NO_ALLOW_RULE,
    UNDECLARED_CALLER,
    Call,
    Decision,
    decide,
    plan_authorization,
)
from meshctl.plan.policies.request_paths import normalise
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.validate_security import ANONYMOUS

STRICT_MTLS = "strict-mtls"
NO_POLICY = "no-policy"
OPEN_SERVICE = "open-service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What becomes of a call to ``target``, and why.

    ``allowed`` is what happens; with ``audited`` the rules say no, and the call is let through and logged.
    ``reason`` is one clause; ``where`` the place of what decided, None for what is built in.
    """

    target: str
    call: Call
    allowed: bool
    audited: bool
    policy: str
    reason: str
    where: Where | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The answer for people: what happens, and why."""
        what = "" if self.call.method == "" else f"{self.call.method} {self.call.path} at "
        verb = "call " if not what else ""
        verdict = "allowed" if self.allowed else "denied"
        place = f" ({self.where})" if self.where else ""
        first = f"{verdict}: {self.call.source} may {'' if self.allowed else 'not '}{verb}{what}{self.target}"
        if self.audited:
            return (first, f"only because {self.target} audits: it would be denied, {self.reason}{place}")
        return (first, f"{self.reason}{place}")

    @property
    def words(self) -> str:
        """The answer as a part of a longer explanation: ``allowed: by the rule only-checkout``."""
        if self.audited:
            return f"allowed, and logged, because it only audits; would be denied: {self.reason}"
        refusal = "denied with 403" if self.call.method else "denied in the TLS handshake"
        return f"{'allowed' if self.allowed else refusal}: {self.reason}"


def find_admission(mesh: Mesh, open_services: Iterable[str], target: str, call: Call) -> Admission:
    """What becomes of a call.

    Raises:
        NotFoundError: there is no such service, or no such caller.
        ConflictError: the service is not called through a sidecar of its own.
        UsageError: the path is none that a request could have.
    """
    service = _find(mesh, target)
    callers = {*mesh.services, GATEWAY, ANONYMOUS}
    if call.source not in callers:
        raise NotFoundError(f"nobody is called {call.source}", hint=f"callers: {', '.join(sorted(callers))}")
    if service.protocol == "tcp":
        call = replace(call, method="", path="/", headers={})
    elif normalise(call.path) is None:
        raise UsageError(f"{call.path!r} is no path of a request", hint="write it as /orders/7?all=1")
    mode = service.policies.security.mtls
    if mode == "strict" and call.source == ANONYMOUS:
        return Admission(
            target=target, call=call, allowed=False, audited=False, policy=STRICT_MTLS, reason="it takes mTLS alone"
        )
    plan = plan_authorization(mesh, service, open_services)
    if plan is None:
        has_none = service.policies.security.authz_policy == "none"
        reason = "`authz_policy: none` admits everybody" if has_none else "it was registered, so everybody may call it"
        policy = NO_POLICY if has_none else OPEN_SERVICE
        return Admission(target=target, call=call, allowed=True, audited=False, policy=policy, reason=reason)
    # Without mTLS nobody is known by name.
    decision = decide(plan, call if mode != "off" else replace(call, source=ANONYMOUS))
    audited = plan.audit and not decision.allowed
    return Admission(
        target=target,
        call=call,
        allowed=decision.allowed or audited,
        audited=audited,
        policy=decision.policy,
        reason=_explain(decision, service, call),
        where=_place(decision, mesh, call),
    )


def _find(mesh: Mesh, target: str) -> Service:
    service = mesh.services.get(target)
    if service is None:
        raise NotFoundError(f"no service {target}", hint=f"services: {', '.join(sorted(mesh.services))}")
    if service.address is not None or service.is_job:
        why = "lies outside the mesh: nobody there looks at rules" if service.address else "is a job: it takes no calls"
        raise ConflictError(f"{target} {why}")
    return service


def _explain(decision: Decision, service: Service, call: Call) -> str:
    if decision.rule is not None:
        return f"by the rule {decision.rule.name}"
    return {
        AMBIGUOUS_PATH: "rules name paths, and this one does not mean the same to every application",
        UNDECLARED_CALLER: f"{call.source} does not declare {service.name} as an upstream",
        GATEWAY_CALLER: "the gateway may call every service",
        NO_ALLOW_RULE: "no allow rule matches",
        DEFAULT_ALLOW: "no rule matches, and the default is `allow`",
        DEFAULT_DENY: "there is no allow rule, and the default is `deny`",
    }[decision.policy]


def _place(decision: Decision, mesh: Mesh, call: Call) -> Where | None:
    if decision.policy == UNDECLARED_CALLER and call.source in mesh.services:
        return mesh.services[call.source].where
    return decision.where
