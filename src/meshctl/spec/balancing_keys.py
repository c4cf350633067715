"""The keys of load balancing and health checks.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.policy_schema import Algorithm, HealthCheck, LoadBalancing
from meshctl.spec.shapes import UNBOUNDED, AnyOf, Boolean, Choice, Duration, Integer, Key, ListOf, Statuses, Table, Text
from meshctl.spec.values import format_duration

_BUILT_IN = LoadBalancing()
_CHECK = HealthCheck()
_COUNT = Integer(minimum=1, maximum=UNBOUNDED)

HEALTH_CHECK = Table(
    id="health_check",
    title="a health check",
    doc="An active check of every instance, made by its sidecar.",
    keys=(
        Key(
            name="path",
            shape=Text(
                what="a path that begins with `/`",
                pattern=r"/[!-~]*",
                code="bad-path",
                hint="write a path such as `/health`",
            ),
            doc="What is asked for. Once it is written, the expected statuses are 200-399.",
            default=_CHECK.path,
        ),
        Key(
            name="interval",
            shape=Duration(),
            doc="Time between two checks.",
            default=format_duration(_CHECK.interval),
        ),
        Key(
            name="timeout",
            shape=Duration(),
            doc="How long an answer may take.",
            default=format_duration(_CHECK.timeout),
        ),
        Key(
            name="healthy_threshold",
            shape=_COUNT,
            doc="Successes in a row that make an instance healthy.",
            default=_CHECK.healthy_threshold,
        ),
        Key(
            name="unhealthy_threshold",
            shape=_COUNT,
            doc="Failures in a row that make it unhealthy.",
            default=_CHECK.unhealthy_threshold,
        ),
        Key(
            name="expected_statuses",
            shape=AnyOf(shapes=(Statuses(), ListOf(item=Statuses(), minimum=1, maximum=50))),
            doc="The statuses of a healthy answer.",
            default="200-499",
        ),
    ),
)

LOAD_BALANCING = Table(
    id="load_balancing",
    title="`load_balancing`",
    doc="How a caller chooses among the instances.",
    keys=(
        Key(
            name="algorithm",
            shape=Choice(values=get_args(Algorithm)),
            doc="The algorithm.",
            default=_BUILT_IN.algorithm,
        ),
        Key(
            name="health_check",
            shape=AnyOf(shapes=(Boolean(), HEALTH_CHECK)),
            doc="The active check of every instance; `false` turns it off.",
        ),
    ),
)
