"""Load balancing: how a caller chooses among the instances of a version.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.policy_schema import Algorithm
from meshctl.spec.schema import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancingPlan:
    """The algorithm. No share of unhealthy instances makes a caller send to them all the same (no panic mode)."""

    algorithm: Algorithm


def plan_load_balancing(service: Service) -> LoadBalancingPlan:
    """How callers of a service choose an instance."""
    return LoadBalancingPlan(algorithm=service.policies.load_balancing.algorithm)
