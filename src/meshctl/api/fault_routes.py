"""The routes of the API about faults; see ``routes``.  Pure but for what the backend does."""

from __future__ import annotations

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Route
from meshctl.wire import faults


async def _list(backend: Backend, _call: Call) -> Answer:
    return backend.faults.list()


async def _inject(backend: Backend, call: Call) -> Answer:
    return await backend.faults.inject(call.read_body(faults.InjectRequest))


async def _clear(backend: Backend, call: Call) -> Answer:
    return await backend.faults.clear(call.read_body(faults.ClearRequest))


FAULT_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/faults",
        name="faults.list",
        text="The faults that are on, of every kind.",
        answer=_list,
        response=faults.FaultList,
    ),
    Route(
        method="POST",
        path="/faults",
        name="faults.inject",
        text="Make a fault on requests; answers when every connected sidecar concerned has acknowledged.",
        answer=_inject,
        request=faults.InjectRequest,
        response=faults.InjectResult,
    ),
    Route(
        method="POST",
        path="/faults/clear",
        name="faults.clear",
        text="End faults, these or all; answers when every connected sidecar concerned has acknowledged.",
        answer=_clear,
        request=faults.ClearRequest,
        response=faults.ClearResult,
    ),
)
"""Every call about faults."""
