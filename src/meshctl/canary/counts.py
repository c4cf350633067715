"""Figures of the traffic -> what counts for or against a version.  Pure.

Counted is what callers saw: each request once, after its last try, when it has ended.  A request that hangs ends when
its timeout does, and is an error then.  What callers' sidecars turned away because a circuit was open reached no
version and counts for none; what faults were injected into is counted apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from meshctl.canary.model import Counts
from meshctl.telemetry.buckets import add
from meshctl.wire.metrics import Figures, Row

INJECTED = ("FI", "DI")
"""Envoy's response flags of requests that a fault was injected into: aborted, delayed. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags
"""


def count(figures: Iterable[Figures]) -> Counts:
    """Figures of several flows as one."""
    found = list(figures)
    return Counts(
        requests=sum(each.requests for each in found),
        errors=sum(each.failures for each in found),
        injected=sum(each.reasons.get(flag, 0) for each in found for flag in INJECTED),
        durations=add({bucket.index: bucket.count for bucket in each.buckets} for each in found),
    )


def count_version(flows: Iterable[Row], service: str, version: str, *, apart: Collection[str]) -> Counts:
    """What went to one version of a service by its split; ``apart`` are routes that do not go by it."""
    return count(
        row for row in flows if row.destination == service and row.version == version and row.route not in apart
    )
