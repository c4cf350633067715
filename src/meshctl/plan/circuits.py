"""Which circuit breakers a proxy has, as its plan says.  Pure."""

from __future__ import annotations

from meshctl.plan.model import ProxyPlan
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan
from meshctl.plan.routes import GATEWAY


def find_circuits(proxy: ProxyPlan) -> tuple[tuple[CircuitBreakerPlan, bool], ...]:
    """The breakers of a proxy by target, each with whether traffic is meant to go there.

    The gateway reaches every service, for `meshctl call`; traffic goes where its routes lead.
    """
    found: dict[str, tuple[CircuitBreakerPlan, bool]] = {}
    for table in proxy.route_tables:
        meant = proxy.node != GATEWAY or table.name == GATEWAY
        for host in table.virtual_hosts:
            for plan in (*host.filters, *(item for route in host.routes for item in route.filters)):
                if isinstance(plan, CircuitBreakerPlan):
                    _, before = found.get(plan.target, (plan, False))
                    found[plan.target] = (plan, before or meant)
    return tuple(found[target] for target in sorted(found))
