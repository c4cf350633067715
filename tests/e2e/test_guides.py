"""The sessions that README.md and the guides show, run on a real mesh and compared with what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import MeshUnderTest
from tests.e2e.processes import free_port
from tests.support.markdown import ROOT, find_blocks

pytestmark = pytest.mark.e2e

GUIDES = [
    ROOT / "README.md",
    *(ROOT / "docs" / "guides" / f"{name}.md" for name in ("getting-started", "debugging-a-service", "policies")),
    ROOT / "docs" / "guides" / "how-traffic-flows.md",
    *(ROOT / "docs" / "guides" / f"{name}.md" for name in ("circuit-breaking", "fallback", "faults", "security")),
    *(
        ROOT / "docs" / "guides" / f"{name}.md"
        for name in (
            "limits",
            "load-balancing",
            "routing",
            "shifting-traffic",
            "canary",
            "retries-and-timeouts",
            "metrics",
            "tracing",
            "tap-and-logs",
            "experiments",
        )
    ),
]

_ANYTHING = "..."

_LOOKS = re.compile(r"meshctl (?:-q )?(?:status|stat|edges|traces|trace|logs|events|proxy status|proxy config)\b")
"""Commands that show what is read, checked or reported now and then: whoever looks too early looks again."""

_PATIENCE = 30.0
"""Seconds for which it is looked again."""


class Session:
    """A shell in the folder of a mesh, which runs one command after the other."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def run(self, command: str) -> list[str]:
        """What a command prints."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        end = "--- the end of it ---"
        print(f"{command}\necho '{end}'", file=self._shell.stdin, flush=True)
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.rstrip("\n") == end:
                return lines
            lines.append(line.rstrip("\n"))
        pytest.fail(f"the shell ended in {command!r}: {lines}")

    def close(self) -> None:
        """End the shell, and what it still runs in the background."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        print("kill $(jobs -p) 2>/dev/null", file=self._shell.stdin, flush=True)
        self._shell.stdin.close()
        self._shell.wait(timeout=30)
        self._shell.stdout.close()


@pytest.fixture
def ports() -> dict[str, str]:
    """Free ports for those that the documents name."""
    return {"8080": str(free_port()), "9000": str(free_port())}


@pytest.fixture
def session(mesh: MeshUnderTest, ports: dict[str, str]) -> Iterator[Session]:
    environ = {
        **mesh.environ,
        "GATEWAY_PORT": ports["8080"],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    shell = Session(mesh.folder, environ)
    yield shell
    shell.close()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_session_shows_what_really_happens(
    guide: Path, mesh: MeshUnderTest, session: Session, ports: dict[str, str]
) -> None:
    commands = 0
    for block in find_blocks(guide):
        if block.info == "diff":
            _edit(mesh.folder / "mesh.yaml", block.text)
        if block.info != "console":
            continue
        for command, expected in _split(block.text):
            commands += 1
            shown = _show(session, re.sub(r"\b(8080|9000)\b", lambda port: ports[port[0]], command), expected)
            assert _matches(expected, shown), f"{block.id}: $ {command}\n" + "\n".join(shown)
    assert commands > 3
    assert not mesh.processes()


def _show(session: Session, command: str, expected: list[str]) -> list[str]:
    """What a command prints; one that looks at what changes by itself looks again until that is as expected."""
    deadline = time.monotonic() + _PATIENCE
    shown = session.run(command)
    while _LOOKS.match(command) and not _matches(expected, shown) and time.monotonic() < deadline:
        time.sleep(0.2)
        shown = session.run(command)
    return shown


def _split(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = part.rstrip("\n").split("\n")
        yield command, lines


def _edit(path: Path, diff: str) -> None:
    """Replace lines of a file: each ``-`` line by the ``+`` line below it."""
    lines = diff.splitlines()
    text = path.read_text()
    for old, new in zip(lines[::2], lines[1::2], strict=True):
        assert (old[0], new[0]) == ("-", "+")
        assert text.count(f"{old[1:]}\n") == 1, old
        text = text.replace(f"{old[1:]}\n", f"{new[1:]}\n")
    path.write_text(text)


def _matches(expected: list[str], shown: list[str]) -> bool:
    """Whether the lines are the same but for numbers, times, spaces, their order, and what ``...`` stands for."""
    wanted, found = sorted(map(_mask, expected)), sorted(map(_mask, shown))
    return len(wanted) == len(found) and all(
        re.fullmatch(re.escape(line).replace(re.escape(_ANYTHING), ".*"), other)
        for line, other in zip(wanted, found, strict=True)
    )


def _mask(line: str) -> str:
    line = re.sub(r"\b[0-9a-f]{8}\b", "#", line)  # serial numbers of certificates
    line = re.sub(r"\b\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", "#", line)
    line = re.sub(r"\b\d+(?:\.\d+)? m?s\b|\b(?:\d+(?:\.\d+)?(?:ms|[dhms]))+\b", "#", line)  # in whatever unit
    line = re.sub(r"(?:over |>)1M\b", "#", line)  # evidence beyond what is told
    line = re.sub(r"\d+(?:\.\d+)*", "#", line)
    return " ".join(line.split())
