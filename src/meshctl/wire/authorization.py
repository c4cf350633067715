"""The JSON shapes of the call about authorization.  Pure; see ``models``."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshctl.plan.admission import Admission
from meshctl.plan.policies.authorization import Call
from meshctl.wire.models import Shape


class AuthzRequest(Shape, frozen=True, kw_only=True):
    """May ``source`` (a service, ``gateway`` or ``anonymous``) call ``target`` so?

    ``headers`` holds all values of each header. For services that speak plain TCP the last three mean nothing.
    """

    source: str
    target: str
    method: str = "GET"
    path: str = "/"
    headers: dict[str, list[str]] = msgspec.field(default_factory=dict)


class AuthzPlace(Shape, frozen=True, kw_only=True):
    """A place in a file of the topology; line and column count from 1."""

    file: str
    line: int
    column: int


class AuthzAnswer(Shape, frozen=True, kw_only=True):
    """What becomes of a call. ``decision`` is what the rules say, which an audit does not act on.

    ``policy`` is what sidecars log: ``rule:NAME``, or what decided in the absence of a rule; ``rule`` is empty then.
    ``where`` is null for what is built in.
    """

    source: str
    target: str
    method: str
    path: str
    allowed: bool
    decision: Literal["allow", "deny"]
    audit: bool
    policy: str
    rule: str
    reason: str
    where: AuthzPlace | None
    lines: list[str]


def read_call(request: AuthzRequest) -> Call:
    """The call that a request asks about."""
    return Call(
        source=request.source,
        method=request.method,
        path=request.path,
        headers={name.lower(): tuple(values) for name, values in request.headers.items()},
    )


def shape_answer(found: Admission) -> AuthzAnswer:
    """An answer as it is sent."""
    where = found.where
    kind, _, rule = found.policy.partition(":")
    return AuthzAnswer(
        source=found.call.source,
        target=found.target,
        method=found.call.method,
        path=found.call.path,
        allowed=found.allowed,
        decision="deny" if found.audited or not found.allowed else "allow",
        audit=found.audited,
        policy=found.policy,
        rule=rule if kind == "rule" else "",
        reason=found.reason,
        where=None if where is None else AuthzPlace(file=where.file, line=where.line, column=where.column),
        lines=list(found.lines),
    )
