"""The rows of the API's table that concern rollouts.  Pure but for what the backend does; see routes.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Parameter, Route
from meshctl.wire import models, rollouts

_SERVICE = Parameter(name="service", kind="text", text="of this service alone")


async def _start(backend: Backend, call: Call) -> Answer:
    return await backend.rollouts.start(call.read_body(rollouts.StartRequest))


async def _list(backend: Backend, call: Call) -> Answer:
    return backend.rollouts.list(call.read_text("service"))


async def _history(backend: Backend, call: Call) -> Answer:
    return backend.rollouts.history(call.read_text("service"), call.read_count("number") or 0)


def _stream(backend: Backend, call: Call) -> AsyncIterator[models.Shape]:
    interval = call.read_number("interval")
    return backend.rollouts.stream(call.read_text("service"), 1.0 if interval is None else interval)


async def _pause(backend: Backend, call: Call) -> Answer:
    return await backend.rollouts.pause(call.read_body(rollouts.ChangeRequest))


async def _resume(backend: Backend, call: Call) -> Answer:
    return await backend.rollouts.resume(call.read_body(rollouts.ChangeRequest))


async def _promote(backend: Backend, call: Call) -> Answer:
    return await backend.rollouts.promote(call.read_body(rollouts.ChangeRequest))


async def _roll_back(backend: Backend, call: Call) -> Answer:
    return await backend.rollouts.roll_back(call.read_body(rollouts.ChangeRequest))


async def _retry(backend: Backend, call: Call) -> Answer:
    return await backend.rollouts.retry(call.read_body(rollouts.ChangeRequest))


ROLLOUT_ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/rollouts",
        name="rollouts.start",
        text="Begin a rollout; answers when its first step is in effect. When the client goes away, it goes on.",
        answer=_start,
        request=rollouts.StartRequest,
        response=rollouts.RolloutStatus,
        waits=True,
    ),
    Route(
        method="GET",
        path="/rollouts",
        name="rollouts.list",
        text="The newest rollout of each service.",
        answer=_list,
        response=rollouts.RolloutList,
        query=(_SERVICE,),
    ),
    Route(
        method="GET",
        path="/rollouts/history",
        name="rollouts.history",
        text="Rollouts with every decision and the numbers that it rests on.",
        answer=_history,
        response=rollouts.RolloutHistory,
        query=(_SERVICE, Parameter(name="number", kind="count", text="the rollout of this number alone")),
    ),
    Route(
        method="GET",
        path="/rollouts/stream",
        name="rollouts.stream",
        text="The newest rollout of a service, one JSON object a line: after each change, and now and then. Ends when "
        "the rollout has ended.",
        stream=_stream,
        response=rollouts.RolloutStatus,
        query=(
            Parameter(name="service", kind="text", text="the service"),
            Parameter(name="interval", kind="number", text="seconds after which it is sent again anyway; 1 by default"),
        ),
    ),
    Route(
        method="POST",
        path="/rollouts/pause",
        name="rollouts.pause",
        text="Hold the weight of a rollout until it is resumed.",
        answer=_pause,
        request=rollouts.ChangeRequest,
        response=rollouts.RolloutStatus,
    ),
    Route(
        method="POST",
        path="/rollouts/resume",
        name="rollouts.resume",
        text="Go on with a paused or frozen rollout, from fresh evidence.",
        answer=_resume,
        request=rollouts.ChangeRequest,
        response=rollouts.RolloutStatus,
    ),
    Route(
        method="POST",
        path="/rollouts/promote",
        name="rollouts.promote",
        text="Take the next step now, or all of the traffic; answers when it is in effect everywhere.",
        answer=_promote,
        request=rollouts.ChangeRequest,
        response=rollouts.RolloutStatus,
        waits=True,
    ),
    Route(
        method="POST",
        path="/rollouts/rollback",
        name="rollouts.roll_back",
        text="Take all traffic from the version; answers when that is in effect everywhere.",
        answer=_roll_back,
        request=rollouts.ChangeRequest,
        response=rollouts.RolloutStatus,
        waits=True,
    ),
    Route(
        method="POST",
        path="/rollouts/retry",
        name="rollouts.retry",
        text="Begin the newest rollout of a service anew, though its version was rolled back.",
        answer=_retry,
        request=rollouts.ChangeRequest,
        response=rollouts.RolloutStatus,
        waits=True,
    ),
)
"""Every call about rollouts."""
