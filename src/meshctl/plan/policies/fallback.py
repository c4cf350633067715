"""Fallbacks: what a caller gets in place of a failure, after all retries or while the circuit is open.  Pure.

Only GET is answered so, the one method that asks for nothing to be done, and only of HTTP services.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.schema import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFallbackPlan:
    """The last good answer to the same GET, kept in a listener's memory within bounds; ``max_age`` in seconds.

    ``share_credentials`` False: an answer is repeated only to who sends the same Authorization and Cookie.
    """

    target: str
    max_age: float
    max_entries: int
    max_bytes: int
    max_body_bytes: int
    share_credentials: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFallbackPlan:
    """Always the same answer."""

    target: str
    status: int
    body: str
    content_type: str


FallbackPlan = CachedFallbackPlan | StaticFallbackPlan


def plan_fallback(service: Service) -> FallbackPlan | None:
    """What the callers of a service get in place of its failures; None for the failures themselves."""
    policy = service.policies.fallback
    if policy is None or service.protocol != "http":
        return None
    if policy.strategy == "static":
        return StaticFallbackPlan(
            target=service.name, status=policy.status, body=policy.body, content_type=policy.content_type
        )
    return CachedFallbackPlan(
        target=service.name,
        max_age=policy.max_age,
        max_entries=policy.max_entries,
        max_bytes=policy.max_bytes,
        max_body_bytes=policy.max_body_bytes,
        share_credentials=policy.share_credentials,
    )
