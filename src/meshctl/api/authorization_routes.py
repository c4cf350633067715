"""The routes of the API about authorization; see ``routes``.  Pure but for what the backend does."""

from __future__ import annotations

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Route
from meshctl.wire import authorization


async def _check(backend: Backend, call: Call) -> Answer:
    return backend.authorization.check(call.read_body(authorization.AuthzRequest))


AUTHORIZATION_ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/authorization/check",
        name="authorization.check",
        text="Whether one service may call another, by the rules that its sidecar has; changes nothing.",
        answer=_check,
        request=authorization.AuthzRequest,
        response=authorization.AuthzAnswer,
    ),
)
"""Every call about authorization."""
