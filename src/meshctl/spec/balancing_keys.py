"""The keys of load balancing and health checks.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.limits_keys import HEADER_NAME
from meshctl.spec.policy_schema import Algorithm, HealthCheck, LoadBalancing
from meshctl.spec.shapes import (
    COUNT,
    AnyOf,
    Boolean,
    Choice,
    Duration,
    Integer,
    Key,
    ListOf,
    MapOf,
    Percentage,
    Statuses,
    Table,
    Text,
)
from meshctl.spec.values import format_duration

_BUILT_IN = LoadBalancing()
_CHECK = HealthCheck()
_WEIGHT = Integer(minimum=1, maximum=100)

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
            shape=COUNT,
            doc="Successes in a row that make an instance healthy.",
            default=_CHECK.healthy_threshold,
        ),
        Key(
            name="unhealthy_threshold",
            shape=COUNT,
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

COOKIE_NAME = Text(
    what="the name of a cookie",
    pattern=r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}",
    code="bad-name",
    hint="write a name such as `session`",
)

HASH_COOKIE = Table(
    id="hash_cookie",
    title="a cookie to hash",
    doc="A client that has no such cookie is given one.",
    keys=(
        Key(name="name", shape=COOKIE_NAME, doc="The cookie's name.", required=True),
        Key(name="ttl", shape=Duration(), doc="How long it lives at the client. Default: as long as its session."),
    ),
)

HASH = Table(
    id="hash",
    title="`hash`",
    doc="One of `header`, `cookie` and `source`: requests that agree in it go to the same instance.",
    keys=(
        Key(name="header", shape=HEADER_NAME, doc="The value of a header. Requests without it go anywhere."),
        Key(name="cookie", shape=HASH_COOKIE, doc="The value of a cookie."),
        Key(
            name="source",
            shape=Boolean(only=True),
            doc="The calling service; at the gateway, the client's address.",
        ),
    ),
)

INSTANCE_NAME = Text(
    what="an instance name",
    pattern=r"[a-z][-a-z0-9.]{0,79}",
    code="bad-name",
    hint="write a name such as `cart-v1-1`: service, version and number",
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
            name="hash",
            shape=HASH,
            doc="What `ring_hash` and `maglev` choose by; they need it, and the others have no use for it.",
        ),
        Key(
            name="weights",
            shape=MapOf(name=INSTANCE_NAME, value=_WEIGHT),
            doc=(
                "The weights of instances by name, such as `{cart-v1-1: 3}`; others have 1. They hold among the "
                "instances of one version, and not for `random`."
            ),
        ),
        Key(
            name="slow_start",
            shape=Duration(zero=True),
            doc=(
                "A new instance gets a growing share of the requests, and its full one after this time. For "
                "`round_robin` and `least_request`."
            ),
            default=format_duration(_BUILT_IN.slow_start),
        ),
        Key(
            name="panic_threshold",
            shape=Percentage(whole=True),
            doc=(
                "With less than this share of the instances healthy, callers send to all of them. 0% means never: "
                "requests do not go to instances known to be unhealthy."
            ),
            default=f"{_BUILT_IN.panic_threshold:g}%",
        ),
        Key(
            name="health_check",
            shape=AnyOf(shapes=(Boolean(), HEALTH_CHECK)),
            doc="The active check of every instance; `false` turns it off.",
        ),
    ),
)
