"""The policies of a topology as documents: taken out of its tree, put into it, told apart.  Pure.

A document is what is written under one policy key of one owner: a service, ``defaults``, or ``mesh`` for the keys at
the top of the file. Its value comes from one place, a topology file or a command; how defaults and services are laid
over each other (``service_mesh.lay_policies``) is not its business. A document without a node stands for a deletion by
command of something that the files have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from meshctl.errors import Where
from meshctl.spec.keys import DEFAULTS, SERVICE, TOPOLOGY
from meshctl.spec.reader import Fields
from meshctl.spec.report import Report, quote
from meshctl.spec.service_mesh import BLOCK
from meshctl.spec.shapes import Key, Table
from meshctl.spec.source import Entry, ListNode, MapNode, Node, make_map

MESH = "mesh"
"""The owner of the policies at the top of the file."""

EVERY = "defaults"
"""The owner of the policies under those of every service."""

_TRAFFIC = ("split", "routes", "sticky", "mirror")
# Keys of a service that say where its requests go: policies, though `defaults` has no such keys.

DEFAULTS_KINDS: Mapping[str, Key] = {key.name: key for key in DEFAULTS.keys}
SERVICE_KINDS: Mapping[str, Key] = {
    key.name: key for key in SERVICE.keys if key.name in DEFAULTS_KINDS or key.name in _TRAFFIC
}
MESH_KINDS: Mapping[str, Key] = {key.name: key for key in TOPOLOGY.keys if key.name == BLOCK}
"""The kinds of policies, which are the keys that they are written under, of each kind of owner."""

KINDS = tuple(sorted({*SERVICE_KINDS, *DEFAULTS_KINDS, *MESH_KINDS}))
"""All kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What gave a document its value: a revision made by ``author`` (``ann@apply``), or the files when it is 0."""

    revision: int = 0
    author: str = ""
    time: float = 0.0


FILES = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One policy as written; ``where`` is the place of its key. Without a node: deleted by command."""

    owner: str
    kind: str
    where: Where
    node: Node | None
    origin: Origin = FILES

    @property
    def key(self) -> PolicyKey:
        """What it is known by."""
        return (self.owner, self.kind)


PolicyKey: TypeAlias = tuple[str, str]
Documents: TypeAlias = Mapping[PolicyKey, Document]


def kinds_of(owner: str) -> Mapping[str, Key]:
    """The kinds of policies that an owner can have."""
    return MESH_KINDS if owner == MESH else DEFAULTS_KINDS if owner == EVERY else SERVICE_KINDS


def order_documents(documents: Iterable[Document]) -> dict[PolicyKey, Document]:
    """Documents by key: those of the mesh first, then the defaults, then services by name."""
    first = {MESH: 0, EVERY: 1}
    ordered = sorted(documents, key=lambda d: (first.get(d.owner, 2), d.owner, d.kind))
    return {document.key: document for document in ordered}


def written(documents: Documents) -> Iterator[Document]:
    """The documents that are there: those that are no deletions."""
    return (document for document in documents.values() if document.node is not None)


def places_of(document: Document) -> frozenset[Where]:
    """Every place at which something of a document is written: its key, its value, and all that is in it."""
    places = {document.where}
    waiting = [] if document.node is None else [document.node]
    while waiting:
        node = waiting.pop()
        places.add(node.where)
        if isinstance(node, MapNode):
            places.update(entry.where for entry in node.entries.values())
            waiting += [entry.node for entry in node.entries.values()]
        elif isinstance(node, ListNode):
            waiting += node.items
    return frozenset(places)


def extract(root: MapNode, origin: Origin = FILES) -> dict[PolicyKey, Document]:
    """The policies in a topology's tree (variables filled in, short notations written out, files merged)."""
    return order_documents(
        Document(owner=owner, kind=kind, where=entry.where, node=entry.node, origin=origin)
        for owner, node in _owners(root)
        for kind, entry in node.entries.items()
        if kind in kinds_of(owner)
    )


