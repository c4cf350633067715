"""Echoes bytes over TCP, after a first line that names the instance."""

from __future__ import annotations

import asyncio
import os


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, until the client has sent all."""
    writer.write(f"{os.environ['MESH_INSTANCE']}\n".encode())
    while block := await reader.read(1 << 16):
        writer.write(block)
        await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.start_server(echo, "127.0.0.1", int(os.environ["PORT"]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
