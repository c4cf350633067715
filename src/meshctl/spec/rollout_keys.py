"""The keys of rollouts.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.rollout_schema import OnFailure, RolloutRules
from meshctl.spec.shapes import COUNT, Boolean, Choice, Duration, Key, ListOf, Number, Percentage, Table, Text
from meshctl.spec.values import format_duration

_BUILT_IN = RolloutRules()
MOST_STEPS = 100
LONGEST_WINDOW = 3600.0
"""Seconds that figures of the traffic are kept for."""

ROLLOUT = Table(
    id="rollout",
    title="`rollout`",
    doc=(
        "How a version takes over the traffic of the service, step by step, as long as it is no worse than the stable "
        "one. These are also the values that `meshctl canary start` begins with."
    ),
    keys=(
        Key(
            name="version",
            shape=Text(what="the name of a version"),
            doc="The version that `up` rolls out when it is new: not as it was at its last rollout. Default: none.",
        ),
        Key(
            name="steps",
            shape=ListOf(item=Percentage(minimum=1, whole=True), minimum=1, maximum=MOST_STEPS),
            doc="Its share of the traffic, step by step, rising to 100.",
            default=list(_BUILT_IN.steps),
        ),
        Key(
            name="interval",
            shape=Duration(),
            doc="Time from one look at both versions to the next, at least 1s.",
            default=format_duration(_BUILT_IN.interval),
        ),
        Key(
            name="window",
            shape=Duration(),
            doc="The time over which both versions are compared, and that a step lasts at least; up to 1h.",
            default=format_duration(_BUILT_IN.window),
        ),
        Key(
            name="max_error_ratio",
            shape=Number(minimum=1, maximum=100),
            doc="How many times the stable version's share of errors it may have.",
            default=_BUILT_IN.max_error_ratio,
        ),
        Key(
            name="max_p99_ratio",
            shape=Number(minimum=1, maximum=100),
            doc="How many times as long as the stable version's its slowest hundredth may take.",
            default=_BUILT_IN.max_p99_ratio,
        ),
        Key(
            name="alpha",
            shape=Number(minimum=0.0001, maximum=0.5),
            doc="The probability of taking back a version that is no worse, over the whole rollout.",
            default=_BUILT_IN.alpha,
        ),
        Key(
            name="min_requests",
            shape=COUNT,
            doc="So many requests both versions must have answered at a step before the next one.",
            default=_BUILT_IN.min_requests,
        ),
        Key(
            name="on_failure",
            shape=Choice(values=get_args(OnFailure)),
            doc="What becomes of a version that is worse: `rollback` takes all traffic from it, `freeze` leaves it as "
            "it is for somebody to look at.",
            default=_BUILT_IN.on_failure,
        ),
        Key(
            name="deadline",
            shape=Duration(zero=True),
            doc="A rollout that has not ended by then is paused as inconclusive; `0` for never.",
            default=format_duration(_BUILT_IN.deadline),
        ),
        Key(
            name="count_faults",
            shape=Boolean(),
            doc="Whether errors and delays that were injected are held against the version too.",
            default=_BUILT_IN.count_faults,
        ),
    ),
)
