"""What a topology says of what is told of the traffic, as frozen values.  Pure declarations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from meshctl.errors import Where

AccessLog = Literal["sampled", "all", "errors", "off"]
Tracing = Literal["adaptive", "all", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusEndpoint:
    """A port of loopback at which Prometheus may read the metrics."""

    port: int
    where: Where = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpEndpoint:
    """Where spans are forwarded to: the base URL of a receiver of OTLP/HTTP, without ``/v1/traces``."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """``access_log`` says which requests sidecars log; ``slow_request`` is from when one is slow, in seconds.

    ``tracing`` says of which requests sidecars make spans. ``prometheus`` and ``otlp`` are where figures and spans go
    besides to meshctl itself.
    """

    access_log: AccessLog = "sampled"
    slow_request: float = 1.0
    tracing: Tracing = "adaptive"
    prometheus: PrometheusEndpoint | None = None
    otlp: OtlpEndpoint | None = None
