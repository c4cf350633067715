"""Where telemetry goes.  Pure."""

from __future__ import annotations

from meshctl.errors import Where
from meshctl.spec.reader import Fields
from meshctl.spec.report import Report
from meshctl.spec.source import Node, is_null
from meshctl.spec.telemetry_keys import PROMETHEUS, TELEMETRY
from meshctl.spec.telemetry_schema import PrometheusEndpoint, Telemetry


def read_telemetry(node: Node | None, where: Where, report: Report) -> Telemetry:
    """What ``telemetry`` says; ``where`` is the place of its key."""
    if node is None or is_null(node):
        return Telemetry()
    fields = Fields(TELEMETRY, node, report, where=where)
    inner = fields.node("prometheus")
    if inner is None:
        return Telemetry()
    place = fields.key_place("prometheus")
    port = Fields(PROMETHEUS, inner, report, where=place).integer("port", 0)
    return Telemetry(prometheus=PrometheusEndpoint(port=port, where=place))
