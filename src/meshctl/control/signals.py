"""Windows of sidecars' counters -> the golden signals in wire shapes.  Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from meshctl.telemetry.buckets import upper_bound
from meshctl.telemetry.places import Directory, caller_of, destination_of
from meshctl.telemetry.rollup import ClusterDelta
from meshctl.telemetry.tally import Tally, add_tallies, grpc_name
from meshctl.telemetry.windows import Gauges, Window
from meshctl.wire.metrics import Bucket, Circuit, Figures, Row

K = TypeVar("K", bound=tuple[str, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one window."""

    services: list[Row]
    versions: list[Row]
    edges: list[Row]
    routes: list[Row]
    flows: list[Row]
    instances: list[Row]


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything in a window by its finest names.

    ``flows`` are by source, destination, version, route; ``served`` by source, destination, version, instance;
    ``clusters`` and ``gauges`` by source, destination, version.
    """

    flows: dict[tuple[str, str, str, str], Tally]
    served: dict[tuple[str, str, str, str], Tally]
    clusters: dict[tuple[str, str, str], tuple[ClusterDelta, float]]
    gauges: dict[tuple[str, str, str], Gauges]


def build_rows(
    directory: Directory,
    windows: Mapping[str, Window],
    *,
    circuits: Mapping[tuple[str, str], Circuit] | None = None,
    buckets: bool = False,
) -> Rows:
    """All rows; ``windows`` are by sidecar, ``circuits`` by source and destination.

    With ``buckets`` rows hold their histograms.
    """
    return _Builder(directory, windows, circuits=circuits or {}, buckets=buckets).build()


class _Place(NamedTuple):
    """What a row is about; empty stands for any."""

    source: str = ""
    destination: str = ""
    version: str = ""
    route: str = ""

    def takes_in(self, key: tuple[str, ...]) -> bool:
        """Whether figures of this source, destination and version belong to it."""
        return all(wanted in ("", found) for wanted, found in zip(self[:3], key, strict=False))


class _Builder:
    def __init__(
        self,
        directory: Directory,
        windows: Mapping[str, Window],
        *,
        circuits: Mapping[tuple[str, str], Circuit],
        buckets: bool,
    ) -> None:
        self._directory = directory
        self._circuits = circuits
        self._windows = windows
        self._buckets = buckets
        self._seen = self._look()

    def build(self) -> Rows:
        known, seen = self._directory, self._seen
        sources: dict[str, set[str]] = {name: set() for name in known.versions}
        for source, destination in {*known.edges, *((key[0], key[1]) for key in seen.flows)}:
            sources.setdefault(destination, set()).add(source)
        services = [self._row(_Place(destination=name), sources[name]) for name in sorted(known.versions)]
        pairs = {(name, version) for name, versions in known.versions.items() for version in versions}
        pairs |= {(key[1], key[2]) for key in (*seen.flows, *seen.served) if key[1] in known.versions and key[2]}
        versions = [
            self._row(_Place(destination=name, version=version), sources[name]) for name, version in sorted(pairs)
        ]
        edges = [
            self._row(_Place(source=source, destination=name), {source})
            for source, name in sorted({*known.edges, *((key[0], key[1]) for key in seen.flows)})
        ]
        routes = [
            self._plain(_Place(destination=name, route=route), sources[name], tallies)
            for (name, route), tallies in sorted(_group(seen.flows, lambda k: (k[1], k[3])).items())
        ]
        flows = [self._plain(_Place(*key), {key[0]}, [tally]) for key, tally in sorted(seen.flows.items())]
        return Rows(
            services=services,
            versions=versions,
            edges=edges,
            routes=routes,
            flows=flows,
            instances=list(self._instances()),
        )

    def _look(self) -> _Seen:
        flows: dict[tuple[str, str, str, str], list[Tally]] = {}
        served: dict[tuple[str, str, str, str], Tally] = {}
        clusters: dict[tuple[str, str, str], tuple[ClusterDelta, float]] = {}
        gauges: dict[tuple[str, str, str], Gauges] = {}
        services = self._directory.versions
        for node, window in self._windows.items():
            for flow, tally in window.flows.items():
                if flow.view == "caller":
                    name, version = destination_of(flow.place, flow.detail, services)
                    flows.setdefault((node, name, version, flow.detail), []).append(tally)
                else:
                    name, version = self._directory.instances.get(flow.place, (node, ""))
                    caller = caller_of(flow.detail, self._directory.trust_domain)
                    served[(caller, name, version, flow.place)] = tally
            for cluster, delta in window.clusters.items():
                clusters[(node, *destination_of(cluster, "", services))] = (delta, window.seconds)
            for cluster, gauge in window.cluster_gauges.items():
                gauges[(node, *destination_of(cluster, "", services))] = gauge
        return _Seen({key: add_tallies(found) for key, found in flows.items()}, served, clusters, gauges)

    def _row(self, place: _Place, sources: Iterable[str]) -> Row:
        """A row over everything that its place takes in."""
        seen = self._seen
        tallies = [tally for key, tally in seen.flows.items() if place.takes_in(key)]
        served = [tally for key, tally in seen.served.items() if place.takes_in(key)]
        clusters = [each for key, each in seen.clusters.items() if place.takes_in(key)]
        gauges = [gauge for key, gauge in seen.gauges.items() if place.takes_in(key)]
        watched = [name for name in sources if name in self._windows]
        is_watched = any(self._windows[name].seconds > 0 for name in watched)
        return Row(
            source=place.source,
            destination=place.destination,
            version=place.version,
            **self._measure(tallies, watched),
            retries=sum(delta.retries for delta, _ in clusters),
            sent_rate=_sum_rates((delta.sent, seconds) for delta, seconds in clusters) if is_watched else None,
            received_rate=_sum_rates((delta.received, seconds) for delta, seconds in clusters) if is_watched else None,
            active=sum(gauge.active for gauge in gauges) if is_watched else None,
            connections=sum(gauge.connections for gauge in gauges) if is_watched else None,
            ejected=max((gauge.ejected for gauge in gauges), default=0),
            circuit=self._circuit(place),
            secured=self._directory.secured.get(place.destination),
            served=Figures(**_figures(add_tallies(served), buckets=self._buckets)) if served else None,
            **self._freshness(sources),
        )

    def _plain(self, place: _Place, sources: Iterable[str], tallies: list[Tally]) -> Row:
        """A row of what is only counted by request."""
        watched = [name for name in sources if name in self._windows]
        return Row(
            source=place.source,
            destination=place.destination,
            version=place.version,
            route=place.route,
            secured=self._directory.secured.get(place.destination),
            **self._measure(tallies, watched),
            **self._freshness(sources),
        )

    def _instances(self) -> Iterator[Row]:
        found = _group(self._seen.served, lambda k: (k[1], k[2], k[3]))
        keys = {*found, *((service, version, name) for name, (service, version) in self._directory.instances.items())}
        for service, version, name in sorted(keys):
            window = self._windows.get(service)
            gauge = window.instance_gauges.get(name) if window is not None else None
            yield Row(
                destination=service,
                version=version,
                instance=name,
                secured=self._directory.secured.get(service),
                active=None if gauge is None else gauge.active,
                connections=None if gauge is None else gauge.connections,
                **self._measure(found.get((service, version, name), []), [service] if window is not None else []),
                **self._freshness({service}),
            )

    def _measure(self, tallies: list[Tally], watched: list[str]) -> dict[str, Any]:
        figures = _figures(add_tallies(tallies), buckets=self._buckets)
        if figures["rate"] is None and any(self._windows[name].seconds > 0 for name in watched):
            figures["rate"] = 0.0
        return figures

    def _freshness(self, sources: Iterable[str]) -> dict[str, Any]:
        ages = {name: self._windows[name].age for name in sources if name in self._windows}
        stale = sorted(name for name in ages if self._windows[name].stale)
        return {"age_s": round(max(ages.values()), 3) if ages else None, "stale": stale}

    def _circuit(self, place: _Place) -> Circuit:
        found = {
            state
            for (source, destination), state in self._circuits.items()
            if destination == place.destination and place.source in ("", source)
        }
        return next((state for state in _WORST_CIRCUIT if state in found), "")


_WORST_CIRCUIT: tuple[Circuit, ...] = ("open", "half_open", "closed")


def _group(tallies: Mapping[Any, Tally], key_of: Callable[[Any], K]) -> dict[K, list[Tally]]:
    groups: dict[K, list[Tally]] = {}
    for key, tally in tallies.items():
        groups.setdefault(key_of(key), []).append(tally)
    return groups


def _sum_rates(parts: Iterable[tuple[int, float]]) -> float:
    return round(sum(count / seconds for count, seconds in parts if seconds > 0), 1)


def _figures(tally: Tally, *, buckets: bool) -> dict[str, Any]:
    statuses: dict[str, int] = {}
    grpc: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for outcome, count in sorted(tally.outcomes.items()):
        _count(statuses, str(outcome.status), count)
        if outcome.grpc >= 0:
            _count(grpc, grpc_name(outcome.grpc), count)
        for flag in outcome.flags.split(",") if outcome.flags else ():
            _count(reasons, flag, count)
    return {
        "requests": tally.requests,
        "failures": tally.failures,
        "rate": _round(tally.rate, 3),
        "success": _round(tally.success, 6),
        "p50_ms": _round(tally.quantile(0.50), 3),
        "p90_ms": _round(tally.quantile(0.90), 3),
        "p95_ms": _round(tally.quantile(0.95), 3),
        "p99_ms": _round(tally.quantile(0.99), 3),
        "statuses": statuses,
        "grpc": grpc,
        "reasons": reasons,
        "buckets": list(_list_buckets(tally.durations)) if buckets else [],
    }


def _list_buckets(durations: Mapping[int, int]) -> Iterator[Bucket]:
    for index, count in sorted(durations.items()):
        bound = upper_bound(index)
        yield Bucket(index=index, le_ms=None if math.isinf(bound) else round(bound, 6), count=count)


def _count(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
