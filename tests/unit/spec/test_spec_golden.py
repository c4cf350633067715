"""Whole files: what is wrong with them, word for word, and what is made of those with nothing wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from tests.support.topologies import GOLDEN, dump_mesh, find_problems, read_source, to_plain

from meshctl.ports import SourceFile, TopologySource
from meshctl.spec.export import json_schema
from meshctl.spec.load import load
from meshctl.spec.report import Report
from meshctl.spec.source import parse

ROOT = Path(__file__).parents[3]
BROKEN = sorted(path.parent for path in (GOLDEN / "problems").glob("*/mesh.yaml"))
VALID = sorted(path.parent for path in (GOLDEN / "topologies").glob("*/mesh.yaml"))
FILES = sorted([ROOT / "mesh.example.yaml", *GOLDEN.glob("proxies/*/mesh.yaml"), *GOLDEN.glob("topologies/*/*.yaml")])


def check_golden(path: Path, text: str, *, update: bool) -> None:
    if update:
        path.write_text(text, encoding="utf-8")
    else:
        assert path.exists(), "run pytest --update-golden and review"
        assert text == path.read_text(encoding="utf-8")


def schema_errors(document: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("folder", BROKEN, ids=lambda path: path.name)
def test_problems_are_reported_word_for_word(folder: Path, update_golden: bool) -> None:
    found = find_problems(read_source(folder))
    assert found, "the case has no problem"
    check_golden(folder / "expected.txt", "\n".join(found) + "\n", update=update_golden)


@pytest.mark.parametrize("folder", VALID, ids=lambda path: path.name)
def test_valid_files_become_the_mesh_on_file(folder: Path, update_golden: bool) -> None:
    check_golden(folder / "expected.json", dump_mesh(load(read_source(folder))), update=update_golden)


@pytest.mark.parametrize("path", FILES, ids=lambda path: "-".join(path.parts[-2:]))
def test_valid_files_satisfy_the_json_schema(path: Path) -> None:
    report = Report()
    tree = parse(_file(path), report)
    assert tree is not None
    assert report.problems == ()
    assert tree.entries, f"{path.name} is empty"
    assert schema_errors(to_plain(tree)) == []


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name != "override.yaml"], ids=lambda path: "-".join(path.parts[-2:])
)
def test_valid_files_load(path: Path) -> None:
    source = (
        read_source(path.parent) if path.name == "mesh.yaml" else TopologySource(files=(_file(path),), variables={})
    )
    assert find_problems(source) == []


def _file(path: Path) -> SourceFile:
    return SourceFile(path=path.name, directory="/work/shop", text=path.read_text(encoding="utf-8"))
