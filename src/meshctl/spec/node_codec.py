"""Nodes and documents <-> JSON text, places included.  Pure.

The form is compact rather than pretty: a revision of a mesh of hundreds of services has thousands of nodes. Every
place is three numbers, the first an index into the table of files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from meshctl.errors import Where
from meshctl.spec.policies import FILES, Document, Documents, Origin, PolicyKey, order_documents
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ResetNode, ScalarNode, make_list, make_map

_FORM = 1
_PLAIN, _INTERPOLATED, _BROKEN = 1, 2, 4


def encode_documents(documents: Documents) -> str:
    """Documents as text; equal documents give equal text."""
    files: dict[str, int] = {}
    rows = [
        [
            document.owner,
            document.kind,
            *_encode_where(document.where, files),
            None if document.node is None else _encode(document.node, files),
            [document.origin.revision, document.origin.author, document.origin.time] if document.origin != FILES else 0,
        ]
        for document in order_documents(documents.values()).values()
    ]
    return json.dumps({"form": _FORM, "files": list(files), "documents": rows}, separators=(",", ":"))


def decode_documents(text: str) -> dict[PolicyKey, Document]:
    """Documents of a text. Raises ValueError for what ``encode_documents`` did not make."""
    try:
        whole = json.loads(text)
        if whole["form"] != _FORM:
            raise ValueError(f"documents of the form {whole['form']}")
        files = [str(file) for file in whole["files"]]
        return order_documents(_decode_document(row, files) for row in whole["documents"])
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("these are no documents") from error


def _decode_document(row: list[Any], files: list[str]) -> Document:
    owner, kind, file, line, column, node, origin = row
    return Document(
        owner=owner,
        kind=kind,
        where=Where(files[file], line, column),
        node=None if node is None else _decode(node, files),
        origin=FILES if not origin else Origin(revision=origin[0], author=origin[1], time=origin[2]),
    )


def _encode(node: Node, files: dict[str, int]) -> list[Any]:
    place = _encode_where(node.where, files)
    match node:
        case ScalarNode():
            flags = _PLAIN * node.plain + _INTERPOLATED * node.interpolated + _BROKEN * node.broken
            return ["s", *place, node.text, flags]
        case ResetNode():
            return ["r", *place]
        case ListNode():
            return ["l", *place, [_encode(item, files) for item in node.items]]
        case MapNode():
            rows = [
                [key, *_encode_where(entry.where, files), _encode(entry.node, files)]
                for key, entry in node.entries.items()
            ]
            return ["m", *place, rows]


def _decode(data: list[Any], files: list[str]) -> Node:
    tag, where = data[0], Where(files[data[1]], data[2], data[3])
    if tag == "s":
        flags = data[5]
        return ScalarNode(
            text=data[4],
            where=where,
            plain=bool(flags & _PLAIN),
            interpolated=bool(flags & _INTERPOLATED),
            broken=bool(flags & _BROKEN),
        )
    if tag == "r":
        return ResetNode(where=where)
    if tag == "l":
        return make_list((_decode(item, files) for item in data[4]), where)
    if tag == "m":
        entries: Mapping[str, Entry] = {
            key: Entry(where=Where(files[file], line, column), node=_decode(node, files))
            for key, file, line, column, node in data[4]
        }
        return make_map(entries, where)
    raise ValueError(f"a node of the kind {tag!r}")


def _encode_where(where: Where, files: dict[str, int]) -> list[int]:
    return [files.setdefault(where.file, len(files)), where.line, where.column]
