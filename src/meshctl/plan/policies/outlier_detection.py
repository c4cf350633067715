"""Outlier detection: a caller takes an instance that keeps failing out of its choice for a while.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec.schema import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierPlan:
    """``consecutive_failures`` eject an instance for ``ejection_time`` seconds, looked at every ``interval`` seconds.

    At most ``max_ejection`` percent of the instances are out at one time.
    """

    consecutive_failures: int
    interval: float
    ejection_time: float
    max_ejection: int


def plan_outlier_detection(service: Service) -> OutlierPlan | None:
    """When callers of a service eject one of its instances; None for never."""
    policy = service.policies.outlier_detection
    if policy is None:
        return None
    return OutlierPlan(
        consecutive_failures=policy.consecutive_failures,
        # A sweep that comes less often than ejections end would only lengthen them.
        interval=min(policy.interval, policy.ejection_time),
        ejection_time=policy.ejection_time,
        max_ejection=round(policy.max_ejection),
    )
