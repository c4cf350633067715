"""The house itself: sizes, layers, versions, words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import meshctl

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_LINES = 500
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = next(
    contract["layers"]
    for contract in PROJECT["tool"]["importlinter"]["contracts"]
    if contract["name"] == "Imports point down"
)


def texts() -> list[Path]:
    """Everything that people read: sources, tests, documents, examples."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    kinds = {".py", ".md", ".yaml", ".toml", ".txt", ".json", ""}
    found = (ROOT / line for line in listed.stdout.splitlines())
    return [path for path in found if path.is_file() and path.suffix in kinds and path != Path(__file__)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_stays_small_enough_to_be_one_thing(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_imports_keep_to_their_layers() -> None:
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_has_its_layer() -> None:
    placed = {part.strip().removeprefix("meshctl.") for layer in LAYERS for part in layer.split("|")}
    package = ROOT / "src" / "meshctl"
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    # The package itself, and leaves: for whoever holds tasks, and for whoever writes numbers.
    assert there - placed == {"__init__", "figures", "tasks"}
    assert placed <= there


def test_the_document_shows_the_layers_that_are_enforced() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn = re.search(r"^cli\b.* → .*$", text, re.MULTILINE)
    assert drawn is not None
    shown = [sorted(re.split(r"\s*\|\s*", layer)) for layer in drawn[0].split(" → ")]
    enforced = [sorted(re.split(r"\s*\|\s*", layer.replace("meshctl.", ""))) for layer in LAYERS]
    assert shown == [layer for layer in enforced if layer != ["__main__"]]


def test_the_changelog_tells_of_this_version() -> None:
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == meshctl.__version__ == PROJECT["project"]["version"]


UNWANTED = re.compile(r"/root/|/home/(?!ann\b|me\b)|/work/main|\bTODO\b|\bFIXME\b|\bXXX\b|\bissue #?\d")
"""Places on somebody's machine, and notes to oneself."""


def test_texts_speak_of_the_product_only() -> None:
    found = []
    for path in texts():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{name_of(path)}:{number}: {line.strip()[:100]}" for number, line in lines if UNWANTED.search(line)]
    assert found == []
