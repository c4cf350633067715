"""Make the pictures of the documentation: real commands on the example shop, drawn as they look in a terminal.

Pictures of ``meshctl top`` are taken of the application itself, without a terminal, while orders are placed.

``python scripts/make_pictures.py`` starts the shop in a temporary folder, on the port ``GATEWAY_PORT`` (8080 unless it
is set), runs the commands of ``PICTURES``, writes ``docs/pictures/*.svg`` and takes the shop down.
"""

from __future__ import annotations

import asyncio
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
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from meshctl.cli.rollout_view import draw_rollout, pick_past
from meshctl.client.client import MeshClient
from meshctl.tui.app import TopApp
from meshctl.tui.reader import tap_through_client, through_client
from meshctl.wire.paths import locate
from meshctl.wire.rollouts import ENDED

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "pictures"

_UP = "meshctl up --wait"

PICTURES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("shop", 100, (_UP, "meshctl status", "meshctl call --from checkout payment/health")),
    ("order", 106, ("python examples/shop/place_orders.py --count 40 --rate 20",)),
    (
        "shift",
        100,
        (
            "meshctl canary shift checkout v2=25 -m 'more of the discount'",
            "meshctl -q load checkout/health --from frontend --rps 100 --duration 10s",
        ),
    ),
)
"""(name, width in columns, commands)."""

TOP_PICTURES: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("top", (146, 14), ()),
    ("top-narrow", (80, 24), ()),
    ("top-wide", (200, 50), ("2",)),
    ("top-service", (110, 24), ("down", "down", "enter")),
)
"""(name, columns and lines, keys that are pressed first)."""

_REQUESTS = ("top-requests", (120, 22), "meshctl circuit open recommendations")
"""(name, columns and lines, what is done before so that there is something to see)."""

_ORDERS = ("examples/shop/place_orders.py", "--count", "520", "--rate", "8")
_ORDERS_SECONDS = 45
_TELLING = 5.0
# Evidence that fills a part of its bar.


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
            _take_pictures_of_top(folder, environ)
            _take_picture_of_rollout(folder, environ)
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


def _take_pictures_of_top(folder: str, environ: dict[str, str]) -> None:
    port = environ.get("GATEWAY_PORT", "8080")
    orders = subprocess.Popen(
        [sys.executable, *_ORDERS, "--url", f"http://127.0.0.1:{port}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with suppress(subprocess.TimeoutExpired):
            orders.wait(_ORDERS_SECONDS)  # so that there is something to see in the sparklines
        for name, size, keys in TOP_PICTURES:
            _write(name, asyncio.run(_take_picture(folder, size, keys)))
        name, size, command = _REQUESTS
        subprocess.run(command.split(), cwd=folder, env=environ, check=True)
        _write(name, asyncio.run(_take_picture(folder, size, ("4",), requests=120)))
    finally:
        orders.terminate()
        orders.wait()


def _take_picture_of_rollout(folder: str, environ: dict[str, str]) -> None:
    """A version that fails, just before it is taken back, as ``meshctl canary watch`` draws it."""
    topology = Path(folder) / "mesh.yaml"
    text = topology.read_text(encoding="utf-8").replace("{LOYALTY_PERCENT: 10}", "{FAILURE_PERCENT: 20}")
    topology.write_text(text.replace("    split: {v1: 90, v2: 10}", "    #"), encoding="utf-8")
    subprocess.run(["meshctl", "-q", "up", "-d", "--wait", "--reset"], cwd=folder, env=environ, check=True)
    words = ("frontend/orders", "-d", "{}", "--rps", "20", "--duration", "60s")
    load = subprocess.Popen(["meshctl", "-q", "load", *words], cwd=folder, env=environ, stdout=subprocess.DEVNULL)
    try:
        steps = ("--steps", "10,25,50,100", "--interval", "1s", "--window", "10s", "--min-requests", "30")
        subprocess.run(
            ["meshctl", "-q", "canary", "start", "checkout", "v2", *steps], cwd=folder, env=environ, check=True
        )
        lines = asyncio.run(_watch_rollout(folder))
    finally:
        load.terminate()
        load.wait()
    console = Console(record=True, width=84, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bright_black"), ("meshctl canary watch checkout", "bold")))
    for line in lines:
        console.print(line, soft_wrap=False)
    _write("canary", console.export_svg(title="meshctl", unique_id="canary"))


async def _watch_rollout(folder: str) -> list[Text]:
    """The lines of a rollout at the moment when much speaks against the version, and not yet enough."""
    paths = locate(folder, environ=os.environ, uid=os.getuid())
    async with MeshClient(paths.api_socket, directory=folder) as client:
        async for status in client.rollouts.stream("checkout"):
            verdict = status.verdict
            if status.phase in ENDED or (verdict is not None and verdict.errors.evidence > _TELLING):
                record = (await client.rollouts.history(number=status.number)).rollouts[0]
                now = status.latest.time + 0.4 if status.latest is not None else status.since
                return list(draw_rollout(status, now, 80, list(pick_past(record.decisions))))
    sys.exit("the control plane ended before the rollout did")


async def _take_picture(folder: str, size: tuple[int, int], keys: tuple[str, ...], *, requests: int = 0) -> str:
    paths = locate(folder, environ=os.environ, uid=os.getuid())

    def make_client() -> MeshClient:
        return MeshClient(paths.api_socket, directory=folder)

    app = TopApp(
        connect=through_client(make_client), orphans=lambda: False, window=10.0, tap=tap_through_client(make_client)
    )
    async with app.run_test(size=size) as pilot:
        while app.snapshot is None or app.history is None:
            await pilot.pause(0.1)
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()
        while app.requests.seen < requests:
            await pilot.pause(0.1)
        return app.export_screenshot(title="meshctl top")


def _draw(name: str, width: int, session: list[tuple[str, str]]) -> None:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, (command, output) in enumerate(session):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "bright_black"), (command, "bold")))
        console.print(Text.from_ansi(output.rstrip("\n")), soft_wrap=False)
    _write(name, console.export_svg(title="meshctl", unique_id=name))


def _write(name: str, svg: str) -> None:
    # The picture needs nothing from elsewhere: the reader's own monospaced font is used.
    svg = re.sub(r"\s*@font-face \{[^}]*\}", "", svg)
    svg = svg.replace("Fira Code", "ui-monospace").replace("<svg ", '<svg xml:space="preserve" ', 1)
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    (TARGET / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"wrote docs/pictures/{name}.svg")


if __name__ == "__main__":
    sys.exit(main())
