"""Policies that the topology takes but this version does not act on yet.  Pure.

A file written for later versions, or for the pattern's own configuration block, loads as it is; whoever relies on such
a policy has to be told.
"""

from __future__ import annotations

from meshctl.spec.policy_schema import CircuitBreaker, Policies
from meshctl.spec.schema import Mesh

_BUILT_IN = CircuitBreaker()


def find_inert(mesh: Mesh) -> dict[str, tuple[str, ...]]:
    """Policies without effect that were asked for, by key, with the services that ask; both sorted."""
    found: dict[str, list[str]] = {}
    for name, service in sorted(mesh.services.items()):
        for key in _keys(service.policies):
            found.setdefault(key, []).append(name)
    return {key: tuple(names) for key, names in sorted(found.items())}


def _keys(policies: Policies) -> list[str]:
    keys = []
    if policies.circuit_breaker.enabled and policies.circuit_breaker != _BUILT_IN:
        keys.append("circuit_breaker")
    if policies.fallback is not None:
        keys.append("fallback")
    return keys
