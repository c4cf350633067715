"""The routes of the API about circuit breakers; see ``routes``.  Pure but for what the backend does."""

from __future__ import annotations

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Parameter, Route
from meshctl.wire import circuits, models


async def _list(backend: Backend, call: Call) -> Answer:
    return backend.circuits.list(call.read_text("service"))


async def _force(backend: Backend, call: Call) -> Answer:
    return await backend.circuits.force(call.read_body(circuits.ForceRequest))


CIRCUIT_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/circuits",
        name="circuits.list",
        text="The state of every circuit breaker, as the callers' sidecars have it.",
        answer=_list,
        response=circuits.CircuitList,
        query=(Parameter(name="service", kind="text", text="only those to one service"),),
    ),
    Route(
        method="POST",
        path="/circuits/force",
        name="circuits.force",
        text="Hold circuits open or closed, or let them work; answers when every sidecar concerned has acknowledged.",
        answer=_force,
        request=circuits.ForceRequest,
        response=models.AppliedResult,
    ),
)
"""Every call about circuit breakers."""
