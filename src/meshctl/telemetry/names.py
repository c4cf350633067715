"""Names of a sidecar's stats -> what they count; and the request that asks for just these.  Pure.

``envoy.signals`` makes the names of what is counted of each request; the others are Envoy's own.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import quote

from meshctl.envoy.signals import CALLEE, CALLER, DURATION, REQUESTS
from meshctl.plan.policies.mirror import mirrored_by

View = Literal["caller", "callee"]


class Flow(NamedTuple):
    """Requests that are counted together at one sidecar.

    Seen by the caller, ``place`` is the cluster they were meant for (empty: none) and ``detail`` the route; seen by the
    callee, ``place`` is the instance and ``detail`` the SPIFFE identity of the caller (empty: it showed none).
    """

    view: View
    place: str
    detail: str


class Outcome(NamedTuple):
    """How a request ended: ``status`` 0 is no answer, ``grpc`` -1 no gRPC, ``flags`` Envoy's, empty for none.

    Where an open circuit turned the request away, ``flags`` ends with signals.CIRCUIT_OPEN.
    """

    status: int
    grpc: int
    flags: str


class Requests(NamedTuple):
    """A counter of requests that ended in one way."""

    flow: Flow
    outcome: Outcome


class Durations(NamedTuple):
    """A histogram of times, in microseconds."""

    flow: Flow


ClusterStat = Literal["active", "connections", "retries", "sent", "received", "ejected"]


class OfCluster(NamedTuple):
    """A stat of a cluster: ``active``, ``connections`` and ``ejected`` are gauges, the others counters."""

    cluster: str
    stat: ClusterStat


class OfInstance(NamedTuple):
    """A gauge of an instance's listener."""

    instance: str
    stat: Literal["active", "connections"]


Meaning = Requests | Durations | OfCluster | OfInstance

_CLUSTER_STATS: dict[str, ClusterStat] = {
    "upstream_rq_active": "active",
    "upstream_cx_active": "connections",
    "upstream_rq_retry": "retries",
    "upstream_cx_tx_bytes_total": "sent",
    "upstream_cx_rx_bytes_total": "received",
    "outlier_detection.ejections_active": "ejected",
}
_OUTCOME = r"S\.([0-9]*)\.G\.([0-9]*)\.F\.([^.]*)(?:\.B\.([^.]*))?"
_REQUEST = re.compile(rf"({CALLER}|{CALLEE})\.{REQUESTS}\.[CI]\.([^A-Z]*)\.{_OUTCOME}\.[RP]\.(.*)", re.DOTALL)
_DURATION = re.compile(rf"({CALLER}|{CALLEE})\.{DURATION}\.[CI]\.([^A-Z]*)\.[RP]\.(.*)", re.DOTALL)
# Clusters of the mesh have a slash in their names; the one that leads to the control plane has none.
_CLUSTER = re.compile(rf"cluster\.([^A-Z]*/[^A-Z]*)\.({'|'.join(map(re.escape, _CLUSTER_STATS))})")
_INSTANCE = re.compile(r"http\.inbound/(.*)\.downstream_(rq|cx)_active")

HEALTH_STATS = ("membership_healthy", "health_check.failure")
"""What a sidecar's checks say of its instance, the member of a cluster called ``local/`` and its id; asked for with the
others, so that health needs no reading of its own."""

_FILTER = "|".join(
    [
        rf"^({CALLER}|{CALLEE})\.",
        rf"^cluster\..*/.*\.({'|'.join(map(re.escape, _CLUSTER_STATS))})$",
        r"^http\.inbound/.*\.downstream_(rq|cx)_active$",
        rf"^cluster\.local/.*\.({'|'.join(map(re.escape, HEALTH_STATS))})$",
    ]
)

STATS_PATH = f"/stats?format=json&usedonly&histogram_buckets=detailed&filter={quote(_FILTER)}"
"""What to ask a sidecar's admin interface for: only stats that were ever used, histograms as the bins that hold any."""

_NOTHING = "-"
# What Envoy writes where there is nothing to write.


@lru_cache(maxsize=16384)
def read_name(name: str) -> Meaning | None:
    """What a stat counts; None for one that is of no interest."""
    if found := _REQUEST.fullmatch(name):
        view, place, status, grpc, flags, circuit, detail = found.groups()
        told = ",".join(filter(None, (_text(flags), _text(circuit or ""))))
        outcome = Outcome(int(status or 0), int(grpc) if grpc else -1, told)
        return Requests(_flow(view, place, detail), outcome)
    if found := _DURATION.fullmatch(name):
        return Durations(_flow(*found.groups()))
    if found := _CLUSTER.fullmatch(name):
        cluster, stat = found.groups()
        # Copies are nobody's figures, and what leads to the own instances is counted by its callers.
        ignored = cluster.startswith("local/") or mirrored_by(cluster)[0]
        return None if ignored else OfCluster(cluster, _CLUSTER_STATS[stat])
    if found := _INSTANCE.fullmatch(name):
        instance, gauge = found.groups()
        return OfInstance(instance, "active" if gauge == "rq" else "connections")
    return None


def _flow(view: str, place: str, detail: str) -> Flow:
    return Flow("caller" if view == CALLER else "callee", _text(place), _text(detail))


def _text(value: str) -> str:
    return "" if value == _NOTHING else value
