"""``telemetry`` -> Telemetry.  Pure."""

from __future__ import annotations

from meshctl.errors import Where
from meshctl.spec.reader import Fields
from meshctl.spec.report import Report
from meshctl.spec.source import Node, is_null
from meshctl.spec.telemetry_keys import PROMETHEUS, TELEMETRY
from meshctl.spec.telemetry_schema import PrometheusEndpoint, Telemetry


def read_telemetry(node: Node | None, where: Where, report: Report) -> Telemetry:
    """What ``telemetry`` says; built-in values for what is not written. ``where`` is the place of its key."""
    base = Telemetry()
    if node is None or is_null(node):
        return base
    fields = Fields(TELEMETRY, node, report, where=where, label="`telemetry`")
    return Telemetry(
        access_log=fields.choice("access_log", base.access_log),
        slow_request=fields.duration("slow_request", base.slow_request),
        prometheus=_read_prometheus(fields, report),
    )


def _read_prometheus(fields: Fields, report: Report) -> PrometheusEndpoint | None:
    node = fields.node("prometheus")
    if node is None:
        return None
    place = fields.key_place("prometheus")
    port = Fields(PROMETHEUS, node, report, where=place).integer("port", 0)
    return PrometheusEndpoint(port=port, where=place)
