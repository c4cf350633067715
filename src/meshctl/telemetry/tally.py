"""What a window holds: counts by outcome and durations, added over flows, and what they come to.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshctl.telemetry.buckets import add, quantile, unpack
from meshctl.telemetry.names import Outcome
from meshctl.telemetry.rollup import FlowDelta

GRPC_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html"""

_GRPC_FAILURES = frozenset(
    GRPC_NAMES.index(name)
    for name in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
# Those that are the server's fault. Source: OpenTelemetry's conventions for gRPC (server span status).

_SERVER_ERROR = 500


def is_failure(outcome: Outcome) -> bool:
    """Whether a request that ended so has failed: no answer, a status from 500, or a gRPC status of the server's."""
    return outcome.status == 0 or outcome.status >= _SERVER_ERROR or is_grpc_failure(outcome.grpc)


def is_grpc_failure(status: int) -> bool:
    """Whether a gRPC status is the server's fault, as a status from 500 is."""
    return status in _GRPC_FAILURES


def grpc_name(status: int) -> str:
    """The name of a gRPC status, or its number when it has none."""
    return GRPC_NAMES[status] if 0 <= status < len(GRPC_NAMES) else str(status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Requests of a window; ``rate`` is per second, None when nobody knows."""

    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    durations: Mapping[int, int] = field(default_factory=dict)
    rate: float | None = None

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.outcomes.values())

    @property
    def failures(self) -> int:
        """Those that failed."""
        return sum(count for outcome, count in self.outcomes.items() if is_failure(outcome))

    @property
    def success(self) -> float | None:
        """The share that did not fail; None when there was no request."""
        requests = self.requests
        return 1 - self.failures / requests if requests else None

    def quantile(self, share: float) -> float | None:
        """Milliseconds that this share of the requests took at the most; None when there was none."""
        return quantile(self.durations, share)


def count_deltas(deltas: Iterable[FlowDelta], seconds: float) -> Tally:
    """What was added to one flow of one sidecar, which was watched for so many seconds (0: not at all)."""
    outcomes: dict[Outcome, int] = {}
    parts = []
    for delta in deltas:
        for outcome, count in delta.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        if delta.durations:
            parts.append(unpack(delta.durations))
    rate = sum(outcomes.values()) / seconds if seconds > 0 else None
    return Tally(outcomes=outcomes, durations=add(parts), rate=rate)


def add_tallies(tallies: Iterable[Tally]) -> Tally:
    """Tallies as one; the rate is the sum of those that are known."""
    outcomes: dict[Outcome, int] = {}
    rates: list[float] = []
    parts = []
    for tally in tallies:
        for outcome, count in tally.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        parts.append(tally.durations)
        if tally.rate is not None:
            rates.append(tally.rate)
    return Tally(outcomes=outcomes, durations=add(parts), rate=sum(rates) if rates else None)
