"""A detour for connections: bytes that come late, or not at all, for a while.  I/O; a program of its own.

``python -m meshctl.adapters.relay SPEC``, where SPEC is JSON: ``targets`` (ports of loopback by name), ``delay`` and
``jitter`` (seconds, each way), ``drop`` (nothing passes), ``seconds`` (how long all this), ``ready`` (a file).

Enters: connections of sidecars to sidecars; what passes is TLS, which nobody here can read.  Leaves: the same bytes.
Its ports are written to the file ``ready`` once it listens. When its time is over, bytes pass at once, whoever may be
dead; told to end by SIGTERM it takes no more connections, and ends with the last of them. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from typing import Any

_CHUNK = 65536
_QUEUED = 64
"""Chunks under way each way; more are left with whoever sends them."""

LINGER = 3600.0
"""Seconds that connections may go on after it was told to end."""


class Relay:
    """All detours of one fault."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._delay, self._jitter = float(spec["delay"]), float(spec["jitter"])
        self._drops = bool(spec["drop"])
        self._seconds = float(spec["seconds"])
        self._targets: dict[str, int] = spec["targets"]
        self._ready: str = spec["ready"]
        self._is_over = asyncio.Event()
        self._ends = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._lost: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        """Serve until it is told to end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ends.set)
        servers = {
            name: await asyncio.start_server(self._serve(port), "127.0.0.1", 0) for name, port in self._targets.items()
        }
        ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
        _write(self._ready, json.dumps(ports))
        timer = loop.call_later(self._seconds, self._let_pass)
        await self._ends.wait()
        timer.cancel()
        self._let_pass()
        for server in servers.values():
            server.close()
        if self._open:
            await asyncio.wait(self._open, timeout=LINGER)

    def _let_pass(self) -> None:
        self._is_over.set()
        for writer in self._lost:
            writer.close()

    def _serve(self, port: int) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._open.add(task)
            try:
                await self._pass_on(port, reader, writer)
            except* OSError:
                pass
            finally:
                self._open.discard(task)
                writer.close()

        return serve

    async def _pass_on(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._drops and not self._is_over.is_set():
            # It is taken and never answered, as by a network that loses everything; cut off when that is over. Whoever
            # gives it up before that is not kept, or those who try again and again would use up all files.
            self._lost.add(writer)
            try:
                while await reader.read(_CHUNK):
                    pass
            finally:
                self._lost.discard(writer)
            return
        there_reader, there = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, there))
                ways.create_task(self._carry(there_reader, writer))
        finally:
            there.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bytes of one direction, each chunk late, in their order."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED)

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                late = due - loop.time()
                if late > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._is_over.wait(), late)
                if not data:
                    with contextlib.suppress(OSError, RuntimeError):
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        async def collect() -> None:
            last = 0.0
            while True:
                data = await reader.read(_CHUNK)
                late = 0.0
                if not self._is_over.is_set():
                    late = max(0.0, self._delay + self._jitter * random.uniform(-1, 1))  # noqa: S311 - no secret
                last = max(last, loop.time() + late)
                await queue.put((last, data))
                if not data:
                    return

        # When one fails, the other would wait for ever.
        async with asyncio.TaskGroup() as both:
            both.create_task(collect())
            both.create_task(deliver())


def _write(path: str, text: str) -> None:
    with open(f"{path}.part", "w", encoding="ascii") as file:  # noqa: PTH123 - as light as can be
        file.write(text)
    os.replace(f"{path}.part", path)  # noqa: PTH105


if __name__ == "__main__":
    asyncio.run(Relay(json.loads(sys.argv[1])).run())
