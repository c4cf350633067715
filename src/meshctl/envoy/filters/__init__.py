"""One file per HTTP filter, and the order in which they stand.  Pure.

A listener is made once: connections that are open keep the filters they came in by, so a filter that may ever be
needed stands in the chain from the start. It stands there disabled, which costs a request nothing, and routes or
virtual hosts switch it on by giving it a configuration of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from meshctl.envoy import pb
from meshctl.envoy.filters import (
    adaptive_concurrency,
    buffer,
    circuit_breaker,
    dynamic_forward_proxy,
    fallback,
    fault,
    header_mutation,
    rate_limit,
    rbac,
    router,
)
from meshctl.plan.model import FilterPlan, HttpListener
from meshctl.plan.policies.authorization import AuthorizationPlan
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan
from meshctl.plan.policies.fallback import CachedFallbackPlan, StaticFallbackPlan
from meshctl.plan.policies.faults import FaultDraw, FaultPlan
from meshctl.plan.policies.limits import AdaptiveConcurrencyPlan, BufferPlan
from meshctl.plan.policies.rate_limits import RateLimitPlan
from meshctl.plan.policies.timeouts import HeedDeadline, KeepDeadline


class Switch(NamedTuple):
    """How a policy switches a filter on: the filter's name, and its configuration for a route as a message.

    The name may hang on the plan, where a chain holds several filters of a kind. ``also`` is what else the message of
    the route or virtual host is given.
    """

    filter: str | Callable[[Any], str]
    configure: Callable[[Any], Any]
    also: Callable[[Any, Any], None] | None = None


FILTER_CHAIN: tuple[Callable[[HttpListener], Any | None], ...] = (
    rbac.build,
    *rate_limit.SLOTS,
    adaptive_concurrency.build,
    buffer.build,
    # At an instance the last, as if the service itself failed; at a caller the first, as if nobody had been asked.
    *fault.FAULT_SLOTS,
    fallback.build,
    circuit_breaker.build,
    dynamic_forward_proxy.build,
    header_mutation.build,
    router.build,
)
"""Each builds its filter for a listener, or None where it can never be needed. A request passes them in this order."""

SWITCHES: dict[type[Any], Switch] = {
    AuthorizationPlan: Switch(rbac.NAME, rbac.configure),
    AdaptiveConcurrencyPlan: Switch(adaptive_concurrency.NAME, adaptive_concurrency.configure),
    BufferPlan: Switch(buffer.NAME, buffer.configure),
    RateLimitPlan: Switch(rate_limit.filter_name, rate_limit.configure),
    CachedFallbackPlan: Switch(fallback.NAME, fallback.configure),
    StaticFallbackPlan: Switch(fallback.NAME, fallback.configure),
    CircuitBreakerPlan: Switch(circuit_breaker.NAME, circuit_breaker.configure),
    FaultPlan: Switch(fault.filter_name, fault.configure, fault.mark),
    FaultDraw: Switch(fault.draw_name, fault.configure_draw),
    HeedDeadline: Switch(header_mutation.NAME, header_mutation.heed_deadline),
    KeepDeadline: Switch(header_mutation.NAME, header_mutation.keep_deadline),
}
"""The filter of each type of FilterPlan."""


def build_filters(listener: HttpListener) -> list[Any]:
    """The HTTP filters of a listener, in order."""
    return [item for item in (build(listener) for build in FILTER_CHAIN) if item is not None]


def switch_on(target: Any, plans: Iterable[FilterPlan]) -> None:
    """Switch filters on for a route or a virtual host: ``target`` is its message."""
    for plan in plans:
        switch = SWITCHES[type(plan)]
        name = switch.filter if isinstance(switch.filter, str) else switch.filter(plan)
        target.typed_per_filter_config[name].CopyFrom(pb.any_of(switch.configure(plan)))
        if switch.also is not None:
            switch.also(target, plan)
