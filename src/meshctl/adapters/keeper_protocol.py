"""What the keeper and its clients say to each other: JSON objects, one a line, over a unix socket.  Pure.

A request is ``{"id": 1, "op": "start", ...}``; its answer ``{"id": 1, "result": ...}`` or ``{"id": 1, "error":
{"code", "message", "hint"}}``. A client that sent ``subscribe`` is also told ``{"event": "exit", ...}``, first the
exits that nobody acknowledged. Every operation may be repeated without harm, so that a client may ask again when the
connection broke: ``start`` carries a token that names the attempt.

Standard library only: the keeper imports this module.
"""

from __future__ import annotations

import json
from typing import Any

PROTOCOL = 1
"""Raised when an old client could not talk to a new keeper, or the other way round."""

MARKER = "MESHCTL_PROCESS"
"""The environment variable by which a process, and whatever descends from it, is known: ``<tag>/<name>``."""

MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes of the longest line taken; an environment may hold 2 MiB (ARG_MAX) and JSON may escape much of it."""

ALREADY_LOCKED = 3
"""Exit code of a keeper that found another one at work."""


class Refusal(Exception):  # noqa: N818 - what the keeper answers, not a failure of its own
    """A request that is refused: ``code`` is that of a leaf of meshctl.errors."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def encode_message(message: dict[str, Any]) -> bytes:
    """One message as a line; text that is not valid Unicode (surrogates from the environment) survives."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode_message(line: bytes) -> dict[str, Any]:
    """Read a line back. Raises ValueError when it is not a JSON object."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message must be a JSON object")  # noqa: TRY004 - one error for every malformed line
    return message
