"""Rate limits: token buckets at each instance.  Pure.

A bucket that is empty has its next token after ``per / requests`` seconds at the latest, which is what a refused
request is told to wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from meshctl.identity.spiffe import spiffe_id
from meshctl.spec.limits_schema import MAX_RATE_LIMITS, RateLimit
from meshctl.spec.schema import Service

VALUES_KEPT = 1000
"""Buckets of one limit by value, at most: those of the values used last."""

CALLER_HEADER = "x-forwarded-client-cert"
"""Who calls, as the connection's certificate proves it: set by the callee's sidecar, whatever the caller wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitPlan:
    """One limit: ``tokens`` come in ``per`` seconds, at most ``burst`` are there at once.

    It is for requests from ``identities``, on ``path`` and with one of ``methods``, and has a bucket for each value of
    ``header`` where that is given. ``slot`` is the filter that holds it; filters are passed in the order of slots.
    ``shown`` limits tell every answer how many requests are left.
    """

    slot: int
    name: str
    tokens: int
    per: float
    burst: int
    identities: tuple[str, ...] = ()
    path: str = ""
    path_exact: bool = False
    methods: tuple[str, ...] = ()
    header: str = ""
    shown: bool = False

    @property
    def retry_after(self) -> int:
        """Whole seconds after which an empty bucket has a token again."""
        return max(1, math.ceil(self.per / self.tokens))

    @property
    def conditional(self) -> bool:
        """Whether there are requests that it is not for."""
        return bool(self.identities or self.path or self.methods)


def plan_rate_limits(service: Service, trust_domain: str) -> tuple[RateLimitPlan, ...]:
    """The rate limits of each instance of a service, by slot.

    The first that is for every request is shown. It stands last, so that it takes no token of a request that another
    refuses, and says nothing of it.
    """
    if service.protocol == "tcp":
        return ()
    plans = [_plan(limit, trust_domain) for limit in service.policies.rate_limits]
    shown = next((plan for plan in plans if not plan.conditional), None)
    hidden = [plan for plan in plans if plan is not shown]
    found = [replace(plan, slot=slot) for slot, plan in enumerate(hidden)]
    if shown is not None:
        found.append(replace(shown, slot=MAX_RATE_LIMITS - 1, shown=True))
    return tuple(found)


def _plan(limit: RateLimit, trust_domain: str) -> RateLimitPlan:
    return RateLimitPlan(
        slot=0,
        name=limit.name,
        tokens=limit.requests,
        per=limit.per,
        burst=limit.burst,
        identities=tuple(sorted(spiffe_id(trust_domain, caller) for caller in limit.callers)),
        path=limit.path,
        path_exact=limit.path_exact,
        methods=tuple(sorted(limit.methods)),
        header=CALLER_HEADER if limit.each_caller else limit.header,
    )
