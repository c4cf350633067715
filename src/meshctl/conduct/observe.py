"""The probes of meshctl: what the control plane tells of traffic, circuits and instances, as one value.  I/O.

Enters: arguments that were checked.  Leaves: numbers, words, mappings; None for what nobody knows, such as the success
of no requests. Sidecars are read each second: figures are taken when each has been read once more, so that they hold
every request that had ended when the probe began.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from meshctl.errors import NotFoundError, UsageError
from meshctl.spec.render import Value

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient
    from meshctl.wire.metrics import Metrics, Row
    from meshctl.wire.models import ServiceStatus

GATEWAY = "gateway"
PATIENCE = 5.0
"""Seconds within which every sidecar that answers has been read once more."""

_LOOK = 0.1
_READING = 0.2
# Seconds that reading a sidecar may take: what was read earlier may have been asked for before the probe began.
_HISTOGRAM_LAG = 1.0
# Envoy adds up the durations of its workers once a second.
_LONGEST = 3600

_WORST = ("closed", "half_open", "open")

Arguments = Mapping[str, Any]
Probe = Callable[["MeshClient", Arguments], Awaitable[Value]]


async def find_row(client: MeshClient, arguments: Arguments, *, lag: float = 0.0) -> Row:
    """The figures of a service, of one of its versions, or of what one caller sends it; ``lag`` as for _measure."""
    service, source, version = (str(arguments.get(name, "")) for name in ("service", "source", "version"))
    if source and version:
        raise UsageError("figures are kept by caller or by version", hint="name `source` or `version`, not both")
    found = await _measure(client, service, float(arguments["window"]), lag=lag)
    rows = found.edges if source else found.versions if version else found.services
    for row in rows:
        if row.destination == service and row.source == source and row.version == version:
            return row
    what = f"version {version} of {service}" if version else f"requests from {source} to {service}"
    raise NotFoundError(f"nothing is known of {what}", hint="`meshctl edges` shows who calls whom")


async def _measure(client: MeshClient, service: str, window: float, *, lag: float = 0.0) -> Metrics:
    """The figures of the last ``window`` seconds and of those until every sidecar has been read once more.

    ``lag`` is how many seconds later than it happened something is told when a sidecar is read.
    """
    clock = asyncio.get_running_loop().time
    patience = clock() + PATIENCE
    asked = now = (await client.metrics.get(service, window=1)).time
    is_read = False
    while not is_read and clock() < patience:
        await asyncio.sleep(_LOOK)
        seen = await client.metrics.get(service, window=1)
        now = seen.time
        since = now - asked - _READING - lag
        is_read = all(each.age_s is None or each.stale or each.age_s <= since for each in seen.sidecars)
    # What was read in a second is found in it: windows of whole seconds count every request once.
    until = math.floor(now)
    seconds = min(_LONGEST, math.ceil(until - asked + window))
    return await client.metrics.get(service, window=max(1, seconds), until=until)


async def read_success(client: MeshClient, arguments: Arguments) -> Value:
    """The share of requests that succeeded."""
    return (await find_row(client, arguments)).success


async def read_latency(client: MeshClient, arguments: Arguments) -> Value:
    """A quantile, in milliseconds."""
    row = await find_row(client, arguments, lag=_HISTOGRAM_LAG)
    found = {"50": row.p50_ms, "90": row.p90_ms, "95": row.p95_ms, "99": row.p99_ms}
    return found[str(arguments["quantile"])]


async def read_rate(client: MeshClient, arguments: Arguments) -> Value:
    """Requests a second."""
    return (await find_row(client, arguments)).rate


async def read_requests(client: MeshClient, arguments: Arguments) -> Value:
    """How many requests."""
    return (await find_row(client, arguments)).requests


async def read_failures(client: MeshClient, arguments: Arguments) -> Value:
    """How many failures."""
    return (await find_row(client, arguments)).failures


async def read_reasons(client: MeshClient, arguments: Arguments) -> Value:
    """Requests by response flag."""
    return dict((await find_row(client, arguments)).reasons)


async def read_retries(client: MeshClient, arguments: Arguments) -> Value:
    """Retries for each request."""
    row = await find_row(client, arguments)
    return row.retries / row.requests if row.requests else None


async def read_tries(client: MeshClient, arguments: Arguments) -> Value:
    """Requests that reached the instances of a service, for each one that entered at the gateway."""
    service = str(arguments["service"])
    found = await _measure(client, "", float(arguments["window"]))
    entered = sum(row.requests for row in found.edges if row.source == GATEWAY)
    reached = sum(row.served.requests for row in found.services if row.destination == service and row.served)
    return reached / entered if entered else None


async def read_circuit(client: MeshClient, arguments: Arguments) -> Value:
    """The worst state of the circuits to a service."""
    service, source = str(arguments["service"]), str(arguments.get("source", ""))
    found = [c for c in (await client.circuits.list(service)).circuits if not source or c.caller == source]
    if not found:
        what = f"from {source} to {service}" if source else f"to {service}"
        raise NotFoundError(f"there is no circuit {what}", hint="`meshctl circuit list` shows them")
    return max((circuit.state for circuit in found), key=_WORST.index)


async def count_instances(client: MeshClient, arguments: Arguments) -> Value:
    """How many instances are ready."""
    service = await _find_service(client, str(arguments["service"]))
    version = str(arguments.get("version", ""))
    return sum(
        each.state in ("ready", "registered") and (not version or each.version == version) for each in service.instances
    )


async def read_weights(client: MeshClient, arguments: Arguments) -> Value:
    """Percent by version."""
    return dict[str, Value]((await _find_service(client, str(arguments["service"]))).weights)


async def _find_service(client: MeshClient, name: str) -> ServiceStatus:
    services = (await client.status()).services
    for service in services:
        if service.name == name:
            return service
    known = ", ".join(service.name for service in services)
    raise NotFoundError(f"there is no service {name}", hint=f"services are {known}")


OBSERVERS: Mapping[str, Probe] = {
    "success": read_success,
    "latency": read_latency,
    "rate": read_rate,
    "requests": read_requests,
    "failures": read_failures,
    "retries": read_retries,
    "tries": read_tries,
    "reasons": read_reasons,
    "circuit state": read_circuit,
    "instances": count_instances,
    "weights": read_weights,
}
"""Probes by the words of their verb."""
