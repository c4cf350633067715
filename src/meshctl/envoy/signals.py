"""What a sidecar counts of each request when it is over: a counter and a histogram of its own stats.  Pure.

Envoy's own stats do not tell what a caller saw: those of a cluster leave out what the sidecar answered itself (an open
circuit, a fault, a fallback), and those of a listener tell no destination. The stats access logger counts each request
once, after its last try, by names that are made of it; nothing is written and nothing is sent. Source:
https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/access_loggers/stats/v3/stats.proto

Every name is bounded by the configuration (clusters, routes, instances, identities), never by paths or hosts. Tags are
upper case and stand in an order in which no value can be taken for a tag; ``telemetry.names`` reads them.
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener

CALLER = "caller"
"""Begins the names of what is counted where a request enters the mesh, or leaves its caller."""

CALLEE = "callee"
"""Begins the names of what is counted at an instance."""

REQUESTS = "rq"
DURATION = "us"

_NAME = "envoy.access_loggers.stats"
_CONFIG = "envoy.extensions.access_loggers.stats.v3.Config"

_MOST_COUNTERS = 2000
_MOST_HISTOGRAMS = 500
# Of one listener: far above what a mesh on one machine has, so that nothing a service answers fills the memory.

_MICROSECONDS = "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"
# From the first byte of the request to the last of the answer. Where there was no answer there is no such time.

CIRCUIT_OPEN = "circuit_open"
"""What stands among the flags of a request that the caller's sidecar turned away because a circuit was open."""

CIRCUIT_NAMESPACE, CIRCUIT_KEY = "meshctl.circuit", "rejected"
# Where the circuit breaker notes that. A header would not do: a service may send any.

_CIRCUIT = ("B", f"%DYNAMIC_METADATA({CIRCUIT_NAMESPACE}:{CIRCUIT_KEY})%")

_OUTCOME: tuple[tuple[str, str], ...] = (
    ("S", "%RESPONSE_CODE%"),
    ("G", "%GRPC_STATUS_NUMBER%"),
    ("F", "%RESPONSE_FLAGS%"),
)


def signal_log(plan: HttpListener) -> Any:
    """The access logger of a listener that counts its requests."""
    if plan.role == "inbound":
        where, what = CALLEE, ("I", plan.name.removeprefix("inbound/"))
        outcome, detail = _OUTCOME, ("P", "%DOWNSTREAM_PEER_URI_SAN%")
    else:
        # The cluster that the route chose, even if the request never got as far as being sent there.
        where, what = CALLER, ("C", "%UPSTREAM_CLUSTER_RAW%")
        outcome, detail = (*_OUTCOME, _CIRCUIT), ("R", "%ROUTE_NAME%")
    config = {
        "stats_scope": {"prefix": where, "max_counters": _MOST_COUNTERS, "max_histograms": _MOST_HISTOGRAMS},
        "counters": [{"stat": _stat(REQUESTS, what, *outcome, detail), "value_fixed": 1}],
        "histograms": [{"stat": _stat(DURATION, what, detail), "unit": "Microseconds", "value_format": _MICROSECONDS}],
    }
    return pb.accesslog_pb2.AccessLog(name=_NAME, typed_config=pb.any_of_struct(_CONFIG, config))


def _stat(name: str, *tags: tuple[str, str]) -> dict[str, Any]:
    # All in the value of the first tag: the name comes out the same, and Envoy joins one tag to it instead of six.
    (first, value), *others = tags
    joined = ".".join((value, *(part for tag in others for part in tag)))
    return {"name": name, "tags": [{"name": first, "value_format": joined}]}
