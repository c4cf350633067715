"""Retries: which failures are tried again, and of which requests.  Pure.

A request that is not safe to repeat is retried only where it certainly never reached the upstream, unless it carries
an Idempotency-Key; idempotent methods are those of RFC 9110, section 9.2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.policy_schema import RetryPolicy
from meshctl.spec.schema import Service

IDEMPOTENT_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE")
IDEMPOTENCY_HEADER = "idempotency-key"
NOT_REACHED_HEADER = "x-meshctl-not-reached"
"""Set by a sidecar on the answer to a request that it could not hand to its instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """``retries`` beyond the first attempt; intervals and timeouts in seconds, ``per_try_timeout`` 0 for none.

    ``repeatable`` requests are retried on ``status_codes`` and on any reset, others only if never delivered.
    """

    retries: int
    base_interval: float
    max_interval: float
    per_try_timeout: float
    status_codes: tuple[int, ...]
    repeatable: bool


def plan_retry(service: Service, *, repeatable: bool) -> RetryPlan | None:
    """How calls to a service are retried; None when there is but one attempt or it speaks plain TCP."""
    policy: RetryPolicy = service.policies.retry_policy
    if policy.max_attempts <= 1 or service.protocol == "tcp":
        return None
    return RetryPlan(
        retries=policy.max_attempts - 1,
        base_interval=policy.base_interval,
        max_interval=max(policy.max_interval, policy.base_interval),
        per_try_timeout=policy.per_try_timeout or 0.0,
        status_codes=tuple(sorted(policy.retriable_status_codes)) if repeatable else (),
        repeatable=repeatable,
    )
