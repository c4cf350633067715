"""Problems and errors that people read.  Pure; imports nothing of meshctl.

A user's mistake in a file is a :class:`Problem`; all of them are collected before anything is refused.
A failure of an operation is a leaf of :class:`MeshctlError`.  ``cli`` turns leaves into exit codes and ``api``
turns them into HTTP statuses, nothing else does either::

    MeshctlError
    +-- InvalidTopology   one or more Problems in the topology files
    +-- UsageError        the command's words do not fit together
    +-- NotRunningError   no mesh runs in this folder
    +-- NotFoundError     a service, version or instance that does not exist
    +-- ConflictError     the state of the mesh forbids it
    +-- PortTakenError    a port is held by another process
    +-- EnvoyMissingError no Envoy binary for this machine
    +-- StartError        a service or sidecar did not come up
    +-- RejectedError     a sidecar refused its configuration
    +-- WaitTimeoutError  what was waited for did not happen in time
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """A place in a file: path as the user gave it; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a topology file.

    ``code`` is a stable kebab-case name listed in docs/reference/problems.md; ``message`` says what is wrong in one
    line; ``where`` is its place, None when it has none; ``hint`` says what to do next, or is empty.
    """

    code: str
    message: str
    where: Where | None = None
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{place}{self.message} [{self.code}]{hint}"


class MeshctlError(Exception):
    """An operation that could not be done.

    Args:
        message: what is wrong, in one sentence, for a person.
        hint: what to do next; may be empty.
        detail: further lines, such as the tail of a log; may be empty.
    """

    code = "failed"

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class InvalidTopology(MeshctlError):  # noqa: N818 - named for what is invalid, as in "invalid topology"
    """The topology files have one or more problems; nothing was applied."""

    code = "invalid-topology"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the topology")


class UsageError(MeshctlError):
    """The command's words do not fit together."""

    code = "usage"


class NotRunningError(MeshctlError):
    """No mesh runs for this folder."""

    code = "not-running"


class NotFoundError(MeshctlError):
    """A service, version or instance that does not exist."""

    code = "not-found"


class ConflictError(MeshctlError):
    """The state of the mesh forbids the operation."""

    code = "conflict"


class PortTakenError(MeshctlError):
    """A port that the mesh needs is held by another process."""

    code = "port-taken"


class EnvoyMissingError(MeshctlError):
    """No Envoy binary was found for this machine."""

    code = "envoy-missing"


class StartError(MeshctlError):
    """A service or sidecar did not come up."""

    code = "start-failed"


class RejectedError(MeshctlError):
    """A sidecar refused its configuration (xDS NACK)."""

    code = "rejected"


class WaitTimeoutError(MeshctlError):
    """What was waited for did not happen in time."""

    code = "timed-out"
