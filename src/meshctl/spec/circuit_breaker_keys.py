"""The keys of circuit breakers.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.policy_schema import CircuitBreaker, Forced
from meshctl.spec.shapes import COUNT, Boolean, Choice, Duration, Integer, Key, Percentage, Table
from meshctl.spec.values import format_duration

_BUILT_IN = CircuitBreaker()

MAX_MINIMUM_REQUESTS = 4096
"""A sidecar remembers the outcome of so many requests to a service at most."""

SLOW_CALL = Table(
    id="slow_call",
    title="`slow_call`",
    doc="Slow calls count as failures of the circuit breaker.",
    keys=(
        Key(
            name="threshold",
            shape=Duration(),
            doc="A call whose answer begins later than that is slow; retries are part of the time.",
            required=True,
        ),
    ),
)

CIRCUIT_BREAKER = Table(
    id="circuit_breaker",
    title="a circuit breaker",
    doc=(
        "One for each caller and service: closed, open after failures, half-open after `timeout`, closed again after "
        "successes. Failures are 5xx, timeouts, broken connections and, with gRPC, the codes UNKNOWN, "
        "DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS. A call counts once, however often it was tried."
    ),
    keys=(
        Key(name="enabled", shape=Boolean(), doc="Whether there is one.", default=_BUILT_IN.enabled),
        Key(
            name="failure_threshold",
            shape=COUNT,
            doc="Failures in a row that open it.",
            default=_BUILT_IN.failure_threshold,
        ),
        Key(
            name="success_threshold",
            shape=COUNT,
            doc="Successes that close it again, and how many calls are let through at a time to see (16 at most).",
            default=_BUILT_IN.success_threshold,
        ),
        Key(
            name="timeout",
            shape=Duration(),
            doc="How long it stays open before it lets calls try again.",
            default=format_duration(_BUILT_IN.timeout),
        ),
        Key(
            name="failure_rate",
            shape=Percentage(minimum=1),
            doc="The share of failures among the last `minimum_requests` calls that opens it. Default: not looked at.",
        ),
        Key(
            name="minimum_requests",
            shape=Integer(minimum=1, maximum=MAX_MINIMUM_REQUESTS),
            doc="The last calls of which `failure_rate` is a share; fewer calls never open it.",
            default=_BUILT_IN.minimum_requests,
        ),
        Key(name="slow_call", shape=SLOW_CALL, doc="Slow calls as failures. Default: not looked at."),
        Key(
            name="probe_timeout",
            shape=Duration(),
            doc=(
                "How long a call that is let through while it is half-open keeps its place. Default: a second more "
                "than the service's `timeout`; `10s` where there is none."
            ),
        ),
        Key(
            name="forced",
            shape=Choice(values=get_args(Forced)),
            doc="Hold it `open` or `closed`, whatever happens, as `meshctl circuit open` does; `auto` lets it work.",
            default=_BUILT_IN.forced,
        ),
    ),
)
