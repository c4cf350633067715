"""Envoy's admin interface: whole answers, and an OSError for everything else."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshctl.adapters import envoy_admin
from meshctl.adapters.envoy_admin import EnvoyAdmin

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take as long as this machine is busy."""
    monkeypatch.setattr(envoy_admin, "_TIMEOUT", 60.0)


@asynccontextmanager
async def answering(answer: bytes, *, hang: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A sidecar that answers every request with the same bytes; its socket, and the requests it got."""
    requests: list[bytes] = []
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if hang:
            await released.wait()
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "admin.sock")
        server = await asyncio.start_unix_server(serve, socket)
        try:
            yield socket, requests
        finally:
            released.set()
            server.close()
            await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", "hello"),
        (OK + b"\r\n", ""),
        (CHUNKED + b"5\r\nhello\r\nA\r\n, \xc3\xa4nvoy!!\r\n0\r\n\r\n", "hello, änvoy!!"),
        (CHUNKED + b"0\r\n\r\n", ""),
    ],
)
async def test_a_whole_answer_is_its_body(answer: bytes, body: str) -> None:
    async with answering(answer) as (socket, requests):
        assert await EnvoyAdmin().get(socket, "/stats") == body
        assert await EnvoyAdmin().post(socket, "/drain_listeners") == body
    assert [request.split(b"\r\n")[0] for request in requests] == [
        b"GET /stats HTTP/1.1",
        b"POST /drain_listeners HTTP/1.1",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        CHUNKED,
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"what\r\n",
        OK + b"\r\n\xff",
    ],
)
async def test_a_sidecar_that_ends_in_the_middle_of_its_answer_is_an_oserror(answer: bytes) -> None:
    """Whoever reads a sidecar once a second must survive that it is killed at any moment."""
    async with answering(answer) as (socket, _):
        with pytest.raises(OSError):
            await EnvoyAdmin().get(socket, "/stats")


async def test_a_sidecar_that_is_not_there_or_hangs_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError):
        await EnvoyAdmin().get("/nowhere/admin.sock", "/stats")
    monkeypatch.setattr(envoy_admin, "_TIMEOUT", 0.05)
    async with answering(OK, hang=True) as (socket, _):
        with pytest.raises(OSError, match=r"did not answer within 0\.05 s"):
            await EnvoyAdmin().get(socket, "/stats")
