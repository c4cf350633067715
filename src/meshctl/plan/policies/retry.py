"""Retries: which failures are tried again, and of which requests.  Pure.

A request that is not safe to repeat is retried only where it certainly never reached the upstream, unless it carries
an Idempotency-Key; idempotent methods are those of RFC 9110, section 9.2.2. gRPC statuses are retried for all calls:
whoever lists one says that calls may be repeated when they end so.

The wait before retry n (from 1) is random, evenly spread over [0, min(base_interval * 2^(n-1), max_interval)). Source:
https://github.com/envoyproxy/envoy/blob/v1.34.0/source/common/common/backoff_strategy.cc
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.policy_schema import RetriableCondition, RetryBudget, RetryPolicy
from meshctl.spec.schema import Service

IDEMPOTENT_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE")
IDEMPOTENCY_HEADER = "idempotency-key"
NOT_REACHED_HEADER = "x-meshctl-not-reached"
"""Set by a sidecar on the answer to a request that it could not hand to its instance."""

BUILT_IN_BUDGET = RetryBudget()

_ALL = RetryPolicy().retriable_conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """``retries`` beyond the first attempt; intervals and timeouts in seconds, ``per_try_timeout`` 0 for none.

    ``repeatable`` requests are retried on ``status_codes`` and on any reset, others only if never delivered. All are
    retried on ``grpc_codes``.
    """

    retries: int
    base_interval: float
    max_interval: float
    per_try_timeout: float
    status_codes: tuple[int, ...]
    repeatable: bool
    conditions: tuple[RetriableCondition, ...] = _ALL
    grpc_codes: tuple[str, ...] = ()
    other_instance: bool = True


def plan_retry(service: Service, policy: RetryPolicy | None = None, *, repeatable: bool) -> RetryPlan | None:
    """How calls to a service are retried; None when there is but one attempt or it speaks plain TCP."""
    if policy is None:
        policy = service.policies.retry_policy
    if policy.max_attempts <= 1 or service.protocol == "tcp":
        return None
    return RetryPlan(
        retries=policy.max_attempts - 1,
        base_interval=policy.base_interval,
        max_interval=max(policy.max_interval, policy.base_interval),
        per_try_timeout=policy.per_try_timeout or 0.0,
        status_codes=tuple(sorted(policy.retriable_status_codes)) if repeatable else (),
        repeatable=repeatable,
        conditions=tuple(condition for condition in _ALL if condition in policy.retriable_conditions),
        grpc_codes=tuple(sorted(policy.retriable_grpc_codes)),
        other_instance=policy.other_instance,
    )


def plan_budget(service: Service) -> RetryBudget:
    """How many retries may be under way to each version of a service at each caller."""
    return service.policies.retry_policy.budget
