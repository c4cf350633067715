"""What a service's process finds in its environment.  Pure.

A service reaches its upstreams with no change to its code: through ``HTTP_PROXY`` by host name, or through a URL per
upstream.  What the topology's ``env`` says wins over what is given here.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.plan.addresses import COLLECTOR_KEY, LOOPBACK, app_key, outbound_key, upstream_key
from meshctl.spec.schema import Mesh, Service, Version

NO_PROXY = "localhost,127.0.0.1,::1"
"""Hosts that never go through the outbound listener."""

_SET_BY_MESHCTL = frozenset({"HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "PORT"})


def variable_name(service: str) -> str:
    """A service's name as part of a variable's: ``gift-cards`` -> ``GIFT_CARDS``."""
    return service.upper().replace("-", "_")


def mesh_environment(
    mesh: Mesh, service: Service, version: Version, *, instance: str, ports: Mapping[str, int]
) -> dict[str, str]:
    """The variables that meshctl sets for one instance, with those of the topology laid over them, sorted.

    ``ports`` are by the keys of plan.addresses.  A job has no ``PORT``: nothing calls it.
    """
    proxy = f"http://{LOOPBACK}:{ports[outbound_key(service.name)]}"
    given = {
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "NO_PROXY": NO_PROXY,
        "no_proxy": NO_PROXY,
        "NODE_USE_ENV_PROXY": "1",
        "MESH_NAME": mesh.name,
        "MESH_SERVICE": service.name,
        "MESH_VERSION": version.name,
        "MESH_INSTANCE": instance,
        "OTEL_SERVICE_NAME": service.name,
        # Output is captured line by line, so that Python must not hold it back.
        "PYTHONUNBUFFERED": "1",
    }
    if COLLECTOR_KEY in ports:
        given |= _open_telemetry(mesh, version, instance=instance, port=ports[COLLECTOR_KEY])
    if app_key(instance) in ports:
        given["PORT"] = str(ports[app_key(instance)])
    for name in service.upstreams:
        port = ports[upstream_key(service.name, name)]
        prefix = variable_name(name)
        given[f"{prefix}_HOST"] = LOOPBACK
        given[f"{prefix}_PORT"] = str(port)
        if mesh.services[name].protocol != "tcp":
            given[f"{prefix}_URL"] = f"http://{LOOPBACK}:{port}"
    return dict(sorted({**given, **version.env}.items()))


def _open_telemetry(mesh: Mesh, version: Version, *, instance: str, port: int) -> dict[str, str]:
    """Where a service that uses OpenTelemetry sends its spans, and how it is named there.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    resource = {
        "service.namespace": mesh.name,
        "service.version": version.name,
        "service.instance.id": instance,
    }
    return {
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{key}={value}" for key, value in resource.items()),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_PROPAGATORS": "tracecontext,baggage",
        # Spans are here a second later, rather than five.
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        # The mesh measures requests itself and captures output: nobody takes these here.
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }


def process_environment(base: Mapping[str, str], given: Mapping[str, str], *, fallback_path: str) -> dict[str, str]:
    """The complete environment of a process: ``base`` (that of ``meshctl up``) under ``given``.

    Proxy settings of the base would lead around the mesh and are dropped.  ``fallback_path`` is a folder searched
    after all others: that of the Python which runs meshctl, so that ``python`` is found on machines without one.
    """
    kept = {k: v for k, v in base.items() if k not in _SET_BY_MESHCTL and not k.startswith("MESHCTL_")}
    merged = {**kept, **given}
    path = merged.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    merged["PATH"] = f"{path}:{fallback_path}" if fallback_path not in path.split(":") else path
    return merged
