"""The keys of ``telemetry``.  Pure declarations; see ``keys``."""

from __future__ import annotations

from meshctl.spec.shapes import Integer, Key, Table

_PORT = Integer(minimum=1, maximum=65535)

PROMETHEUS = Table(
    id="prometheus",
    title="`prometheus`",
    doc="An endpoint for Prometheus: `http://127.0.0.1:<port>/metrics`, in OpenMetrics or in Prometheus's own text.",
    keys=(Key(name="port", shape=_PORT, doc="The port of loopback it listens on.", required=True),),
)

TELEMETRY = Table(
    id="telemetry",
    title="`telemetry`",
    doc="Where telemetry goes besides to `meshctl stat`, `edges` and `top`, which need nothing here.",
    keys=(Key(name="prometheus", shape=PROMETHEUS, doc="An endpoint for Prometheus. Default: none."),),
)
