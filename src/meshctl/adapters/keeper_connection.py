"""One client of the keeper: lines in, lines out, never blocking.  I/O.

Enters: a connected unix socket.  Leaves: whole lines; what is to be sent waits in memory, up to a limit.
Standard library only: the keeper imports this module.
"""

from __future__ import annotations

import socket
from typing import Any

from meshctl.adapters.keeper_protocol import MAX_MESSAGE, encode_message

MAX_UNSENT = 4 * 1024 * 1024
"""Bytes that a client may leave unread before it is cut off."""


class Connection:
    """A client; ``subscribed`` when it wants to be told of exits."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.subscribed = False
        self._received = bytearray()
        self._unsent = bytearray()

    @property
    def unsent(self) -> bool:
        """True while something waits to be sent."""
        return bool(self._unsent)

    def receive(self) -> list[bytes] | None:
        """The lines that have become complete; None when the client is gone or sends a line without end."""
        try:
            chunk = self.sock.recv(256 * 1024)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not chunk:
            return None
        end = chunk.rfind(b"\n")
        if end < 0:
            self._received += chunk
            return None if len(self._received) > MAX_MESSAGE else []
        lines = (bytes(self._received) + chunk[:end]).split(b"\n")
        self._received = bytearray(chunk[end + 1 :])
        return lines

    def send(self, message: dict[str, Any]) -> bool:
        """Send a message, now or when the client reads again; False when it is gone or too far behind."""
        self._unsent += encode_message(message)
        return self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as the client takes it; False when it is gone or too far behind."""
        while self._unsent:
            try:
                sent = self.sock.send(self._unsent)
            except BlockingIOError:
                break
            except OSError:
                return False
            del self._unsent[:sent]
        return len(self._unsent) <= MAX_UNSENT
