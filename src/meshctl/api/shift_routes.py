"""The rows of the API's table that concern shifting traffic by hand.  Pure but for what the backend does."""

from __future__ import annotations

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Route
from meshctl.wire import shifts


async def _shift(backend: Backend, call: Call) -> Answer:
    return await backend.shifts.shift(call.read_body(shifts.ShiftRequest))


async def _mirror(backend: Backend, call: Call) -> Answer:
    return await backend.shifts.mirror(call.read_body(shifts.MirrorRequest))


SHIFT_ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/traffic/shift",
        name="shifts.shift",
        text="Shift traffic between versions; answers when every sidecar concerned has acknowledged. A version that "
        "does not run is started first; when the client goes away before it is healthy, that is given up.",
        answer=_shift,
        request=shifts.ShiftRequest,
        response=shifts.TrafficResult,
        waits=True,
    ),
    Route(
        method="POST",
        path="/traffic/mirror",
        name="shifts.mirror",
        text="Send copies of requests to a version too, or stop that; answers as a shift does.",
        answer=_mirror,
        request=shifts.MirrorRequest,
        response=shifts.TrafficResult,
        waits=True,
    ),
)
"""Every call about shifting traffic."""
