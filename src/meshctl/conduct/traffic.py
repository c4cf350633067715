"""Requests that an experiment sends through a sidecar: one, or many at a steady rate.  I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from meshctl.client.calls import MeshRequest, open_call
from meshctl.client.load import Load
from meshctl.errors import MeshctlError, UsageError
from meshctl.spec.render import Value
from meshctl.telemetry.load import Arrivals

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

Arguments = Mapping[str, Any]

_MOST = 100_000
"""Bytes that are kept of a body."""

_CONNECTIONS = 200
"""How many requests of a load may be under way at once."""


async def call(client: MeshClient, arguments: Arguments) -> Value:
    """One request; ``status`` is 0 and ``error`` says why when there is no answer.

    Raises UsageError for a request that cannot be sent, and what the control plane answers of the caller.
    """
    target = await client.call_target(str(arguments["source"]))
    try:
        async with open_call(target, make_request(arguments)) as response:
            body = b"".join([chunk async for chunk in response.chunks])
    except UsageError:
        raise
    except MeshctlError as error:
        return {"status": 0, "error": error.message}
    return {
        "status": response.status,
        "headers": {name.lower(): value for name, value in response.headers},
        "body": body[:_MOST].decode(errors="replace"),
        "duration_ms": round(response.duration_ms, 3),
        "instance": response.instance,
        "version": response.version,
    }


def make_request(arguments: Arguments) -> MeshRequest:
    """The request that the arguments of ``call`` and ``load`` describe."""
    body = arguments.get("body")
    headers = [(str(name), str(value)) for name, value in arguments.get("headers", {}).items()]
    if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json" if str(body)[:1] in "{[" else "text/plain"))
    method = str(arguments["method"]).upper()
    return MeshRequest(
        service=str(arguments["service"]),
        path=str(arguments["path"]),
        method="POST" if body is not None and method == "GET" else method,
        headers=tuple(headers),
        body=None if body is None else str(body).encode(),
        timeout=float(arguments["timeout"]),
    )


async def send_load(client: MeshClient, arguments: Arguments) -> Value:
    """Requests at a steady rate, whatever becomes of them: shares and milliseconds of all of them together.

    Raises MeshctlError when the sidecar of the caller takes no connection.
    """
    target = await client.call_target(str(arguments["source"]))
    arrivals = Arrivals(rate=float(arguments["rps"]), duration=float(arguments["duration"]))
    load = Load(target, make_request(arguments), arrivals, connections=_CONNECTIONS)
    await load.run()
    total = load.tally.total
    return {
        "requests": total.requests,
        "failures": total.failures,
        "success": total.success,
        "rate": round(total.requests / max(load.elapsed, 0.001), 2),
        "p50_ms": _round(total.quantile(0.5)),
        "p95_ms": _round(total.quantile(0.95)),
        "p99_ms": _round(total.quantile(0.99)),
        "max_ms": _round(total.longest_ms),
        "statuses": {str(status): count for status, count in sorted(total.statuses.items())},
        "errors": dict[str, Value](total.errors),
        "unsent": load.unsent,
    }


def _round(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)


TRAFFIC: Mapping[str, Callable[[MeshClient, Arguments], Awaitable[Value]]] = {"call": call, "load": send_load}
"""Verbs by their words."""
