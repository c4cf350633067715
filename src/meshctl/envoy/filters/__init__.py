"""One file per HTTP filter, and the order in which they stand.  Pure.

A listener is made once: connections that are open keep the filters they came in by, so a filter that may ever be
needed stands in the chain from the start. It stands there disabled, which costs a request nothing, and routes or
virtual hosts switch it on by giving it a configuration of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from meshctl.envoy import pb
from meshctl.envoy.filters import circuit_breaker, dynamic_forward_proxy, router
from meshctl.plan.model import FilterPlan, HttpListener
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan


class Switch(NamedTuple):
    """How a policy switches a filter on: the filter's name, and its configuration for a route as a message."""

    filter: str
    configure: Callable[[Any], Any]


FILTER_CHAIN: tuple[Callable[[HttpListener], Any | None], ...] = (
    circuit_breaker.build,
    dynamic_forward_proxy.build,
    router.build,
)
"""Each builds its filter for a listener, or None where it can never be needed. A request passes them in this order."""

SWITCHES: dict[type[Any], Switch] = {
    CircuitBreakerPlan: Switch(circuit_breaker.NAME, circuit_breaker.configure),
}
"""The filter of each type of FilterPlan."""


def build_filters(listener: HttpListener) -> list[Any]:
    """The HTTP filters of a listener, in order."""
    return [item for item in (build(listener) for build in FILTER_CHAIN) if item is not None]


def switch_on(target: Any, plans: Iterable[FilterPlan]) -> None:
    """Switch filters on for a route or a virtual host: ``target`` is its message."""
    for plan in plans:
        switch = SWITCHES[type(plan)]
        target.typed_per_filter_config[switch.filter].CopyFrom(pb.any_of(switch.configure(plan)))
