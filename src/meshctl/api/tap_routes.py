"""The route of the API about live requests; see ``routes``.  Pure but for what the backend does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from meshctl.api.backend import Backend
from meshctl.api.calls import Call, Parameter, Route
from meshctl.errors import UsageError
from meshctl.wire.models import Shape
from meshctl.wire.requests import Side, TapItem
from meshctl.wire.taps import TapQuery, is_status


def _tap(backend: Backend, call: Call) -> AsyncIterator[Shape]:
    side = call.read_text("side") or "caller"
    if side not in ("caller", "callee"):
        raise UsageError(f"side={side}: caller or callee is wanted")
    statuses = call.query.get("status", [])
    for status in statuses:
        if not is_status(status):
            raise UsageError(f"status={status}: a status such as 503, a class such as 5xx, or 0 is wanted")
    query = TapQuery(
        to=list(call.query.get("to", [])),
        source=list(call.query.get("from", [])),
        side=cast("Side", side),
        path=call.read_text("path"),
        methods=[method.upper() for method in call.query.get("method", [])],
        statuses=list(statuses),
        minimum_ms=call.read_number("minimum_ms") or 0.0,
    )
    return backend.taps.tap(query, count=call.read_count("count"), seconds=call.read_number("seconds"))


TAP_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/tap",
        name="taps.tap",
        text=(
            "Requests as they end, and a summary every second, one JSON object a line. Sidecars report only while "
            "somebody asks, and at most 100 requests a second each."
        ),
        stream=_tap,
        response=TapItem,
        query=(
            Parameter(name="to", kind="text", text="only requests to this service", repeated=True),
            Parameter(name="from", kind="text", text="only requests of this service", repeated=True),
            Parameter(name="side", kind="text", text="whose view: `caller` (the default) or `callee`"),
            Parameter(name="path", kind="text", text="how the path begins, or a pattern with `*`"),
            Parameter(name="method", kind="text", text="only this method", repeated=True),
            Parameter(name="status", kind="text", text="`503`, `5xx`, or `0` for no answer", repeated=True),
            Parameter(name="minimum_ms", kind="number", text="only requests that took so long"),
            Parameter(name="count", kind="count", text="end after so many requests"),
            Parameter(name="seconds", kind="number", text="end after so many seconds"),
        ),
    ),
)
"""Every call about live requests."""
