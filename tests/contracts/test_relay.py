"""What faults of the way between services rely on: a relay that loses or delays bytes until its time is over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

LONG = 600.0
PATIENCE = 30.0


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it is sent, and ends when the client has."""

    def serve() -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(line,), daemon=True).start()

    def answer(line: socket.socket) -> None:
        with line:
            while data := line.recv(65536):
                line.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def relaying(folder: Path, port: int, **more: Any) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A relay to a port, and where it listens."""
    ready = folder / "relay.ports"
    spec = {"targets": {"it": port}, "delay": 0, "jitter": 0, "drop": False, "seconds": LONG, "ready": str(ready)}
    argv = [sys.executable, "-S", "-P", "-m", "meshctl.adapters.relay", json.dumps({**spec, **more})]
    source = Path(__file__).parents[2] / "src"
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(source)}) as process:
        try:
            wait_for(ready.exists)
            yield process, json.loads(ready.read_text())["it"]
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def exchange(port: int, data: bytes) -> bytes:
    """What comes back of bytes, to the end."""
    with connect(port) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: line.recv(65536), b""))


def test_bytes_come_late_each_way_whole_and_in_order(tmp_path: Path, echo: int) -> None:
    data = bytes(range(256)) * 4096
    with relaying(tmp_path, echo, delay=0.1, jitter=0.05) as (_, port):
        begun = time.monotonic()
        assert exchange(port, data) == data
        assert time.monotonic() - begun >= 0.1


def test_nothing_passes_until_the_time_is_over_and_then_everything(tmp_path: Path, echo: int) -> None:
    with relaying(tmp_path, echo, drop=True, seconds=2.0) as (_, port):
        assert exchange(port, b"lost") == b""
        wait_for(lambda: exchange(port, b"heard") == b"heard")


def test_who_gives_up_is_not_kept(tmp_path: Path, echo: int) -> None:
    with relaying(tmp_path, echo, drop=True) as (process, port):
        relay = psutil.Process(process.pid)
        before = relay.num_fds()
        for _ in range(20):
            connect(port).close()
        with connect(port):
            wait_for(lambda: relay.num_fds() == before + 1)


def test_told_to_end_it_goes_on_for_the_connections_that_are_open(tmp_path: Path, echo: int) -> None:
    with relaying(tmp_path, echo, delay=LONG) as (process, port):
        relay = psutil.Process(process.pid)
        before = relay.num_fds()
        line = connect(port)
        line.sendall(b"at once now")
        wait_for(lambda: relay.num_fds() == before + 2)
        process.send_signal(signal.SIGTERM)
        assert line.recv(64) == b"at once now"
        with pytest.raises(OSError):
            connect(port).recv(1)
        line.close()
        assert process.wait(PATIENCE) == 0
