"""Probes against real servers on loopback and unix sockets, and real commands."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.instances import make_spec
from tests.support.keeper import wait_until
from tests.support.marked import find_marked

from meshctl.control.probes import run_probe
from meshctl.ports import ProcessSpec
from meshctl.spec.schema import ExecProbe, HttpProbe, Probe, TcpProbe

HTTP = Probe(check=HttpProbe(path="/health"), timeout=60.0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[int]:
    """A server on a free port; its handlers have ended when this does."""
    done: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        done.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in done:
            task.cancel()
        if done:
            await asyncio.wait(done)


def answer(*parts: bytes, linger: bool = False) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        if linger:
            await asyncio.Event().wait()

    return handler


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and that nobody else is given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


# ------------------------------------------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("reply", "ok", "message"),
    [
        (OK, True, "GET /health answered 200"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True, "GET /health answered 204"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", True, "GET /health answered 302"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, True, "GET /health answered 200"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            True,
            "GET /health answered 200",
        ),
        (b"HTTP/1.1 503\r\n\r\n", False, "GET /health answered 503"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False, "GET /health answered 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False, "GET /health: what answers there does not speak HTTP"),
        (b"HTTP/1.1 " + b"x" * 100_000, False, "GET /health: "),
        (b"", False, "GET /health: connection closed without an answer"),
    ],
)
async def test_the_status_of_the_answer_decides(reply: bytes, ok: bool, message: str) -> None:
    async with serve(answer(reply)) as port:
        found, words = await run_probe(make_spec(port=port), HTTP)
    assert found is ok
    assert words.startswith(message)


async def test_what_counts_as_healthy_may_be_said() -> None:
    async with serve(answer(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n")) as port:
        probe = Probe(check=HttpProbe(path="/health", expected=((200, 201), (418, 419))))
        assert await run_probe(make_spec(port=port), probe) == (True, "GET /health answered 418")


async def test_the_request_names_its_host_and_says_who_asks() -> None:
    requests: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    async with serve(handler) as port:
        await run_probe(make_spec(port=port), HTTP)
    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "GET /health HTTP/1.1"
    assert {f"Host: 127.0.0.1:{port}", "User-Agent: meshctl-probe", "Connection: close"} <= set(lines)


async def test_the_whole_answer_is_read_so_that_the_server_can_write_it_all() -> None:
    written: list[bool] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n")
        for _ in range(40):
            writer.write(b"x" * 10_000)
            await writer.drain()
        written.append(True)

    async with serve(handler) as port:
        assert (await run_probe(make_spec(port=port), HTTP))[0]
    assert written == [True]


async def test_an_answer_that_never_ends_is_an_answer() -> None:
    async with serve(answer(b"HTTP/1.1 200 OK\r\n\r\n", b"data: 1\n\n", linger=True)) as port:
        assert await run_probe(make_spec(port=port), HTTP) == (True, "GET /health answered 200")


async def test_a_connection_that_breaks_after_the_status_changes_nothing() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf")
        await writer.drain()
        # Closed without lingering: the client sees a reset.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serve(handler) as port:
        assert await run_probe(make_spec(port=port), HTTP) == (True, "GET /health answered 200")


async def test_no_answer_in_time_is_a_failure() -> None:
    async with serve(answer(linger=True)) as port:
        found = await run_probe(make_spec(port=port), replace(HTTP, timeout=0.05))
    assert found == (False, "GET /health: no answer within 0.05 s")


async def test_a_closed_port_is_a_failure(closed_port: int) -> None:
    assert await run_probe(make_spec(port=closed_port), HTTP) == (False, "GET /health: connection refused")


async def test_a_host_may_be_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    handler = answer(OK)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        writer.close()

    spec = make_spec(host=path, port=None)
    assert await run_probe(spec, HTTP) == (False, "GET /health: no such file or directory")
    server = await asyncio.start_unix_server(handle, path)
    try:
        assert await run_probe(spec, HTTP) == (True, "GET /health answered 200")
    finally:
        server.close()


# ------------------------------------------------------------------------------------------------- TCP


async def test_a_port_that_accepts_connections_is_enough_for_a_tcp_probe(closed_port: int) -> None:
    probe = Probe(check=TcpProbe())
    async with serve(answer()) as port:
        assert await run_probe(make_spec(port=port), probe) == (True, f"port {port} accepts connections")
    assert await run_probe(make_spec(port=closed_port), probe) == (
        False,
        f"connect to port {closed_port}: connection refused",
    )


# ------------------------------------------------------------------------------------------------- commands


def ask_command(tmp_path: Path, *argv: str, timeout: float = 60.0) -> Awaitable[tuple[bool, str]]:
    process = ProcessSpec(
        name="web-v1-1",
        argv=("serve",),
        env={"PATH": os.environ["PATH"], "WHO": "web"},
        cwd=str(tmp_path),
        log_path="/dev/null",
    )
    return run_probe(make_spec(process=process), Probe(check=ExecProbe(command=argv), timeout=timeout))


async def test_a_command_that_exits_with_0_is_well(tmp_path: Path) -> None:
    assert await ask_command(tmp_path, "true") == (True, "command true exited with 0")


async def test_a_command_that_fails_says_what_it_said_last(tmp_path: Path) -> None:
    found = await ask_command(tmp_path, "sh", "-c", "echo one; echo 'not yet' >&2; exit 3")
    assert found == (False, "command sh exited with 3: not yet")
    assert await ask_command(tmp_path, "sh", "-c", "kill -9 $$") == (False, "command sh killed by SIGKILL")


async def test_a_command_runs_in_the_services_folder_with_its_environment(tmp_path: Path) -> None:
    assert await ask_command(tmp_path, "sh", "-c", f'[ "$WHO" = web ] && [ "$PWD" = "{tmp_path.resolve()}" ]') == (
        True,
        "command sh exited with 0",
    )


async def test_a_command_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    ok, message = await ask_command(tmp_path, "no-such-command")
    assert not ok
    assert message == "command no-such-command: no such file or directory: no-such-command"


async def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"export FAMILY={tmp_path}; sleep 60 & wait"
    assert await ask_command(tmp_path, "sh", "-c", script, timeout=0.3) == (
        False,
        "command sh: no answer within 0.3 s",
    )
    await wait_until(lambda: not find_marked(str(tmp_path)))


async def test_a_cancelled_probe_leaves_no_command_behind(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = f"echo $$ > {marker}.new; mv {marker}.new {marker}; exec sleep 60"
    task = asyncio.ensure_future(ask_command(tmp_path, "sh", "-c", script))
    while not marker.exists():
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    await wait_until_gone(int(marker.read_text()))


async def test_a_command_that_prints_a_lot_does_not_get_stuck(tmp_path: Path) -> None:
    script = "import sys; sys.stdout.write('x' * 3_000_000); sys.exit(1)"
    ok, message = await ask_command(tmp_path, sys.executable, "-c", script)
    assert not ok
    assert message.endswith("x" * 200)
    assert len(message) < 400


async def wait_until_gone(pid: int) -> None:
    """Return when a process has ended; one that init has not reaped yet has."""
    async with asyncio.timeout(60):
        while _is_running(pid):
            await asyncio.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
