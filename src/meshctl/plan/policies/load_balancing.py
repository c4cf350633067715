"""Load balancing: how a caller chooses among the instances of a version.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.policy_schema import Algorithm
from meshctl.spec.schema import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancingPlan:
    """The algorithm. New instances get their full share after ``slow_start`` seconds.

    With less than ``panic_threshold`` percent of the instances healthy, requests go to all of them; 0 means that they
    never go to one known to be unhealthy.
    """

    algorithm: Algorithm = "round_robin"
    slow_start: float = 0.0
    panic_threshold: float = 0.0


ROUND_ROBIN = LoadBalancingPlan()


def plan_load_balancing(service: Service) -> LoadBalancingPlan:
    """How callers of a service choose an instance."""
    policy = service.policies.load_balancing
    return LoadBalancingPlan(
        algorithm=policy.algorithm, slow_start=policy.slow_start, panic_threshold=policy.panic_threshold
    )


def plan_local_balancing(service: Service) -> LoadBalancingPlan:
    """How a sidecar hands on to its own instance: where callers may send to an unhealthy one, it gets the request."""
    return LoadBalancingPlan(panic_threshold=service.policies.load_balancing.panic_threshold)


def weight_of(service: Service, instance: str) -> int:
    """The weight of one instance among those of its version."""
    return dict(service.policies.load_balancing.weights).get(instance, 1)
