"""The newest samples as text for Prometheus.  Pure.

Counters are those of the sidecars themselves and begin anew with them, which Prometheus takes for what it is. Labels
are names of the topology; no path and no host is ever one. Sources: the OpenMetrics specification
(https://prometheus.io/docs/specs/om/open_metrics_spec/) and Prometheus's conventions for names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from meshctl.telemetry.buckets import FIRST, LAST, Histogram, add, lower_bound, upper_bound
from meshctl.telemetry.names import Durations, Flow, OfCluster, OfInstance, Requests, read_name
from meshctl.telemetry.places import Directory, caller_of, destination_of
from meshctl.telemetry.rollup import Rollup
from meshctl.telemetry.tally import grpc_name

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
"""The content types of the two formats."""

BOUNDS = tuple(range(FIRST + 2, LAST, 4))
"""The buckets that are told apart: a factor of 1.44, fewer than are kept, since each is a time series of its own."""

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Family:
    kind: str
    text: str
    unit: str = ""
    numbers: dict[Labels, float] = field(default_factory=dict)
    histograms: dict[Labels, Histogram] = field(default_factory=dict)


_FAMILIES: dict[str, tuple[str, str, str]] = {
    "meshctl_requests": ("counter", "Requests as their callers saw them, each counted once.", ""),
    "meshctl_request_duration_seconds": (
        "histogram",
        "Time from a request to the end of its answer as callers saw it. The sum is estimated from fine buckets.",
        "seconds",
    ),
    "meshctl_served_requests": ("counter", "Requests as the sidecars of instances saw them, every try by itself.", ""),
    "meshctl_served_request_duration_seconds": (
        "histogram",
        "Time from a request to the end of its answer at the instance. The sum is estimated from fine buckets.",
        "seconds",
    ),
    "meshctl_retries": ("counter", "Tries after the first.", ""),
    "meshctl_sent_bytes": ("counter", "Bytes sent to a destination.", "bytes"),
    "meshctl_received_bytes": ("counter", "Bytes received from a destination.", "bytes"),
    "meshctl_active_requests": ("gauge", "Requests under way to a destination.", ""),
    "meshctl_open_connections": ("gauge", "Connections open to a destination.", ""),
    "meshctl_ejected_instances": ("gauge", "Instances that outlier detection keeps away.", ""),
    "meshctl_instance_active_requests": ("gauge", "Requests under way at an instance.", ""),
    "meshctl_instance_open_connections": ("gauge", "Connections open to an instance.", ""),
    "meshctl_sidecar_age_seconds": ("gauge", "Time since a sidecar last told its figures.", "seconds"),
    "meshctl_sidecar_resets": ("counter", "How often a sidecar's counters began anew.", ""),
}

_OF_CLUSTER = {
    "retries": "meshctl_retries",
    "sent": "meshctl_sent_bytes",
    "received": "meshctl_received_bytes",
    "active": "meshctl_active_requests",
    "connections": "meshctl_open_connections",
    "ejected": "meshctl_ejected_instances",
}
_OF_INSTANCE = {"active": "meshctl_instance_active_requests", "connections": "meshctl_instance_open_connections"}


def write_exposition(rollup: Rollup, directory: Directory, *, now: float, openmetrics: bool) -> str:
    """All metrics as OpenMetrics text, or in Prometheus's own format."""
    families = _collect(rollup, directory, now)
    lines = [line for name, family in families.items() for line in _write_family(name, family, openmetrics=openmetrics)]
    if openmetrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""])


