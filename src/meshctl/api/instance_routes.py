"""The rows of the API's table that concern instances.  Pure but for what the backend does; see routes.py."""

from __future__ import annotations

from http import HTTPStatus

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Route
from meshctl.wire import models


async def _scale(backend: Backend, call: Call) -> Answer:
    return await backend.instances.scale(call.read_body(models.ScaleRequest))


async def _restart(backend: Backend, call: Call) -> Answer:
    return await backend.instances.restart(call.read_body(models.RestartRequest))


async def _register(backend: Backend, call: Call) -> Answer:
    return await backend.instances.register(call.read_body(models.RegisterRequest))


async def _heartbeat(backend: Backend, call: Call) -> Answer:
    return await backend.instances.heartbeat(call.path["id"])


async def _deregister(backend: Backend, call: Call) -> Answer:
    return await backend.instances.deregister(call.path["id"])


INSTANCE_ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/scale",
        name="instances.scale",
        text="Set the number of instances of a version; answers when it is in effect.",
        answer=_scale,
        request=models.ScaleRequest,
        response=models.AppliedResult,
    ),
    Route(
        method="POST",
        path="/restart",
        name="instances.restart",
        text="Restart services or instances one after another; answers when they are ready again.",
        answer=_restart,
        request=models.RestartRequest,
        response=models.AppliedResult,
    ),
    Route(
        method="POST",
        path="/registrations",
        name="instances.register",
        text="Add an instance that someone else runs; answers when its callers know of it.",
        answer=_register,
        request=models.RegisterRequest,
        response=models.RegisterResult,
        status=HTTPStatus.CREATED,
    ),
    Route(
        method="PUT",
        path="/registrations/{id}/heartbeat",
        name="instances.heartbeat",
        text="Renew the TTL of a registration.",
        answer=_heartbeat,
        response=models.RegisterResult,
    ),
    Route(
        method="DELETE",
        path="/registrations/{id}",
        name="instances.deregister",
        text="Remove a registration; answers when no caller uses it any more.",
        answer=_deregister,
        response=models.AppliedResult,
    ),
)
"""Every call about instances."""
