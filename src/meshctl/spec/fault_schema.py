"""Faults on requests as frozen values: what the topology or a command asks for.  Pure declarations.

Durations are seconds, percentages numbers from 0 to 100, rates KiB a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from meshctl.errors import Where
from meshctl.spec.routing_schema import PathMatch, ValueMatch

FaultSide = Literal["callee", "caller"]

GRPC_CODES = {
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
"""Numbers of gRPC statuses. Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html"""

DEFAULT_DURATION = 300.0
"""Seconds that a fault lasts unless something else is asked for."""

LONGEST_DURATION = 86_400.0
"""Seconds that a fault may last: there is none without a deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault on requests to ``service``; ``gateway`` stands for whatever comes in through it.

    ``delay`` is 0 for none and spreads evenly over plus and minus ``jitter``. A request fails by an answer with status
    ``abort``, by gRPC status ``grpc_status``, by being ``reset``, or by none (0, empty, False). ``rate`` is how fast
    bodies of answers come, 0 for as fast as they do; a ``blackhole`` answers nothing.

    Each effect is drawn by itself for ``percent`` of the requests; ``exclusive``: none is both delayed and failed.
    Which requests are meant: those from ``callers``, to ``version`` and ``instance``, with ``path``, one of
    ``methods``, and ``headers``; what is empty leaves none out. Requests to the paths of health checks are meant only
    with ``health_checks``. ``side`` is where the fault is made.
    """

    name: str
    service: str
    delay: float = 0.0
    jitter: float = 0.0
    abort: int = 0
    grpc_status: str = ""
    rate: int = 0
    reset: bool = False
    blackhole: bool = False
    percent: float = 100.0
    exclusive: bool = False
    side: FaultSide = "callee"
    callers: tuple[str, ...] = ()
    version: str = ""
    instance: str = ""
    path: PathMatch = field(default_factory=PathMatch)
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    health_checks: bool = False
    duration: float = DEFAULT_DURATION
    where: Where = field(compare=False)

    @property
    def fails(self) -> bool:
        """Whether requests fail by it: answered with a failure, or cut off."""
        return bool(self.abort or self.grpc_status or self.reset)

    @property
    def is_narrow(self) -> bool:
        """Whether some requests to the service are left out, whoever sends them."""
        conditions = (self.version, self.instance, self.methods, self.headers)
        return any(conditions) or self.path != PathMatch()
