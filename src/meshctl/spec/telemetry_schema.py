"""What a topology says of where telemetry goes, as frozen values.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshctl.errors import Where


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusEndpoint:
    """A port of loopback at which Prometheus may read the metrics."""

    port: int
    where: Where = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Where telemetry goes besides to meshctl itself."""

    prometheus: PrometheusEndpoint | None = None
