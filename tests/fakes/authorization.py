"""Answers about authorization without a mesh."""

from __future__ import annotations

from collections.abc import Callable

from meshctl.wire.authorization import AuthzAnswer, AuthzPlace, AuthzRequest


class FakeAuthorization:
    """Fits api.backend.AuthorizationBackend: everybody may read, and a rule refuses the rest."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note

    def check(self, request: AuthzRequest) -> AuthzAnswer:
        self._note("authorization.check", request)
        allowed = request.method == "GET"
        what = f"{request.source} may {'' if allowed else 'not '}{request.method} {request.path} at {request.target}"
        reason = "no rule matches, and the default is `allow`" if allowed else "by the rule look-only"
        return AuthzAnswer(
            source=request.source,
            target=request.target,
            method=request.method,
            path=request.path,
            allowed=allowed,
            decision="allow" if allowed else "deny",
            audit=False,
            policy="default-allow" if allowed else "rule:look-only",
            rule="" if allowed else "look-only",
            reason=reason,
            where=None if allowed else AuthzPlace(file="mesh.yaml", line=12, column=9),
            lines=[
                f"{'allowed' if allowed else 'denied'}: {what}",
                reason if allowed else f"{reason} (mesh.yaml:12:9)",
            ],
        )
