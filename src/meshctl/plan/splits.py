"""A service's traffic by cluster.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.plan.facts import Facts
from meshctl.spec.schema import Service

FULL = 100


def cluster_name(service: Service, version: str) -> str:
    """The cluster of one version of a service at its callers."""
    return f"external/{service.name}" if service.address is not None else f"{service.name}/{version}"


def split_of(
    service: Service, facts: Facts, split: Mapping[str, int] | None = None, *, sticky: bool = False
) -> tuple[tuple[str, int], ...]:
    """Traffic by cluster, weights summing to 100, without those of weight 0: the service's own split or another.

    A service of which the topology knows no version shares its traffic evenly among the versions registered. Of a
    sticky split the stable version comes last, so that another one that grows keeps the users that it has.
    """
    if service.address is not None:
        return ((cluster_name(service, ""), FULL),)
    weights: Mapping[str, int] = split or service.split
    if not service.versions and not split:
        found = sorted({i.version for i in facts.instances if i.service == service.name}) or [service.stable]
        share, rest = divmod(FULL, len(found))
        weights = {version: share + (1 if index < rest else 0) for index, version in enumerate(found)}
    names = sorted(weights, key=lambda version: (sticky and version == service.stable, version))
    return tuple((cluster_name(service, version), weights[version]) for version in names if weights[version])
