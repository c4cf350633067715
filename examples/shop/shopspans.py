"""Spans of what a service does itself, in OpenTelemetry's protocol.  Standard library only, so that there is nothing to
install; a service of yours takes the SDK of its language instead, which finds the same variables.

    with span(request, "price the basket", items=3):
        ...  # calls made in here belong to the span

The mesh sets OTEL_EXPORTER_OTLP_ENDPOINT and the names. Without it, or for a request that is not recorded, nothing
happens. Spans are sent in the background: no request waits for that, or fails because of it.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

ENDPOINT = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
CONTEXT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""A traceparent: trace, the span above, and flags, of which the last bit says that the request is recorded."""

_waiting: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=1000)
_started = threading.Lock()


class Traced(Protocol):
    """A request; `passed_on` are the headers that go along with calls made for it."""

    passed_on: dict[str, str]


@contextmanager
def span(request: Traced, name: str, **attributes: str | int) -> Iterator[None]:
    """Record what is done inside, as a part of the request's trace; an exception marks it as failed."""
    above = request.passed_on.get("traceparent", "")
    context = CONTEXT.fullmatch(above)
    if not ENDPOINT or context is None or not int(context[3], 16) & 1:
        yield
        return
    trace, parent, flags = context.groups()
    own, began, status = secrets.token_hex(8), time.time_ns(), {}
    request.passed_on["traceparent"] = f"00-{trace}-{own}-{flags}"
    try:
        yield
    except Exception as error:
        status = {"code": 2, "message": str(error)}
        raise
    finally:
        request.passed_on["traceparent"] = above
        told = {
            "traceId": trace,
            "spanId": own,
            "parentSpanId": parent,
            "name": name,
            "startTimeUnixNano": str(began),
            "endTimeUnixNano": str(time.time_ns()),
            "attributes": [_attribute(key, value) for key, value in attributes.items()],
            "status": status,
        }
        _tell(told)


def _tell(told: dict[str, Any]) -> None:
    try:
        _waiting.put_nowait(told)
    except queue.Full:
        return
    if _started.acquire(blocking=False):
        threading.Thread(target=_send_forever, daemon=True).start()


def _send_forever() -> None:
    while True:
        spans = [_waiting.get()]
        time.sleep(0.2)  # what comes with it
        while not _waiting.empty():
            spans.append(_waiting.get())
        try:
            _send(spans)
        except (OSError, http.client.HTTPException):
            continue  # nobody is there: these are lost, and nothing else


def _send(spans: list[dict[str, Any]]) -> None:
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "unknown")}
    named |= dict(pair.split("=", 1) for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if pair)
    resource = {"attributes": [_attribute(key, value) for key, value in named.items()]}
    body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]})
    connection = http.client.HTTPConnection(urlsplit(ENDPOINT).netloc, timeout=2)
    try:
        connection.request("POST", "/v1/traces", body, {"content-type": "application/json"})
        connection.getresponse().read()
    finally:
        connection.close()


def _attribute(key: str, value: str | int) -> dict[str, Any]:
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
