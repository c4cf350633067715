"""The routes of the API about traces; see ``routes``.  Pure but for what the backend does."""

from __future__ import annotations

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Parameter, Route
from meshctl.errors import UsageError
from meshctl.wire.traces import Trace, TraceList, TraceQuery

_LIMIT = 20
_MOST = 1000


async def _list(backend: Backend, call: Call) -> Answer:
    limit = call.read_count("limit")
    if limit is not None and not 1 <= limit <= _MOST:
        raise UsageError(f"limit={limit}: a number from 1 to {_MOST} is wanted")
    query = TraceQuery(
        service=call.read_text("service"),
        error=call.read_switch("error"),
        slow=call.read_switch("slow"),
        minimum_ms=call.read_number("minimum_ms") or 0.0,
        since=call.read_number("since"),
        limit=_LIMIT if limit is None else limit,
    )
    return backend.tracing.list(query)


async def _get(backend: Backend, call: Call) -> Answer:
    return backend.tracing.get(call.path["id"])


TRACE_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/traces",
        name="tracing.list",
        text="Traces of late, the newest first, slow ones the slowest first, and how much is kept of them.",
        answer=_list,
        response=TraceList,
        query=(
            Parameter(name="service", kind="text", text="only traces in which this service called or was called"),
            Parameter(name="error", kind="switch", text="only those in which something failed, if only a try"),
            Parameter(
                name="slow", kind="switch", text="only those as slow as `telemetry.slow_request`, the slowest first"
            ),
            Parameter(name="minimum_ms", kind="number", text="only those that took so long"),
            Parameter(name="since", kind="number", text="only those that began then or later, seconds since the epoch"),
            Parameter(name="limit", kind="count", text="so many at most, up to 1000; default 20"),
        ),
    ),
    Route(
        method="GET",
        path="/traces/{id}",
        name="tracing.get",
        text="One trace by the beginning of its id, as a waterfall: spans in the order in which they are drawn.",
        answer=_get,
        response=Trace,
    ),
)
"""Every call about traces."""
