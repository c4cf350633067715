"""Mirroring: copies of requests to a version, over a cluster of their own.  Pure.

A cluster of its own keeps copies out of everything that is counted or limited for the version: its connections, its
limits, the ejection of its instances, its statistics at the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.spec import routing_schema
from meshctl.spec.schema import Service

_PREFIX = "mirror/"

MIRRORED_HEADER = "x-meshctl-mirrored"
"""Set on every copy, for the service to know that nobody waits for its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorPlan:
    """``percent`` percent of the requests are copied to ``cluster``."""

    cluster: str
    percent: float


def mirror_cluster(service: Service, version: str) -> str:
    """The cluster of the copies for one version of a service."""
    return f"{_PREFIX}{service.name}/{version}"


def mirrored_by(cluster: str) -> tuple[str, str]:
    """The service and version that get the copies sent to a cluster; two empty texts for a cluster of another kind."""
    name, separator, version = cluster.removeprefix(_PREFIX).partition("/")
    return (name, version) if cluster.startswith(_PREFIX) and separator else ("", "")


def plan_mirror(service: Service, mirror: routing_schema.Mirror | None) -> MirrorPlan | None:
    """Where copies go; None when nowhere."""
    if mirror is None or not mirror.percent:
        return None
    return MirrorPlan(cluster=mirror_cluster(service, mirror.version), percent=mirror.percent)


def mirrored_versions(service: Service, caller: str) -> tuple[str, ...]:
    """The versions that get copies of one caller's requests, sorted."""
    mirrors = [service.mirror, *(r.mirror for r in service.routes if not r.match.callers or caller in r.match.callers)]
    return tuple(sorted({mirror.version for mirror in mirrors if mirror is not None and mirror.percent}))
