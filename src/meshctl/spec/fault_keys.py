"""The keys of faults.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.errors import Where
from meshctl.spec.fault_schema import GRPC_CODES, Fault, FaultSide
from meshctl.spec.routing_keys import HEADER_MATCH, MATCH, PATH_MATCH
from meshctl.spec.shapes import AnyOf, Boolean, Choice, Duration, Integer, Key, MapOf, Percentage, Table, Text
from meshctl.spec.values import format_duration

_BUILT_IN = Fault(name="", service="", where=Where("", 0, 0))
_FIRST_ANSWER, _LAST_ANSWER = 200, 599

FAULT_NAME = Text(
    what="a fault name",
    pattern=r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?",
    code="bad-name",
    hint="use lower-case letters, digits and hyphens, at most 40",
)
_PATH_TEXT = Text(
    what="a path that begins with `/`",
    pattern=r"/(?:(?![?#])[!-~])*",
    code="bad-path",
    hint="write a path such as `/` or `/api`, with no query",
)


def _from_match(name: str) -> Key:
    key = MATCH.find(name)
    assert key is not None
    return key


FAULT = Table(
    id="fault",
    title="a fault",
    doc=(
        "Breaks requests to a service on purpose, for a while. Each of `delay`, a failure (`abort`, `grpc_status` or "
        "`reset`) and `rate` is drawn by itself for `percent` of the requests."
    ),
    keys=(
        Key(
            name="service",
            shape=Text(what="the name of a service"),
            doc="The service that is called; `gateway` for whatever comes in through it.",
            required=True,
        ),
        Key(name="delay", shape=Duration(), doc="How long requests are held up before the service gets them."),
        Key(
            name="jitter",
            shape=Duration(zero=True),
            doc="Delays are spread evenly over `delay` plus and minus this, in whole milliseconds.",
            default=format_duration(_BUILT_IN.jitter),
        ),
        Key(
            name="abort",
            shape=Integer(minimum=_FIRST_ANSWER, maximum=_LAST_ANSWER),
            doc="Requests are answered with this HTTP status in place of the service.",
        ),
        Key(
            name="grpc_status",
            shape=Choice(values=tuple(GRPC_CODES)),
            doc="Calls are answered with this gRPC status in place of the service.",
        ),
        Key(
            name="reset",
            shape=Boolean(),
            doc="Requests are cut off: their stream is reset before there is an answer.",
            default=_BUILT_IN.reset,
        ),
        Key(
            name="blackhole",
            shape=Boolean(),
            doc="Requests get no answer at all, until their caller has waited long enough.",
            default=_BUILT_IN.blackhole,
        ),
        Key(
            name="rate",
            shape=Text(what="a rate such as `10KB/s`"),
            doc="How fast bodies of answers come: `10KB/s`, `1MB/s`, `512KiB/s`; at least 1KiB/s.",
        ),
        Key(
            name="percent",
            shape=Percentage(),
            doc="The share of the requests; fractions such as `0.01%` too.",
            default=f"{_BUILT_IN.percent:g}%",
        ),
        Key(
            name="exclusive",
            shape=Boolean(),
            doc="No request is both delayed and failed: `percent` are delayed, as many others fail.",
            default=_BUILT_IN.exclusive,
        ),
        Key(
            name="side",
            shape=Choice(values=get_args(FaultSide)),
            doc=(
                "Where the fault is made. At the `callee` retries, circuit breakers and ejection see it, as they would "
                "in life. At the `caller` its sidecar answers its application itself, and nothing else in the mesh "
                "sees it."
            ),
            default=_BUILT_IN.side,
        ),
        Key(
            name="from",
            shape=_from_match("from").shape,
            doc="Only requests from these services; `gateway` is the gateway. Default: from all.",
        ),
        Key(name="version", shape=Text(what="the name of a version"), doc="Only requests to this version."),
        Key(name="instance", shape=Text(what="the name of an instance"), doc="Only requests to this instance."),
        Key(
            name="path",
            shape=AnyOf(shapes=(_PATH_TEXT, PATH_MATCH)),
            doc="Only requests whose path begins so (whole segments), or as the mapping says.",
        ),
        Key(name="methods", shape=_from_match("methods").shape, doc="Only requests with one of these methods."),
        Key(
            name="headers",
            shape=MapOf(
                name=_from_match("headers").shape.name,  # type: ignore[union-attr]
                value=AnyOf(shapes=(HEADER_MATCH.keys[0].shape, HEADER_MATCH)),
            ),
            doc="Only requests with these headers, each with its value or a condition.",
        ),
        Key(
            name="health_checks",
            shape=Boolean(),
            doc="Whether requests to the paths of health checks are meant too.",
            default=_BUILT_IN.health_checks,
        ),
        Key(
            name="for",
            shape=Duration(),
            doc="How long it lasts from the start of the mesh, at most 24h: there is no fault without a deadline.",
            default=format_duration(_BUILT_IN.duration),
        ),
    ),
)
