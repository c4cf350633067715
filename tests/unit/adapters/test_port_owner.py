"""Ports are known to be free or held, and by whom."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from meshctl.adapters.port_owner import PortOwner, describe, explain_port, port_is_free, port_owner


@pytest.fixture
def held() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(held: int) -> None:
    assert not port_is_free("127.0.0.1", held)
    assert not port_is_free("0.0.0.0", held)


def test_a_port_is_free_again_when_its_listener_has_gone(held: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
    assert port_is_free("127.0.0.1", port)
    assert explain_port("127.0.0.1", port) == ""


def test_connections_that_are_closing_do_not_hold_a_port() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = listener.accept()
        accepted.close()  # the side that closes first keeps the TIME_WAIT
        client.close()
    assert port_is_free("127.0.0.1", port)


def test_an_address_of_another_machine_is_not_free() -> None:
    assert not port_is_free("192.0.2.1", 8080)
    assert "nothing can listen on 192.0.2.1:8080" in explain_port("192.0.2.1", 8080)


def test_a_host_that_does_not_resolve_is_not_free() -> None:
    assert not port_is_free("no-such-host.invalid", 8080)


def test_the_owner_of_a_port_is_named_with_pid_and_command() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        owner = port_owner(port)
        assert owner is not None
        assert owner.pid == child.pid
        assert sys.executable in owner.command
        text = explain_port("127.0.0.1", port)
        assert text.startswith(f"port {port} is held by python")
        assert f"(pid {child.pid})" in text
    finally:
        child.communicate("\n", timeout=60)


def test_a_port_that_nobody_listens_on_has_no_owner(held: int) -> None:
    assert port_owner(held) is not None
    with socket.socket() as bound:  # bound but not listening
        bound.bind(("127.0.0.1", 0))
        assert port_owner(bound.getsockname()[1]) is None


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        (None, "port 8080 is held by another process"),
        (
            PortOwner(123, "/usr/bin/python3 -m http.server 8080"),
            "port 8080 is held by python3 (pid 123): /usr/bin/python3 -m http.server 8080",
        ),
        (PortOwner(7, "nginx"), "port 8080 is held by nginx (pid 7): nginx"),
    ],
)
def test_the_owner_is_described_in_one_line(owner: PortOwner | None, text: str) -> None:
    assert describe(8080, owner) == text


def test_long_commands_are_cut() -> None:
    assert len(describe(1, PortOwner(1, "java " + "-Dx=y " * 200))) < 170


def test_the_own_process_may_be_the_owner(held: int) -> None:
    owner = port_owner(held)
    assert owner is not None
    assert owner.pid == os.getpid()
