"""The reference documents of the topology file are those that the code makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.gen_docs import ROOT, make_mesh_yaml, make_problems, make_schema


@pytest.mark.parametrize(
    ("name", "text"),
    [("mesh-yaml.md", make_mesh_yaml()), ("problems.md", make_problems()), ("mesh.schema.json", make_schema())],
)
def test_the_reference_is_not_stale(name: str, text: str) -> None:
    path = Path(ROOT) / "docs" / "reference" / name
    assert path.read_text(encoding="utf-8") == text, "run python scripts/gen_docs.py"
