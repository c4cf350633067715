"""What the documents hold that can be checked: blocks of code, commands, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
"""Every document of the project."""

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SHELL = ("sh", "console", "")
_END = frozenset({"|", ">", "<", "&", "&&", ";", "#"})


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: ``info`` is what stands behind the opening fence, ``line`` where it begins, from 1."""

    path: Path
    line: int
    info: str
    text: str

    @property
    def id(self) -> str:
        """Where it is, for test ids."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def find_blocks(path: Path) -> Iterator[Block]:
    """The blocks of code of a document."""
    text = path.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        yield Block(path, text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2])


def find_commands(path: Path) -> set[tuple[str, ...]]:
    """The words behind every ``meshctl`` in shell blocks and in code within the text, without their output."""
    text = path.read_text(encoding="utf-8")
    lines = [code for code in _CODE.findall(_BLOCK.sub("", text)) if code.startswith("meshctl ")]
    for block in find_blocks(path):
        if block.info in _SHELL:
            begins = "$ " if block.info == "console" else ""
            lines += [line for line in block.text.splitlines() if line.startswith(begins)]
    found = (re.search(r"(?:^|[\s=])meshctl (?=[a-z-])(.*)", line) for line in lines)
    return {tuple(_words(match[1])) for match in found if match}


def find_links(path: Path) -> list[str]:
    """The targets of links and pictures that lie in the project, without those that lead elsewhere."""
    text = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def find_anchors(path: Path) -> set[str]:
    """What a link may name behind ``#``: the headings as the usual renderers make ids of them."""
    text = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _words(command: str) -> Iterator[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    for word in lexer:
        if word in _END or word.startswith((">", "|", "2>")):
            return
        yield word
