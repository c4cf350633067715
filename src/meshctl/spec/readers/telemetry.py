"""``telemetry`` -> Telemetry.  Pure."""

from __future__ import annotations

from meshctl.errors import Where
from meshctl.spec.reader import Fields
from meshctl.spec.report import Report, quote
from meshctl.spec.source import Node, is_null
from meshctl.spec.telemetry_keys import OTLP, PROMETHEUS, TELEMETRY
from meshctl.spec.telemetry_schema import OtlpEndpoint, PrometheusEndpoint, Telemetry
from meshctl.spec.values import parse_base_url


def read_telemetry(node: Node | None, where: Where, report: Report) -> Telemetry:
    """What ``telemetry`` says; built-in values for what is not written. ``where`` is the place of its key."""
    base = Telemetry()
    if node is None or is_null(node):
        return base
    fields = Fields(TELEMETRY, node, report, where=where, label="`telemetry`")
    return Telemetry(
        access_log=fields.choice("access_log", base.access_log),
        slow_request=fields.duration("slow_request", base.slow_request),
        tracing=fields.choice("tracing", base.tracing),
        otlp=_read_otlp(fields, report),
        prometheus=_read_prometheus(fields, report),
    )


def _read_prometheus(fields: Fields, report: Report) -> PrometheusEndpoint | None:
    node = fields.node("prometheus")
    if node is None:
        return None
    place = fields.key_place("prometheus")
    port = Fields(PROMETHEUS, node, report, where=place).integer("port", 0)
    return PrometheusEndpoint(port=port, where=place)


def _read_otlp(fields: Fields, report: Report) -> OtlpEndpoint | None:
    node = fields.node("otlp")
    if node is None:
        return None
    inner = Fields(OTLP, node, report, where=fields.key_place("otlp"))
    text = inner.text("endpoint", None)
    if text is None:
        return None
    try:
        return OtlpEndpoint(url=parse_base_url(text))
    except ValueError as error:
        hint = "write the base URL of a receiver of OTLP over HTTP, such as `http://127.0.0.1:4318`"
        report.add("bad-address", f"`endpoint` cannot be {quote(text)}: {error}", inner.place("endpoint"), hint)
        return None
