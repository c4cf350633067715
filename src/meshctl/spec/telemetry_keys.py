"""The keys of ``telemetry``.  Pure declarations; see ``keys``."""

from __future__ import annotations

from typing import get_args

from meshctl.spec.shapes import Choice, Duration, Integer, Key, Table, Text
from meshctl.spec.telemetry_schema import AccessLog, Telemetry, Tracing
from meshctl.spec.values import format_duration

_BUILT_IN = Telemetry()

_PORT = Integer(minimum=1, maximum=65535)

PROMETHEUS = Table(
    id="prometheus",
    title="`prometheus`",
    doc="An endpoint for Prometheus: `http://127.0.0.1:<port>/metrics`, in OpenMetrics or in Prometheus's own text.",
    keys=(Key(name="port", shape=_PORT, doc="The port of loopback it listens on.", required=True),),
)

OTLP = Table(
    id="otlp",
    title="`otlp`",
    doc=(
        "A receiver of OpenTelemetry's protocol, to which the spans that the mesh records are passed on: Jaeger, "
        "Tempo, a collector. What it does not take in time is dropped and counted; requests never wait for it."
    ),
    keys=(
        Key(
            name="endpoint",
            shape=Text(),
            doc="Its base URL for OTLP over HTTP, such as `http://127.0.0.1:4318`.",
            required=True,
        ),
    ),
)

TELEMETRY = Table(
    id="telemetry",
    title="`telemetry`",
    doc="What is told of the traffic. `meshctl stat`, `edges`, `top` and `tap` need nothing here.",
    keys=(
        Key(
            name="access_log",
            shape=Choice(values=get_args(AccessLog), false_is="off"),
            doc=(
                "Which requests sidecars log, as lines of JSON that `meshctl logs --access` shows. `sampled`: up to "
                "100 a second of each sidecar, and up to 100 failed or slow ones besides; `errors`: failed and slow "
                "ones, up to 100 a second; `all`: every one; `off`: none but those that authorization refused."
            ),
            default=_BUILT_IN.access_log,
        ),
        Key(
            name="slow_request",
            shape=Duration(),
            doc="From which duration on a request is slow.",
            default=format_duration(_BUILT_IN.slow_request),
        ),
        Key(
            name="tracing",
            shape=Choice(values=get_args(Tracing), false_is="off"),
            doc=(
                "Of which requests spans are made. `adaptive`: of all while there are few, of some if there are many, "
                "so that the whole mesh makes about 500 spans a second; `all`: of every one, up to 750 a second at "
                "each sidecar; `off`: of none."
            ),
            default=_BUILT_IN.tracing,
        ),
        Key(name="otlp", shape=OTLP, doc="Where spans are passed on to. Default: nowhere."),
        Key(name="prometheus", shape=PROMETHEUS, doc="An endpoint for Prometheus. Default: none."),
    ),
)
