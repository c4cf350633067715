"""``meshctl top`` on a real terminal: whatever ends it, the terminal is given back as it was."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import ServedMesh
from tests.cli.conftest import folder as folder  # noqa: PLC0414 - a fixture
from tests.cli.conftest import paths_of as paths_of  # noqa: PLC0414 - a fixture
from tests.cli.conftest import project as project  # noqa: PLC0414 - a fixture
from tests.cli.conftest import served as served  # noqa: PLC0414 - a fixture
from tests.fakes.taps import make_request

from meshctl.wire.requests import TapItem

LEFT = (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1003l")
"""The alternate screen is left, the cursor is shown, the mouse is let go."""


class Terminal:
    """A terminal with ``meshctl top`` on it."""

    def __init__(self, place: Path, *, code: str) -> None:
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 80))
        self.before = termios.tcgetattr(self.theirs)
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=place, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs,
            start_new_session=True, env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip

    def read_until(self, done: Callable[[], Any], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self.output[-2000:]
            if select.select([self.ours], [], [], 0.1)[0]:
                self.output += os.read(self.ours, 65536)

    def end(self) -> int:
        self.read_until(lambda: self.process.poll() is not None)
        while select.select([self.ours], [], [], 0.1)[0]:
            self.output += os.read(self.ours, 65536)
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for descriptor in (self.ours, self.theirs):
            if descriptor >= 0:
                os.close(descriptor)


CODE = "import sys; from meshctl.cli.app import run; run(['top'])"
BROKEN = """
from meshctl.cli.app import run
from meshctl.tui import app
def fail(*_):
    raise RuntimeError('odd')
app.TopApp.action_help = fail
run(['top'])
"""


@pytest.fixture
def terminal(served: ServedMesh, project: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(project, code=getattr(request, "param", CODE))
    made.read_until(lambda: b"checkout" in made.output)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda t: os.write(t.ours, b"q"), 0),
        (lambda t: os.write(t.ours, b"\x03"), 130),
        (lambda t: t.process.send_signal(signal.SIGINT), 130),
        (lambda t: t.process.send_signal(signal.SIGTERM), 130),
        (lambda t: t.process.send_signal(signal.SIGHUP), 130),
    ],
    ids=["q", "ctrl-c", "sigint", "sigterm", "sighup"],
)
def test_the_terminal_is_given_back(terminal: Terminal, act: Callable[[Terminal], Any], code: int) -> None:
    act(terminal)
    assert terminal.end() == code
    assert all(sequence in terminal.output for sequence in LEFT)
    assert termios.tcgetattr(terminal.theirs) == terminal.before


@pytest.mark.parametrize("terminal", [BROKEN], indirect=True)
def test_a_bug_ends_in_one_line_on_a_terminal_given_back(terminal: Terminal) -> None:
    os.write(terminal.ours, b"?")
    assert terminal.end() == 1
    said = terminal.output.rpartition(LEFT[0])[2]
    assert b"error: unexpected RuntimeError: odd" in said
    assert b"Traceback" not in terminal.output
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_requests_are_those_that_the_control_plane_taps(served: ServedMesh, terminal: Terminal) -> None:
    served.backend.taps.items = [TapItem(request=make_request(path="/tapped"))]
    os.write(terminal.ours, b"4")
    terminal.read_until(lambda: b"/tapped" in terminal.output)
    assert served.backend.taps.asked[0][0].side == "caller"
    os.write(terminal.ours, b"q")
    assert terminal.end() == 0


def test_a_terminal_that_is_gone_ends_it(terminal: Terminal) -> None:
    os.close(terminal.ours)
    os.close(terminal.theirs)
    terminal.ours = terminal.theirs = -1
    os.kill(terminal.process.pid, signal.SIGHUP)
    assert terminal.process.wait(timeout=120) == 130


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_without_colour_none_is_sent(
    served: ServedMesh,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    coloured: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    made = Terminal(project, code=CODE)
    try:
        made.read_until(lambda: b"checkout" in made.output)
        os.write(made.ours, b"q")
        assert made.end() == 0
        found = re.search(rb"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7]|4[0-7]|48)(?:;\d+)*m", made.output)
        assert bool(found) is coloured
    finally:
        made.close()
