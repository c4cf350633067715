"""Make the pictures of the documentation: real commands on the example shop, drawn as they look in a terminal.

``python scripts/make_pictures.py`` starts the shop in a temporary folder, on the port ``GATEWAY_PORT`` (8080 unless it
is set), runs the commands of ``PICTURES``, writes ``docs/pictures/*.svg`` and takes the shop down.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "pictures"

_UP = "meshctl up --wait"

PICTURES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("shop", 100, (_UP, "meshctl status", "meshctl call --from checkout payment/health")),
    ("order", 106, ("python examples/shop/place_orders.py --count 40 --rate 20",)),
)
"""(name, width in columns, commands)."""


def main() -> int:
    """Make every picture; the exit code."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environ.update(TERM="xterm-256color", COLORTERM="truecolor")
    environ.pop("NO_COLOR", None)
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["meshctl", "init", "-q", "--example", "shop"], cwd=folder, env=environ, check=True)
        shown: dict[str, str] = {}
        try:
            for name, width, commands in PICTURES:
                for command in commands:
                    shown[command] = _run(command, width, folder, environ)
                _draw(name, width, [(command, shown[command]) for command in commands])
        finally:
            subprocess.run(["meshctl", "down", "-q"], cwd=folder, env=environ, check=True)
    return 0


def _run(command: str, width: int, folder: str, environ: dict[str, str]) -> str:
    """What a command prints: first its messages, plain, then its data, as a terminal of that width gets them."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, width, 0, 0))
    process = subprocess.Popen(
        command, shell=True, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    data = bytearray()
    try:
        while part := os.read(ours, 65536):
            data += part
    except OSError:
        pass  # Linux ends a terminal without writers with an error, not with an empty read
    os.close(ours)
    assert process.stderr is not None
    messages = process.stderr.read()
    process.stderr.close()
    if process.wait() != 0:
        sys.exit(f"{command}: exit {process.returncode}\n{messages.decode()}")
    return (messages + bytes(data)).decode().replace("\r\n", "\n")


def _draw(name: str, width: int, session: list[tuple[str, str]]) -> None:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, (command, output) in enumerate(session):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "bright_black"), (command, "bold")))
        console.print(Text.from_ansi(output.rstrip("\n")), soft_wrap=False)
    svg = console.export_svg(title="meshctl", unique_id=name)
    # The picture needs nothing from elsewhere: the reader's own monospaced font is used.
    svg = re.sub(r"\s*@font-face \{[^}]*\}", "", svg)
    svg = svg.replace("Fira Code", "ui-monospace").replace("<svg ", '<svg xml:space="preserve" ', 1)
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    (TARGET / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"wrote docs/pictures/{name}.svg")


if __name__ == "__main__":
    sys.exit(main())
