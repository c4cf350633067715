"""A service that costs next to nothing: answers 200 to everything on $PORT, HTTP/1.1 with keep-alive."""

from __future__ import annotations

import asyncio
import os
import signal

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-type: text/plain\r\n\r\nok\n"


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._rest = (self._rest + data).split(b"\r\n\r\n")
        if requests:
            self._transport.write(_ANSWER * len(requests))


async def main() -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(_Server, "127.0.0.1", int(os.environ["PORT"]), backlog=512)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
