"""The routes of the API as one table: the server serves it and docs/reference/api.md is generated from it.

Enters: a parsed Call.  Leaves: a wire shape, an iterator of wire shapes, or None for an empty answer.  Pure but for
what the backend does.  Numbers and switches come as query parameters; unknown parameters are refused, so that a
misspelt one does not pass for its default.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus

from meshctl.api.authorization_routes import AUTHORIZATION_ROUTES
from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Parameter, Route
from meshctl.api.circuit_routes import CIRCUIT_ROUTES
from meshctl.api.disturbance_routes import DISTURBANCE_ROUTES
from meshctl.api.fault_routes import FAULT_ROUTES
from meshctl.api.instance_routes import INSTANCE_ROUTES
from meshctl.api.metrics_routes import METRICS_ROUTES
from meshctl.api.policy_routes import POLICY_ROUTES
from meshctl.api.rollout_routes import ROLLOUT_ROUTES
from meshctl.api.shift_routes import SHIFT_ROUTES
from meshctl.api.tap_routes import TAP_ROUTES
from meshctl.api.trace_routes import TRACE_ROUTES
from meshctl.errors import UsageError
from meshctl.wire import models

BASE = "/v1"


async def _status(backend: Backend, _call: Call) -> Answer:
    return backend.status()


async def _up(backend: Backend, call: Call) -> Answer:
    return await backend.up(call.read_body(models.UpRequest))


async def _ready(backend: Backend, call: Call) -> Answer:
    return await backend.ready(call.read_number("timeout"))


async def _down(backend: Backend, call: Call) -> Answer:
    await backend.down(call.read_switch("force"))
    return None


def _events(backend: Backend, call: Call) -> AsyncIterator[models.Shape]:
    return backend.events(call.read_count("since"), call.read_switch("follow"))


def _logs(backend: Backend, call: Call) -> AsyncIterator[models.Shape]:
    grep = call.read_text("grep")
    try:
        re.compile(grep)
    except re.error as error:
        raise UsageError(f"grep={grep}: {error}", hint="grep is a regular expression of Python") from None
    return backend.logs(
        sources=list(call.query.get("source", [])),
        sidecars=call.read_switch("sidecars"),
        tail=call.read_count("tail"),
        since=call.read_number("since"),
        until=call.read_number("until"),
        grep=grep,
        follow=call.read_switch("follow"),
    )


async def _certificates(backend: Backend, _call: Call) -> Answer:
    return backend.certificates()


async def _rotate(backend: Backend, call: Call) -> Answer:
    return await backend.rotate(call.read_body(models.RotateRequest))


async def _verify_certificates(backend: Backend, _call: Call) -> Answer:
    return await backend.verify_certificates()


async def _proxy_status(backend: Backend, _call: Call) -> Answer:
    return backend.proxy_status()


async def _proxy_config(backend: Backend, call: Call) -> Answer:
    kind = call.path["kind"]
    if kind not in PROXY_KINDS:
        raise UsageError(f"{kind!r} is no kind of configuration", hint=f"kinds: {', '.join(PROXY_KINDS)}")
    return await backend.proxy_config(call.path["sidecar"], kind)


async def _call_target(backend: Backend, call: Call) -> Answer:
    return backend.call_target(call.read_text("source"))


PROXY_KINDS = ("clusters", "routes", "listeners", "endpoints", "secrets")

_FOLLOW = Parameter(name="follow", kind="switch", text="go on with what is to come")

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/status",
        name="status",
        text="The whole mesh as it is now.",
        answer=_status,
        response=models.MeshStatus,
    ),
    Route(
        method="POST",
        path="/up",
        name="up",
        text="Commit a topology and begin to bring it into effect; answers when it is accepted.",
        answer=_up,
        request=models.UpRequest,
        response=models.UpResult,
    ),
    Route(
        method="GET",
        path="/ready",
        name="ready",
        text="Wait until everything is ready and every sidecar synced, something failed, or time ran out.",
        answer=_ready,
        response=models.ReadyResult,
        query=(Parameter(name="timeout", kind="number", text="seconds to wait; without it, for ever"),),
        waits=True,
    ),
    Route(
        method="POST",
        path="/down",
        name="down",
        text="Stop everything; answers when nothing is left. `/events` shows the progress.",
        answer=_down,
        query=(Parameter(name="force", kind="switch", text="kill, and make a stop under way kill too"),),
        status=HTTPStatus.NO_CONTENT,
    ),
    Route(
        method="GET",
        path="/events",
        name="events",
        text="What happened, one JSON object a line.",
        stream=_events,
        response=models.Event,
        query=(
            Parameter(name="since", kind="count", text="only events after this sequence number"),
            _FOLLOW,
        ),
    ),
    Route(
        method="GET",
        path="/logs",
        name="logs",
        text="Captured output, merged by time, one JSON object a line.",
        stream=_logs,
        response=models.LogLine,
        query=(
            Parameter(name="source", kind="text", text="a service or an instance; without it, all", repeated=True),
            Parameter(name="sidecars", kind="switch", text="with the output of the sidecars"),
            Parameter(name="tail", kind="count", text="only so many of the last lines of each source"),
            Parameter(name="since", kind="number", text="only lines from this time on, seconds since the epoch"),
            Parameter(name="until", kind="number", text="only lines before this time, seconds since the epoch"),
            Parameter(name="grep", kind="text", text="only lines in which this regular expression is found"),
            _FOLLOW,
        ),
    ),
    Route(
        method="GET",
        path="/certificates",
        name="certificates",
        text="All certificates of the mesh.",
        answer=_certificates,
        response=models.CertificateList,
    ),
    Route(
        method="POST",
        path="/certificates/rotate",
        name="rotate",
        text="Rotate certificates; answers when the sidecars serve the new ones.",
        answer=_rotate,
        request=models.RotateRequest,
        response=models.AppliedResult,
    ),
    Route(
        method="GET",
        path="/certificates/verify",
        name="verify_certificates",
        text="Check files, chains, and what each sidecar really serves.",
        answer=_verify_certificates,
        response=models.CertificateReport,
        waits=True,
    ),
    Route(
        method="GET",
        path="/proxies",
        name="proxy_status",
        text="The sync state of every sidecar, by xDS type.",
        answer=_proxy_status,
        response=models.ProxyStatusList,
    ),
    Route(
        method="GET",
        path="/proxies/{sidecar}/{kind}",
        name="proxy_config",
        text="What one sidecar has of clusters, routes, listeners, endpoints or secrets.",
        answer=_proxy_config,
        response=models.ProxyConfig,
    ),
    Route(
        method="GET",
        path="/call-target",
        name="call_target",
        text="Where to connect to send a request as a service would.",
        answer=_call_target,
        response=models.CallTarget,
        query=(Parameter(name="source", kind="text", text="the service that sends, or `gateway`"),),
    ),
    *INSTANCE_ROUTES,
    *AUTHORIZATION_ROUTES,
    *POLICY_ROUTES,
    *CIRCUIT_ROUTES,
    *FAULT_ROUTES,
    *DISTURBANCE_ROUTES,
    *SHIFT_ROUTES,
    *ROLLOUT_ROUTES,
    *METRICS_ROUTES,
    *TAP_ROUTES,
    *TRACE_ROUTES,
)
"""Every call of the API."""
