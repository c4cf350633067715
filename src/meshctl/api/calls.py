"""What a call of the API is made of: its request as the handlers see it, and its row in the table of routes.  Pure."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from meshctl.api.backend import Backend
from meshctl.errors import UsageError
from meshctl.wire import models


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter: ``kind`` is ``text``, ``number``, ``count`` (whole, from 0) or ``switch`` (true, false)."""

    name: str
    kind: str
    text: str
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request: ``query`` holds the values of each parameter, ``path`` the variables of the path, ``body`` bytes."""

    query: Mapping[str, list[str]]
    path: Mapping[str, str]
    body: bytes

    def read_body(self, kind: type[models.S]) -> models.S:
        """The body as a shape. Raises UsageError when it is no JSON or does not fit."""
        try:
            return models.decode(self.body, kind)
        except msgspec.DecodeError as error:
            raise UsageError(f"the body is no {kind.__name__}: {error}", hint="see docs/reference/api.md") from None

    def read_text(self, name: str) -> str:
        """A text parameter, empty when it is not given."""
        values = self.query.get(name, [])
        return values[-1] if values else ""

    def read_number(self, name: str) -> float | None:
        """A number from 0, None when it is not given."""
        text = self.read_text(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UsageError(f"{name}={text}: a number from 0 is wanted")
        return value

    def read_count(self, name: str) -> int | None:
        """A whole number from 0, None when it is not given."""
        text = self.read_text(name)
        if not text:
            return None
        if not re.fullmatch(r"[0-9]{1,15}", text):
            raise UsageError(f"{name}={text}: a whole number from 0 is wanted")
        return int(text)

    def read_switch(self, name: str) -> bool:
        """``true`` or ``false``; false when it is not given."""
        text = self.read_text(name) or "false"
        if text not in ("true", "false"):
            raise UsageError(f"{name}={text}: true or false is wanted")
        return text == "true"


Answer = models.Shape | None
Handler = Callable[[Backend, Call], Awaitable[Answer]]
StreamHandler = Callable[[Backend, Call], AsyncIterator[models.Shape]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call: exactly one of ``answer`` and ``stream`` is set.

    ``waits`` marks calls that only wait: they are given up when the client goes away; all others run to their end.
    """

    method: str
    path: str
    name: str
    text: str
    answer: Handler | None = None
    stream: StreamHandler | None = None
    request: type[models.Shape] | None = None
    response: type[models.Shape] | None = None
    query: tuple[Parameter, ...] = ()
    status: HTTPStatus = HTTPStatus.OK
    waits: bool = False
