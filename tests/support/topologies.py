"""Golden topologies: a folder's files -> a source, and what comes of it as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from meshctl.errors import InvalidTopology, Where
from meshctl.ports import SourceFile, TopologySource
from meshctl.spec.dotenv import parse_dotenv
from meshctl.spec.load import load
from meshctl.spec.schema import Mesh
from meshctl.spec.source import ListNode, MapNode, Node, ScalarNode, is_null

GOLDEN = Path(__file__).parents[1] / "golden"


def make_source(*texts: str, variables: Mapping[str, str] | None = None) -> TopologySource:
    """A source of texts: the first is ``mesh.yaml`` in ``/work/shop``, the next ``2.yaml`` in ``/work/2`` and so on."""
    files = [SourceFile(path="mesh.yaml", directory="/work/shop", text=text) for text in texts[:1]]
    files += [
        SourceFile(path=f"{index}.yaml", directory=f"/work/{index}", text=text)
        for index, text in enumerate(texts[1:], start=2)
    ]
    return TopologySource(files=tuple(files), variables=variables or {})


def read_source(folder: Path) -> TopologySource:
    """The source in a golden folder: ``mesh.yaml``, then ``override.yaml`` if there is one, with ``variables.env``."""
    environment = folder / "variables.env"
    names = [name for name in ("mesh.yaml", "override.yaml") if (folder / name).exists()]
    files = [
        SourceFile(path=name, directory=f"/work/{folder.name}", text=(folder / name).read_text(encoding="utf-8"))
        for name in names
    ]
    variables = parse_dotenv(environment.read_text(), "variables.env") if environment.exists() else {}
    return TopologySource(files=tuple(files), variables=variables)


def find_problems(source: TopologySource) -> list[str]:
    """The problems of a source as people see them; empty when it is valid."""
    try:
        load(source)
    except InvalidTopology as error:
        return [str(problem) for problem in error.problems]
    return []


def dump_mesh(mesh: Mesh) -> str:
    """A mesh as JSON, every value of it."""
    return json.dumps(_plain(mesh), indent=1) + "\n"


def to_plain(node: Node) -> Any:
    """A tree as a YAML 1.2 reader would give it to a JSON Schema validator."""
    if isinstance(node, MapNode):
        return {key: to_plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, ListNode):
        return [to_plain(item) for item in node.items]
    if is_null(node):
        return None
    assert isinstance(node, ScalarNode)
    if not node.plain:
        return node.text
    try:
        value = json.loads(node.text)
    except ValueError:
        return node.text
    return value if isinstance(value, bool | int | float) else node.text


def _plain(value: Any) -> Any:
    if isinstance(value, Where):
        return str(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
