"""Reads Envoy's admin interface on a unix socket.  I/O; implements ports.ProxyAdmin.

A few lines of HTTP/1.1 over asyncio streams: one short request a second and sidecar must cost next to nothing, and
the peer is Envoy on a socket of our own.
"""

from __future__ import annotations

import asyncio

from meshctl.ports import ProxyAdmin

_TIMEOUT = 2.0
_OK = 200


class EnvoyAdmin(ProxyAdmin):
    """Requests to admin sockets; each uses a connection of its own. A sidecar that hangs is an OSError after 2 s."""

    async def get(self, socket: str, path: str) -> str:
        """The body of ``GET path``. Raises OSError."""
        return await self._request("GET", socket, path)

    async def post(self, socket: str, path: str) -> str:
        """The body of ``POST path``. Raises OSError."""
        return await self._request("POST", socket, path)

    async def _request(self, method: str, socket: str, path: str) -> str:
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await _exchange(method, socket, path)
        except TimeoutError as error:
            raise OSError(f"the sidecar at {socket} did not answer within {_TIMEOUT:g} s") from error
        except ValueError as error:
            # It ended in the middle of its answer.
            raise OSError(f"the sidecar at {socket} gave no whole answer: {error}") from error


async def _exchange(method: str, socket: str, path: str) -> str:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        request = f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        writer.write(request.encode())
        await writer.drain()
        answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not status or int(status[0]) != _OK:
        raise OSError(f"{method} {path} at {socket}: {head[:80]!r} {body[:200]!r}")
    chunked = b"transfer-encoding: chunked" in head.lower()
    return (_join_chunks(body) if chunked else body).decode()


def _join_chunks(body: bytes) -> bytes:
    # Source: RFC 9112, section 7.1; Envoy's admin sends neither chunk extensions nor trailers.
    joined = bytearray()
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return bytes(joined)
        joined += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
