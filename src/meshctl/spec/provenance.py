"""Where a value in force was written: in the service's own policies, in those of the defaults, or nowhere.  Pure.

Enters: topology files and the policies in force. Leaves: for a service and a path of keys, every place that is part
of its value, with the document that it is in.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.errors import Where
from meshctl.spec.load import TopologyTree
from meshctl.spec.merge import as_map
from meshctl.spec.policies import EVERY, MESH, Document, Documents, Origin, embed, places_of
from meshctl.spec.report import Report
from meshctl.spec.service_mesh import BLOCK, lay_policies
from meshctl.spec.source import MapNode, Node, ResetNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One value that was written: its key's ``path`` (``retry_policy.max_attempts``), its place, what put it there."""

    path: str
    where: Where
    owner: str
    origin: Origin


class Provenance:
    """Answers for one set of policies."""

    def __init__(self, tree: TopologyTree, documents: Documents) -> None:
        self._documents = documents
        self._root = embed(tree.root, documents, Report())
        self._laid: dict[str, MapNode] = {}

    def find(self, service: str, path: str) -> tuple[Source, ...]:
        """All that was written under a path of keys of a service's policies; nothing for what is built in."""
        keys = path.split(".")
        node: Node | None = self._policies(service)
        for key in keys:
            node = node.get(key) if isinstance(node, MapNode) else None
        if node is None:
            return ()
        return tuple(self._explain(service, keys[0], path, leaf.where) for path, leaf in _leaves(node, path))

    def locate(self, service: str, where: Where, kind: str) -> Source:
        """The document that a place is in, among those that a policy of a service may come from."""
        return self._explain(service, kind, kind, where)

    def _policies(self, service: str) -> MapNode:
        if service not in self._laid:
            report = Report()
            services = as_map(self._root.get("services"), self._root)
            own = as_map(services.get(service), self._root)
            laid = lay_policies(self._root, own, report)
            # Keys that defaults do not have stand in the service alone.
            entries = {key: entry for key, entry in own.entries.items() if (service, key) in self._documents}
            self._laid[service] = MapNode(
                entries={**entries, **laid.entries}, where=own.where, size=own.size, depth=own.depth
            )
        return self._laid[service]

    def _explain(self, service: str, kind: str, path: str, where: Where) -> Source:
        candidates = ((service, kind), (service, BLOCK), (EVERY, kind), (EVERY, BLOCK), (MESH, BLOCK))
        documents: list[Document] = [self._documents[key] for key in candidates if key in self._documents]
        for document in documents:
            if where in places_of(document):
                return Source(path=path, where=where, owner=document.owner, origin=document.origin)
        return Source(path=path, where=where, owner=service, origin=Origin())


def _leaves(node: Node, path: str) -> list[tuple[str, Node]]:
    if isinstance(node, MapNode) and node.entries:
        return [leaf for key, entry in node.entries.items() for leaf in _leaves(entry.node, f"{path}.{key}")]
    return [] if isinstance(node, ResetNode) else [(path, node)]
