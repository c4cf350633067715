"""Places in the tree of a topology, by the path of keys that leads there.  Pure."""

from __future__ import annotations

from meshctl.errors import Where
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ScalarNode


def find(root: Node, *path: str) -> Entry | None:
    """The value at a path of keys with the place of its key; an item of a list is found by its text."""
    entry: Entry | None = Entry(where=root.where, node=root)
    for part in path:
        if entry is None:
            return None
        node = entry.node
        if isinstance(node, MapNode):
            entry = node.entries.get(part)
        elif isinstance(node, ListNode):
            items = [item for item in node.items if isinstance(item, ScalarNode) and item.text == part]
            entry = Entry(where=items[-1].where, node=items[-1]) if items else None
        else:
            return None
    return entry


def key_place(root: Node, *path: str) -> Where:
    """The place of the key at a path, or of the nearest thing above it."""
    entry = find(root, *path)
    return entry.where if entry else key_place(root, *path[:-1])
