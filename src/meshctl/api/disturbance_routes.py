"""The route of the API about faults that are not made of requests; see ``routes``.  Pure but for the backend."""

from __future__ import annotations

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Route
from meshctl.wire import disturbances


async def _disturb(backend: Backend, call: Call) -> Answer:
    return await backend.disturbances.disturb(call.read_body(disturbances.DisturbRequest))


DISTURBANCE_ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/faults/disturb",
        name="disturbances.disturb",
        text="Kill, end, pause or slow a process, cut services off, or spoil a certificate; answers when it is so.",
        answer=_disturb,
        request=disturbances.DisturbRequest,
        response=disturbances.DisturbResult,
    ),
)
"""Every call about them."""
