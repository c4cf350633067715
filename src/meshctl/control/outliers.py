"""Instances that a caller's sidecar keeps away from because they failed, told as events.  I/O (admin sockets).

Outlier detection is a sidecar's own doing and needs no control plane. How many instances it keeps away is among the
counters that are read each second; which ones is asked only when that number changes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from meshctl.control.engine import Engine
from meshctl.plan.addresses import instances_by_address
from meshctl.telemetry.names import OfCluster, read_name
from meshctl.telemetry.stats import Stats

LOOK_EVERY = 0.25
"""Seconds between two looks: soon after the counters were read, since an ejection may be short."""

_CLUSTERS_PATH = "/clusters?format=json"


class Outliers:
    """Watches what the sidecars of a running mesh keep away from."""

    def __init__(self, engine: Engine, *, wait: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._engine = engine
        self._wait = wait
        self._seen: dict[str, Stats] = {}
        self._counts: dict[str, Mapping[str, int]] = {}
        self._away: dict[str, Mapping[str, frozenset[str]]] = {}

    async def run(self) -> None:
        """Tell of changes until cancelled."""
        while True:
            await self._wait(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """Tell of the changes since the last look. A sidecar that does not answer is looked at the next time."""
        for node, stats in self._changed():
            counts = dict(_count(stats))
            if counts != self._counts.get(node, {}):
                try:
                    answer = await self._engine.parts.admin.get(
                        self._engine.parts.paths.admin_socket(node), _CLUSTERS_PATH
                    )
                    away = read_ejected(json.loads(answer), instances_by_address(self._engine.parts.topology.ports))
                except (OSError, ValueError):
                    continue
                self._tell(node, away)
                self._counts[node] = counts
            self._seen[node] = stats

    def _changed(self) -> list[tuple[str, Stats]]:
        histories = self._engine.parts.metrics.reader.rollup.sidecars
        for gone in self._seen.keys() - histories.keys():
            for kept in (self._seen, self._counts, self._away):
                kept.pop(gone, None)
        # A sidecar at rest gives the same object again: next to nothing is looked at then.
        return [
            (node, history.last.stats)
            for node, history in sorted(histories.items())
            if history.last.stats is not self._seen.get(node)
        ]

    def _tell(self, node: str, away: Mapping[str, frozenset[str]]) -> None:
        before = self._away.get(node, {})
        self._away[node] = away
        events = self._engine.parts.events
        for cluster in sorted({*before, *away}):
            service = cluster.partition("/")[0]
            old, new = before.get(cluster, frozenset()), away.get(cluster, frozenset())
            subject = f"{node} -> {service}"
            for name in sorted(new - old):
                message = f"{subject}: {name} failed too often, and is given no requests for a while"
                events.add("outlier.ejected", subject, message, "warning")
            for name in sorted(old - new):
                events.add("outlier.returned", subject, f"{subject}: {name} is given requests again")


def read_ejected(clusters: Any, instances: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """The instances that outlier detection keeps away, by cluster, out of what Envoy says of its clusters.

    Raises ValueError when that cannot be read.
    """
    found: dict[str, frozenset[str]] = {}
    try:
        for cluster in clusters["cluster_statuses"]:
            addresses = [
                f"{place['address']}:{place['port_value']}"
                for host in cluster.get("host_statuses", ())
                if host.get("health_status", {}).get("failed_outlier_check")
                and (place := host["address"].get("socket_address"))
            ]
            if addresses:
                found[cluster["name"]] = frozenset(instances.get(address, address) for address in addresses)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no list of clusters: {error!r}") from error
    return found


def _count(stats: Stats) -> Iterator[tuple[str, int]]:
    for name, value in stats.numbers.items():
        meaning = read_name(name)
        if isinstance(meaning, OfCluster) and meaning.stat == "ejected" and value:
            yield meaning.cluster, value
