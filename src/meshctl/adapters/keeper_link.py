"""One connection from the control plane to the keeper: requests answered in any order, and events.  I/O.

Enters: operations with their arguments.  Leaves: results, MeshctlError for what the keeper refuses, KeeperLost when
the connection ends; events through a callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from meshctl.adapters.keeper_protocol import MAX_MESSAGE, decode_message, encode_message
from meshctl.errors import ConflictError, MeshctlError, StartError, UsageError, WaitTimeoutError

_ANSWER_SECONDS = 30.0
_ERRORS = {error.code: error for error in (ConflictError, StartError, UsageError)}


class KeeperLost(Exception):  # noqa: N818 - an event: the caller asks again over the next connection
    """The connection ended before the answer came."""


class KeeperLink:
    """A connection; nothing is answered before ``serve`` runs.

    Args:
        on_event: called with every message that answers no request.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._lost = False

    @classmethod
    async def connect(cls, path: str, on_event: Callable[[dict[str, Any]], None]) -> KeeperLink:
        """Connect to the keeper at a unix socket. Raises OSError."""
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_MESSAGE)
        return cls(reader, writer, on_event)

    async def call(self, operation: str, **arguments: Any) -> Any:
        """
        The result of an operation.

        Raises:
            KeeperLost: the connection ended first.
            MeshctlError: the keeper refuses, or does not answer in 30 s.
        """
        if self._lost:
            raise KeeperLost
        self._count += 1
        number = self._count
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode_message({"id": number, "op": operation, **arguments}))
            message = await asyncio.wait_for(answer, _ANSWER_SECONDS)
        except TimeoutError:
            raise WaitTimeoutError(f"the process keeper does not answer ({operation})") from None
        finally:
            del self._waiting[number]
        if error := message.get("error"):
            raise _ERRORS.get(error["code"], MeshctlError)(error["message"], hint=error["hint"])
        return message.get("result")

    async def serve(self) -> None:
        """Take what the keeper sends until the connection ends."""
        try:
            while line := await self._reader.readline():
                message = decode_message(line)
                answer = self._waiting.get(message.get("id", 0))
                if answer is None:
                    self._on_event(message)
                elif not answer.done():
                    answer.set_result(message)
        except (OSError, ValueError):  # reset, or cut off within a line
            pass
        finally:
            self._lost = True
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(KeeperLost())
            self._writer.close()

    def close(self) -> None:
        """End the connection; ``serve`` then returns."""
        self._writer.close()