def _collect(rollup: Rollup, directory: Directory, now: float) -> dict[str, _Family]:
    families = {name: _Family(kind, text, unit) for name, (kind, text, unit) in _FAMILIES.items()}

    def count(name: str, labels: Labels, value: float) -> None:
        numbers = families[name].numbers
        numbers[labels] = numbers.get(labels, 0) + value

    for node, history in sorted(rollup.sidecars.items()):
        count("meshctl_sidecar_age_seconds", (("sidecar", node),), max(0.0, now - history.last.time))
        count("meshctl_sidecar_resets", (("sidecar", node),), history.resets)
        for name, value in history.last.stats.numbers.items():
            meaning = read_name(name)
            if isinstance(meaning, Requests):
                labels = _labels(_names_of(meaning.flow, node, directory), _outcome_of(meaning))
                served = meaning.flow.view == "callee"
                count("meshctl_served_requests" if served else "meshctl_requests", labels, value)
            elif isinstance(meaning, OfCluster):
                destination, version = destination_of(meaning.cluster, "", directory.versions)
                labels = _labels({"source": node, "destination": destination, "version": version})
                count(_OF_CLUSTER[meaning.stat], labels, value)
            elif isinstance(meaning, OfInstance):
                service, version = directory.instances.get(meaning.instance, (node, ""))
                labels = _labels({"destination": service, "version": version, "instance_id": meaning.instance})
                count(_OF_INSTANCE[meaning.stat], labels, value)
        for name, histogram in history.last.stats.histograms.items():
            meaning = read_name(name)
            if isinstance(meaning, Durations):
                served = meaning.flow.view == "callee"
                family = "meshctl_served_request_duration_seconds" if served else "meshctl_request_duration_seconds"
                labels = _labels(_names_of(meaning.flow, node, directory))
                histograms = families[family].histograms
                # To an external service lead its cluster and, for what a sidecar answers by itself, none.
                histograms[labels] = add((histograms[labels], histogram)) if labels in histograms else histogram
    return families


def _names_of(flow: Flow, node: str, directory: Directory) -> dict[str, str]:
    if flow.view == "caller":
        destination, version = destination_of(flow.place, flow.detail, directory.versions)
        return {"source": node, "destination": destination, "version": version, "route": flow.detail}
    service, version = directory.instances.get(flow.place, (node, ""))
    source = caller_of(flow.detail, directory.trust_domain)
    # `instance` is the label by which Prometheus tells its targets apart.
    return {"source": source, "destination": service, "version": version, "instance_id": flow.place}


def _outcome_of(meaning: Requests) -> dict[str, str]:
    outcome = meaning.outcome
    grpc = grpc_name(outcome.grpc) if outcome.grpc >= 0 else ""
    return {"status": str(outcome.status), "grpc_status": grpc, "reason": outcome.flags}


def _labels(*groups: Mapping[str, str]) -> Labels:
    """Labels in order, those that are empty left out: to Prometheus that is the same."""
    return tuple((name, value) for group in groups for name, value in group.items() if value)


def _write_family(name: str, family: _Family, *, openmetrics: bool) -> Iterator[str]:
    if not family.numbers and not family.histograms:
        return
    sample = f"{name}_total" if family.kind == "counter" else name
    # In OpenMetrics a counter's family is named without the suffix of its samples.
    title = name if openmetrics else sample
    yield f"# HELP {title} {family.text}"
    yield f"# TYPE {title} {family.kind}"
    if openmetrics and family.unit:
        yield f"# UNIT {title} {family.unit}"
    for labels, value in sorted(family.numbers.items()):
        yield f"{sample}{_write_labels(labels)} {_number(value)}"
    for labels, histogram in sorted(family.histograms.items()):
        yield from _write_histogram(name, labels, histogram)


def _write_histogram(name: str, labels: Labels, histogram: Histogram) -> Iterator[str]:
    below, left = 0, sorted(histogram.items())
    for bound in BOUNDS:
        while left and left[0][0] <= bound:
            below += left.pop(0)[1]
        yield f"{name}_bucket{_write_labels((*labels, ('le', _number(upper_bound(bound) / 1000))))} {below}"
    total = sum(histogram.values())
    yield f"{name}_bucket{_write_labels((*labels, ('le', '+Inf')))} {total}"
    yield f"{name}_sum{_write_labels(labels)} {_number(sum(_middle(k) * count for k, count in histogram.items()))}"
    yield f"{name}_count{_write_labels(labels)} {total}"


def _middle(bucket: int) -> float:
    """The middle of a bucket in seconds; of the last its beginning."""
    low, high = lower_bound(bucket), upper_bound(bucket)
    return (low if math.isinf(high) else (low + high) / 2) / 1000


def _write_labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if float(value).is_integer():
        return str(int(value))
    return f"{value:.6g}"
