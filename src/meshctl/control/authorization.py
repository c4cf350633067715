"""Answers about authorization from what is in effect.  Reads the engine's mesh, does no I/O of its own."""

from __future__ import annotations

from meshctl.control.engine import Engine
from meshctl.errors import ConflictError
from meshctl.plan.admission import find_admission
from meshctl.wire.authorization import AuthzAnswer, AuthzRequest, read_call, shape_answer


class Authorization:
    """The rules of a running mesh; fits api.backend.AuthorizationBackend."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self, request: AuthzRequest) -> AuthzAnswer:
        """Whether one may call another. Raises NotFoundError, ConflictError, UsageError."""
        mesh = self._engine.mesh
        if mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        open_services = self._engine.parts.topology.open_services
        return shape_answer(find_admission(mesh, open_services, request.target, read_call(request)))
