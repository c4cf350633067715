"""Failures across the API: leaves of MeshctlError to ErrorBody and back.  Pure."""

from __future__ import annotations

from meshctl.errors import (
    ConflictError,
    EnvoyMissingError,
    InvalidTopology,
    MeshctlError,
    NotFoundError,
    NotRunningError,
    PortTakenError,
    Problem,
    RejectedError,
    StartError,
    UsageError,
    WaitTimeoutError,
    Where,
)
from meshctl.wire.models import ErrorBody, ProblemShape, Shape

LEAVES: dict[str, type[MeshctlError]] = {
    leaf.code: leaf
    for leaf in (
        MeshctlError,
        UsageError,
        NotRunningError,
        NotFoundError,
        ConflictError,
        PortTakenError,
        EnvoyMissingError,
        StartError,
        RejectedError,
        WaitTimeoutError,
    )
}
"""Leaves by code; InvalidTopology is made from its problems."""


class StreamFailure(Shape, frozen=True, kw_only=True):
    """The last line of a stream that failed after it had begun."""

    error: ErrorBody


def to_body(error: MeshctlError) -> ErrorBody:
    """The answer for a failure."""
    problems = error.problems if isinstance(error, InvalidTopology) else ()
    return ErrorBody(
        code=error.code,
        message=error.message,
        hint=error.hint,
        detail=error.detail,
        problems=[shape_problem(problem) for problem in problems],
    )


def to_error(body: ErrorBody) -> MeshctlError:
    """The failure that an answer tells of; codes that are not known become the plain MeshctlError."""
    if body.code == InvalidTopology.code:
        return InvalidTopology([_to_problem(shape) for shape in body.problems])
    return LEAVES.get(body.code, MeshctlError)(body.message, hint=body.hint, detail=body.detail)


def shape_problem(problem: Problem) -> ProblemShape:
    """A Problem as JSON shows it."""
    where = problem.where
    return ProblemShape(
        code=problem.code,
        message=problem.message,
        hint=problem.hint,
        file=where.file if where else "",
        line=where.line if where else 0,
        column=where.column if where else 0,
    )


def _to_problem(shape: ProblemShape) -> Problem:
    where = Where(shape.file, shape.line, shape.column) if shape.file else None
    return Problem(code=shape.code, message=shape.message, hint=shape.hint, where=where)
