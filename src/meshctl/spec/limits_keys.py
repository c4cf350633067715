"""The keys of limits, rate limits and outlier detection.  Pure declarations; see ``keys``."""

from __future__ import annotations

from meshctl.spec.limits_schema import MAX_RATE_LIMITS, Limits, OutlierDetection, RateLimit
from meshctl.spec.shapes import (
    COUNT,
    AnyOf,
    Boolean,
    Duration,
    Integer,
    Key,
    ListOf,
    Percentage,
    Table,
    Text,
)
from meshctl.spec.values import format_duration

_OUTLIER = OutlierDetection()
_RATE = RateLimit(name="", requests=1, burst=1)
_MAX_BYTES = 4_000_000_000

HEADER_NAME = Text(
    what="the name of a header",
    pattern=r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}",
    code="bad-name",
    hint="write a name such as `x-user`",
)
_PATH = Text(
    what="a path that begins with `/`",
    pattern=r"/(?:(?![?#])[!-~])*",
    code="bad-path",
    hint="write a path such as `/api`, with no query",
)

OUTLIER_DETECTION = Table(
    id="outlier_detection",
    title="`outlier_detection`",
    doc=(
        "Each caller takes an instance that keeps failing out of its choice for a while. Unlike the circuit breaker it "
        "looks at single instances, and knows no half-open state."
    ),
    keys=(
        Key(
            name="consecutive_failures",
            shape=COUNT,
            doc="Failures in a row (5xx, resets, timeouts) that eject an instance.",
            default=_OUTLIER.consecutive_failures,
        ),
        Key(
            name="interval",
            shape=Duration(),
            doc="How often a caller looks whether an ejection is over.",
            default=format_duration(_OUTLIER.interval),
        ),
        Key(
            name="ejection_time",
            shape=Duration(),
            doc="How long an ejected instance gets no requests; the same each time.",
            default=format_duration(_OUTLIER.ejection_time),
        ),
        Key(
            name="max_ejection",
            shape=Percentage(minimum=1, whole=True),
            doc="The share of the instances that may be ejected at one time.",
            default=f"{_OUTLIER.max_ejection:g}%",
        ),
    ),
)

LIMITS = Table(
    id="limits",
    title="`limits`",
    doc=(
        "How much may be under way at once. The first four hold at each caller, for each version that it calls; what "
        "goes beyond them is answered with 503 and `x-meshctl-overloaded`, not retried, and no failure of the service."
    ),
    keys=(
        Key(
            name="max_connections",
            shape=COUNT,
            doc="Connections; for HTTP one carries many requests, so this is for plain TCP. Default: no limit.",
        ),
        Key(
            name="max_pending_requests",
            shape=COUNT,
            doc="Requests that wait for a connection. Default: no limit.",
        ),
        Key(name="max_requests", shape=COUNT, doc="Requests under way. Default: no limit."),
        Key(
            name="max_retries",
            shape=COUNT,
            doc="Retries under way, in place of the share that retries may take of all requests. Default: that share.",
        ),
        Key(
            name="max_request_bytes",
            shape=Integer(minimum=1, maximum=_MAX_BYTES),
            doc=(
                "The longest body of a request; a longer one is answered with 413. A body whose length is not declared "
                "is held until it is whole. Default: no limit."
            ),
        ),
        Key(
            name="adaptive_concurrency",
            shape=Boolean(),
            doc=(
                "Whether each instance's sidecar finds by its latency how many requests it can take at once, and "
                "answers others with 503."
            ),
            default=Limits().adaptive_concurrency,
        ),
    ),
)

RATE_LIMIT_PATH = Table(
    id="rate_limit_path",
    title="the path of a rate limit",
    doc="One of `exact` and `prefix`.",
    keys=(
        Key(name="exact", shape=_PATH, doc="The whole path, without the query."),
        Key(name="prefix", shape=_PATH, doc="The beginning of the path, in whole segments."),
    ),
)

RATE_LIMIT = Table(
    id="rate_limit",
    title="a rate limit",
    doc=(
        "A token bucket at each instance. A request that finds it empty is answered with 429, `Retry-After`, "
        "`RateLimit`, `x-ratelimit-*` and `x-meshctl-ratelimit: <name>`."
    ),
    keys=(
        Key(
            name="name",
            shape=Text(
                what="the name of a rate limit",
                pattern=r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
                code="bad-name",
                hint="use lower-case letters, digits and hyphens, at most 40, beginning with a letter",
            ),
            doc="Its name, which refused requests are told.",
            required=True,
        ),
        Key(name="requests", shape=COUNT, doc="How many requests `per` that time.", required=True),
        Key(name="per", shape=Duration(), doc="The time; at least 50ms.", default=format_duration(_RATE.per)),
        Key(name="burst", shape=COUNT, doc="How many at once after a pause. Default: `requests`."),
        Key(
            name="from",
            shape=ListOf(item=Text(what="the name of a service or `gateway`"), minimum=1, maximum=100),
            doc="Only requests of these callers, which share the bucket. Default: of all.",
        ),
        Key(
            name="path",
            shape=AnyOf(shapes=(_PATH, RATE_LIMIT_PATH)),
            doc="Only requests whose path begins so (whole segments), or as the mapping says. Default: any.",
        ),
        Key(
            name="methods",
            shape=ListOf(
                item=Text(what="a method", pattern=r"[A-Z]{1,20}", code="bad-text", hint="write it as `GET`"),
                minimum=1,
                maximum=20,
            ),
            doc="Only requests with one of these methods. Default: any.",
        ),
        Key(
            name="header",
            shape=HEADER_NAME,
            doc=(
                "A bucket for each value of this header, for the 1,000 values used last; requests without it share one."
            ),
        ),
        Key(
            name="each_caller",
            shape=Boolean(),
            doc="A bucket for each caller, by its identity; callers without one share one.",
            default=_RATE.each_caller,
        ),
    ),
)

OUTLIER_KEY = Key(
    name="outlier_detection",
    shape=AnyOf(shapes=(Boolean(), OUTLIER_DETECTION)),
    doc="Callers eject an instance that keeps failing; `true` for the built-in values. Default: `false`.",
)
LIMITS_KEY = Key(name="limits", shape=LIMITS, doc="How much may be under way at once, and how long bodies may be.")
RATE_LIMITS_KEY = Key(
    name="rate_limits",
    shape=ListOf(item=RATE_LIMIT, maximum=MAX_RATE_LIMITS),
    doc="How many requests each instance takes in a time. All that are for a request must let it pass.",
)