def embed(root: MapNode, documents: Documents, report: Report) -> MapNode:
    """The tree with these policies in place of its own; documents of services that it does not have are reported."""
    by_owner: dict[str, dict[str, Document]] = {}
    for document in written(documents):
        by_owner.setdefault(document.owner, {})[document.kind] = document
    services = root.entries.get("services")
    names = services.node.entries if services is not None and isinstance(services.node, MapNode) else {}
    _report_unknown(by_owner, names, report)
    entries = dict(root.entries)
    if services is not None and isinstance(services.node, MapNode):
        changed = {name: _embed_entry(entry, name, by_owner.get(name, {})) for name, entry in names.items()}
        entries["services"] = Entry(where=services.where, node=make_map(changed, services.node.where))
    defaults = by_owner.get(EVERY, {})
    if EVERY in entries:
        entries[EVERY] = _embed_entry(entries[EVERY], EVERY, defaults)
    elif defaults:
        where = next(iter(defaults.values())).where
        entries[EVERY] = _embed_entry(Entry(where=where, node=make_map({}, where)), EVERY, defaults)
    return _embed(make_map(entries, root.where), MESH, by_owner.get(MESH, {}))


def read_policy_file(root: MapNode, services: Iterable[str], report: Report) -> dict[PolicyKey, Document]:
    """The policies that a file names: a topology's, or a file that has nothing but policies.

    Its keys are checked, and the services it names have to be among ``services``; those that are not are left out.
    """
    known = frozenset(services)
    optional = tuple(
        Key(name=key.name, shape=key.shape, doc=key.doc, default=key.default) if key.required else key
        for key in TOPOLOGY.keys
    )
    table = Table(id=TOPOLOGY.id, title="the file", doc=TOPOLOGY.doc, keys=optional, extensible=True)
    fields = Fields(table, root, report, where=root.where)
    Fields(DEFAULTS, fields.node(EVERY), report, where=fields.place(EVERY))
    for name, entry in fields.named("services").items():
        Fields(SERVICE, entry.node, report, where=entry.where, label=f"the service {quote(name)}")
        if name not in known:
            message = f"{quote(name)} is no service of the mesh{report.suggest(name, known)}"
            report.add("unknown-service", message, entry.where, f"services: {', '.join(sorted(known)) or 'none'}")
    found = extract(root)
    return {key: document for key, document in found.items() if document.owner in (*known, EVERY, MESH)}


def _owners(root: MapNode) -> Iterator[tuple[str, MapNode]]:
    yield MESH, root
    defaults = root.get(EVERY)
    if isinstance(defaults, MapNode):
        yield EVERY, defaults
    services = root.get("services")
    if isinstance(services, MapNode):
        for name, entry in services.entries.items():
            if isinstance(entry.node, MapNode):
                yield name, entry.node


def _report_unknown(owners: Mapping[str, Mapping[str, Document]], names: Iterable[str], report: Report) -> None:
    known = frozenset(names)
    for owner, documents in owners.items():
        if owner in known or owner in (MESH, EVERY):
            continue
        first = min((document.where for document in documents.values()), key=lambda w: (w.file, w.line, w.column))
        message = f"{quote(owner)} has policies, and is no service{report.suggest(owner, known)}"
        report.add("unknown-service", message, first, f"services: {', '.join(sorted(known)) or 'none'}")


def _embed_entry(entry: Entry, owner: str, documents: Mapping[str, Document]) -> Entry:
    node = entry.node
    if not isinstance(node, MapNode):
        if not documents:
            return entry
        # Nothing is written under the owner in the files: what commands gave stands there alone.
        node = make_map({}, entry.node.where)
    return Entry(where=entry.where, node=_embed(node, owner, documents))


def _embed(node: MapNode, owner: str, documents: Mapping[str, Document]) -> MapNode:
    kinds = kinds_of(owner)
    entries: dict[str, Entry] = {}
    for key, entry in node.entries.items():
        document = documents.get(key)
        if key not in kinds:
            entries[key] = entry
        elif document is not None and document.node is not None:
            entries[key] = Entry(where=document.where, node=document.node)
    for kind, document in documents.items():
        if kind not in entries and document.node is not None:
            entries[kind] = Entry(where=document.where, node=document.node)
    return make_map(entries, node.where)
