"""The documents tell the truth: topologies load, commands and options exist, links lead somewhere, versions agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from scripts.gen_docs import DOCUMENTS as GENERATED
from tests.cli.conftest import RunCli
from tests.cli.conftest import folder as folder  # noqa: PLC0414 - a fixture
from tests.cli.conftest import run_cli as run_cli  # noqa: PLC0414 - a fixture
from tests.support.markdown import DOCUMENTS, ROOT, Block, find_anchors, find_blocks, find_commands, find_links

from meshctl import __version__
from meshctl.ports import SourceFile, TopologySource
from meshctl.spec.load import load

BLOCKS = [block for path in DOCUMENTS for block in find_blocks(path)]
TOPOLOGIES = [block for block in BLOCKS if block.info == "yaml mesh"]
# The reference of the command line is made from what it describes, and shows usages rather than commands.
COMMANDS = sorted({words for path in DOCUMENTS if path.name != "cli.md" for words in find_commands(path)})


@pytest.mark.parametrize("block", TOPOLOGIES, ids=lambda block: block.id)
def test_whole_topologies_load(block: Block) -> None:
    file = SourceFile(path="mesh.yaml", directory="/mesh", text=block.text)
    assert load(TopologySource(files=(file,), variables={})).services


def test_the_guides_show_topologies_and_commands() -> None:
    assert len(TOPOLOGIES) > 10
    assert {words[0] for words in COMMANDS} >= {"up", "down", "status", "call", "register", "certs", "proxy"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_and_their_options_exist(words: tuple[str, ...], run_cli: RunCli, folder: Path) -> None:
    # Words are read before --help is obeyed, so that an unknown one is still refused.
    outcome = run_cli(*words, "--help")
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in find_links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in find_anchors(target), link


def test_generated_documents_are_not_stale() -> None:
    stale = [path for path, make in GENERATED if (ROOT / path).read_text(encoding="utf-8") != make()]
    assert stale == [], "run python scripts/gen_docs.py"


def test_the_newest_version_of_the_changelog_is_the_package_s() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert newest is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert newest[1] == __version__ == project["version"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_holds_the_marks_of_a_merge(path: Path) -> None:
    marks = re.findall(r"^(?:<{7}|>{7}|={7})(?: .*)?$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert marks == []
