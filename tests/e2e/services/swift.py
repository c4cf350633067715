"""Answers at once, and nearly for nothing: for tests that send thousands of requests.

``/bytes/<n>`` is answered with so many bytes, everything else with two.
"""

from __future__ import annotations

import asyncio
import os


class Connection(asyncio.Protocol):
    """One connection; requests have no bodies, or short ones that come with them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self.transport = transport
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        """Answer every request whose headers are complete."""
        self.waiting += data
        while b"\r\n\r\n" in self.waiting:
            head, _, rest = self.waiting.partition(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            if len(rest) < length:
                return
            self.waiting = rest[length:]
            path = head.split(b" ", 2)[1]
            body = b"x" * int(path.rpartition(b"/")[2]) if path.startswith(b"/bytes/") else b"ok"
            self.transport.write(  # type: ignore[attr-defined]
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )


async def main() -> None:
    """Serve until the end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", int(os.environ["PORT"]), backlog=256)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
