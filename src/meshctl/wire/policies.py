"""The JSON shapes of the calls about policies and their revisions.  Pure; see ``models``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from meshctl.wire.models import Shape, SourceFileShape


class PolicyOrigin(Shape, frozen=True, kw_only=True):
    """Where a value came from: a place, and the revision that set it, which is 0 for what the topology files say.

    ``line`` is 0 for what a command gave without a file; ``author`` is ``user@command``, empty for files.
    """

    file: str
    line: int
    column: int
    revision: int
    author: str


class PolicyShape(Shape, frozen=True, kw_only=True):
    """One policy as written: ``words`` is its value on one line."""

    owner: str
    kind: str
    value: Any
    words: str
    origin: PolicyOrigin


class PolicyList(Shape, frozen=True, kw_only=True):
    """The policies in force, and the revision that they are; ``yaml`` is a file of them, to be applied again."""

    revision: int
    policies: list[PolicyShape]
    yaml: str


class PolicyChangeShape(Shape, frozen=True, kw_only=True):
    """One key of one policy that changes; a side is null where the key is not set."""

    owner: str
    kind: str
    path: str
    before: str | None
    after: str | None
    before_origin: PolicyOrigin | None
    after_origin: PolicyOrigin | None


class PolicyDiff(Shape, frozen=True, kw_only=True):
    """What differs."""

    changes: list[PolicyChangeShape]


class ApplyRequest(Shape, frozen=True, kw_only=True):
    """Set the policies that files name.

    ``base`` is the revision that the change was made from: it is refused when another one has come since; null takes
    whatever is in force. ``author`` is ``user@command``. With ``dry_run`` nothing is changed: Envoy is asked whether
    it would take it.
    """

    files: list[SourceFileShape]
    variables: dict[str, str]
    author: str
    reason: str = ""
    base: int | None = None
    dry_run: bool = False


class DeleteRequest(Shape, frozen=True, kw_only=True):
    """Take a policy away; ``base``, ``author`` and ``reason`` as in ApplyRequest."""

    owner: str
    kind: str
    author: str
    reason: str = ""
    base: int | None = None


class RollbackRequest(Shape, frozen=True, kw_only=True):
    """Return to the policies of an earlier revision; ``base``, ``author`` and ``reason`` as in ApplyRequest."""

    revision: int
    author: str
    reason: str = ""
    base: int | None = None


class DiffRequest(Shape, frozen=True, kw_only=True):
    """Two sets of policies to compare.

    Without files, the revisions ``before`` and ``after`` (null: those in force). With files, those in force and what
    ``apply`` would make of them, or, with ``whole``, what ``up --reset`` would.
    """

    files: list[SourceFileShape] = msgspec.field(default_factory=list)
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    whole: bool = False
    before: int | None = None
    after: int | None = None


class PolicyResult(Shape, frozen=True, kw_only=True):
    """A change of policy: ``revision`` is the one in force, ``acked`` of ``total`` sidecars whose configuration changed
    have acknowledged it. After a dry run ``acked`` counts those that would take it.
    """

    message: str
    revision: int
    changes: list[PolicyChangeShape]
    acked: int
    total: int
    duration_ms: float


class RevisionShape(Shape, frozen=True, kw_only=True):
    """One committed change of policy; ``changes`` are in words, ``note`` says why it was refused."""

    number: int
    time: float
    author: str
    reason: str
    state: Literal["pending", "applied", "refused", "superseded"]
    changes: list[str]
    owners: list[str]
    note: str


class RevisionList(Shape, frozen=True, kw_only=True):
    """Revisions that are kept, newest first; there are ``total`` of them that were meant."""

    revisions: list[RevisionShape]
    total: int
