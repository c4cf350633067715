"""What differs between two sets of policies, key by key, and where each value came from.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from meshctl.errors import Where
from meshctl.spec.policies import FILES, Document, Documents, Origin, PolicyKey, order_documents
from meshctl.spec.render import to_words
from meshctl.spec.source import ListNode, MapNode, Node, ScalarNode, is_null

_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One value: in words, where it is written, and what put it there."""

    words: str
    where: Where
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """One key of one policy that differs: ``path`` such as ``retry_policy.max_attempts``; None where it is not set.

    A policy that commands deleted has a ``before`` or ``after`` of None.
    """

    owner: str
    kind: str
    path: str
    before: Side | None
    after: Side | None

    @property
    def words(self) -> str:
        """``payment timeout: 2s -> 1s``."""
        before, after = (side.words if side else "not set" for side in (self.before, self.after))
        return f"{self.owner} {self.path}: {before} -> {after}"


def same_node(one: Node | None, other: Node | None) -> bool:
    """Whether two nodes say the same, wherever they are written and in whatever order their keys stand."""
    if one is None or other is None:
        return one is other
    if is_null(one) or is_null(other):
        return is_null(one) and is_null(other)
    match one, other:
        case ScalarNode(), ScalarNode():
            return one.text == other.text
        case ListNode(), ListNode():
            return len(one.items) == len(other.items) and all(map(same_node, one.items, other.items))
        case MapNode(), MapNode():
            return one.entries.keys() == other.entries.keys() and all(
                same_node(entry.node, other.entries[key].node) for key, entry in one.entries.items()
            )
        case _:
            return False


def find_changes(before: Documents, after: Documents) -> tuple[PolicyChange, ...]:
    """What differs, by owner and kind; mappings are compared key by key."""
    changes: list[PolicyChange] = []
    for owner, kind in order_documents([*before.values(), *after.values()]):
        old, new = before.get((owner, kind)), after.get((owner, kind))
        old_node, new_node = (document.node if document else None for document in (old, new))
        if same_node(old_node, new_node):
            continue
        for path, was, now in _compare(kind, old_node, new_node):
            changes.append(
                PolicyChange(owner=owner, kind=kind, path=path, before=_side(was, old), after=_side(now, new))
            )
    return tuple(changes)


def take_files(current: Documents, files: Documents) -> dict[PolicyKey, Document]:
    """The policies in force once files are read anew: commands win over what files say.

    What a command set and the files now say too is the files' again, and a deletion of what they no longer have is
    forgotten.
    """
    merged = dict(files)
    for key, document in current.items():
        below = files.get(key)
        if document.origin == FILES or same_node(document.node, below.node if below else None):
            continue
        merged[key] = document
    return order_documents(merged.values())


def return_to(wanted: Documents, files: Documents, origin: Origin) -> dict[PolicyKey, Document]:
    """The policies of an earlier revision: what commands had set keeps its origin, what only the files then said
    and do not say now is set by this one, and what they have come to say since is deleted by it.
    """
    documents: list[Document] = []
    for key in order_documents([*wanted.values(), *files.values()]):
        then, now = wanted.get(key), files.get(key)
        if same_node(then.node if then else None, now.node if now else None):
            documents += [now] if now else []
        elif then is None:
            assert now is not None
            documents.append(replace(now, node=None, origin=origin))
        else:
            documents.append(then if then.origin != FILES else replace(then, origin=origin))
    return order_documents(documents)


def describe_differences(documents: Documents, files: Documents) -> tuple[str, ...]:
    """What commands set differently from the files, one line for each key."""
    lines = []
    for change in find_changes(documents, files):
        document = documents.get((change.owner, change.kind))
        if document is None or document.origin == FILES:
            continue
        name = f"{change.owner} {change.path}"
        made = f"revision {document.origin.revision}, {document.origin.author}"
        there = change.after
        if document.node is None:
            where = f", which {there.where} has" if there else ""
            lines.append(f"{name}: deleted ({made}){where}")
        elif there is None:
            words = change.before.words if change.before else "not set"
            lines.append(f"{name}: {words} ({made}) is not in the files")
        else:
            words = change.before.words if change.before else "not set"
            lines.append(f"{name}: {words} ({made}) differs from {there.words} in {there.where}")
    return tuple(lines)


def _side(node: Node | None, document: Document | None) -> Side | None:
    if node is None or document is None:
        return None
    return Side(words=_shorten(to_words(node)), where=node.where, origin=document.origin)


def _compare(path: str, old: Node | None, new: Node | None) -> Iterator[tuple[str, Node | None, Node | None]]:
    if isinstance(old, MapNode) and isinstance(new, MapNode):
        keys = [*old.entries, *(key for key in new.entries if key not in old.entries)]
        for key in keys:
            was, now = old.get(key), new.get(key)
            if not same_node(was, now):
                yield from _compare(f"{path}.{key}", was, now)
        return
    yield path, old, new


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
