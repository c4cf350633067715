"""Thousands of requests over a few connections that stay open, each answer with how long it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: ``fault`` is what its x-meshctl-fault says, ``seconds`` until the whole of it was there."""

    path: str
    status: int
    fault: str
    seconds: float
    size: int


class KeptConnection:
    """A connection that stays open for one request after another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str = "/", *, method: str = "GET", headers: str = "") -> Reply:
        """One request; raises OSError or EOFError when the connection is lost."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        length = "content-length: 0\r\n" if method in ("POST", "PUT", "PATCH") else ""
        start = time.perf_counter()
        self._writer.write(f"{method} {path} HTTP/1.1\r\nhost: test\r\n{length}{headers}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        size = int(fields.get("content-length", "0"))
        await self._reader.readexactly(size)
        took = time.perf_counter() - start
        return Reply(path, int(head.split(" ", 2)[1]), fields.get("x-meshctl-fault", ""), took, size)

    def close(self) -> None:
        """End it."""
        if self._writer is not None:
            self._writer.close()


async def _work(port: int, paths: list[str], method: str, headers: str, replies: list[Reply]) -> None:
    connection = KeptConnection(port)
    try:
        while paths:
            replies.append(await connection.ask(paths.pop(), method=method, headers=headers))
    finally:
        connection.close()


def fire(
    port: int, paths: Iterable[str], *, connections: int = 16, method: str = "GET", headers: str = ""
) -> list[Reply]:
    """A request for each path, over so many connections; every one has to be answered."""
    waiting, replies = list(paths), list[Reply]()
    expected = len(waiting)

    async def run() -> None:
        async with asyncio.timeout(240):
            await asyncio.gather(*(_work(port, waiting, method, headers, replies) for _ in range(connections)))

    asyncio.run(run())
    assert len(replies) == expected
    return replies
