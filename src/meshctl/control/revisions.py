"""The policies in force and the revisions that made them, as the store has them.  I/O (store).

Nothing here commits by itself: a Draft is made, committed with whatever else changes (control.topology), and only
then taken, so that memory never says what the store does not (Invariant 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from meshctl.errors import MeshctlError, NotFoundError
from meshctl.ports import KEPT_REVISIONS, Revision, RevisionState, StateStore
from meshctl.spec.node_codec import decode_documents, encode_documents
from meshctl.spec.policies import Document, Documents, Origin, PolicyKey
from meshctl.spec.policy_changes import PolicyChange, find_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Who changes policies, why, and when: ``author`` is ``user@command``, ``time`` is since the epoch."""

    author: str
    reason: str = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A revision that is not committed yet, and the earlier ones that it settles."""

    revision: Revision
    documents: Mapping[PolicyKey, Document]
    settled: tuple[Revision, ...]

    @property
    def content(self) -> str:
        """The documents as they are stored."""
        return encode_documents(self.documents)


class Revisions:
    """The revisions of one mesh. ``documents`` are the policies in force, None before any topology."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._heads: dict[int, Revision] = {revision.number: revision for revision in store.revisions()}
        self.documents: Documents | None = None

    @property
    def newest(self) -> Revision | None:
        """The revision in force; None before the first."""
        return self._heads[max(self._heads)] if self._heads else None

    @property
    def number(self) -> int:
        """The number of the revision in force, 0 before the first."""
        return max(self._heads, default=0)

    @property
    def heads(self) -> tuple[Revision, ...]:
        """The revisions that are kept, oldest first."""
        return tuple(self._heads[number] for number in sorted(self._heads))

    def origin_of_next(self, stamp: Stamp) -> Origin:
        """The origin of what the next revision sets."""
        return Origin(revision=self.number + 1, author=stamp.author, time=stamp.time)

    def restore(self) -> dict[PolicyKey, Document] | None:
        """The documents of the newest revision in the store; None when there is none."""
        return self.read(self.number) if self._heads else None

    def read(self, number: int) -> dict[PolicyKey, Document]:
        """The documents of a revision.

        Raises:
            NotFoundError: it never was, or is not kept any more.
            MeshctlError: it cannot be read.
        """
        content = self._store.revision_content(number)
        if content is None:
            raise NotFoundError(f"there is no revision {number}", hint=self._describe_kept())
        try:
            return decode_documents(content)
        except ValueError as error:
            raise MeshctlError(f"revision {number} cannot be read: {error}") from error

    def find(self, number: int) -> Revision:
        """The head of a revision. Raises NotFoundError."""
        if number not in self._heads:
            raise NotFoundError(f"there is no revision {number}", hint=self._describe_kept())
        return self._heads[number]

    def draft(
        self,
        documents: Mapping[PolicyKey, Document],
        stamp: Stamp,
        *,
        state: RevisionState,
        settled: Sequence[Revision] = (),
        before: Documents | None = None,
    ) -> Draft:
        """The next revision; whatever still waits for acknowledgements is superseded by it.

        ``before`` are the policies that it follows, those in force unless they are given.
        """
        changes = find_changes((self.documents or {}) if before is None else before, documents)
        revision = Revision(
            number=self.number + 1,
            time=stamp.time,
            author=stamp.author,
            reason=stamp.reason,
            state=state,
            changes=tuple(change.words for change in changes),
            owners=owners_of(changes),
        )
        known = {item.number for item in settled}
        waiting = (r for r in self._heads.values() if r.state == "pending" and r.number not in known)
        return Draft(
            revision=revision,
            documents=documents,
            settled=(*settled, *(replace(item, state="superseded") for item in waiting)),
        )

    def take(self, draft: Draft) -> None:
        """Take what has been committed."""
        self.documents = draft.documents
        for item in (*draft.settled, draft.revision):
            self._heads[item.number] = item
        oldest = draft.revision.number - KEPT_REVISIONS
        self._heads = {number: head for number, head in self._heads.items() if number > oldest}

    def settle(self, number: int, state: RevisionState) -> None:
        """Commit what has become of a revision; one that is no longer pending stays as it is."""
        head = self._heads.get(number)
        if head is None or head.state != "pending":
            return
        settled = replace(head, state=state)
        self._store.commit(settled=(settled,))
        self._heads[number] = settled

    def _describe_kept(self) -> str:
        if not self._heads:
            return "no policy was ever changed"
        first, last = min(self._heads), max(self._heads)
        return f"revisions {first} to {last} are kept" if first != last else f"there is revision {first} only"


def owners_of(changes: Sequence[PolicyChange]) -> tuple[str, ...]:
    """Whose policies change, each once."""
    return tuple(dict.fromkeys(change.owner for change in changes))
