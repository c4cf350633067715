"""Calls from one service of the shop to another, over connections that are kept open.  Standard library only.

Nothing here knows how services find one another: the address of `payment` is in `PAYMENT_URL`, wherever that leads.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from urllib.parse import urlsplit

TIMEOUT = 10.0
"""Seconds; longer than the mesh's own timeout, which answers first and says what was too slow."""

DEADLINE = "x-envoy-expected-rq-timeout-ms"
"""How long whoever asks still waits, in milliseconds: the sidecars write it, and shorten their timeouts by it."""

_idle: dict[str, list[http.client.HTTPConnection]] = {}


class Failure(Exception):  # noqa: N818 - an answer, not an error of the program
    """Ends a request with a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Answer:
    """What a service answered; `path` is its `x-shop-path`, empty when it gave none."""

    def __init__(self, status: int, path: str, body: bytes) -> None:
        self.status, self.path, self.body = status, path, body

    def message(self) -> str:
        """The answer in words, for one that reports a failure."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return self.body.decode(errors="replace").strip()


def until(headers: dict[str, str]) -> float | None:
    """When whoever sent a request stops waiting, by the clock of `left`; None when nobody says so."""
    told = headers.get(DEADLINE, "")
    return time.monotonic() + int(told) / 1000 if told.isdigit() else None


def left(moment: float | None) -> dict[str, str]:
    """The header that hands on how long is left; raises Failure when it is nothing, for nobody waits any more."""
    if moment is None:
        return {}
    milliseconds = int((moment - time.monotonic()) * 1000)
    if milliseconds <= 0:
        raise Failure(504, "nobody waits for this any more")
    return {DEADLINE: str(milliseconds)}


def send(service: str, method: str, path: str, body: object, headers: dict[str, str]) -> Answer:
    """Send one request and wait for the answer, whatever its status; raises Failure when there is none."""
    variable = f"{service.upper().replace('-', '_')}_URL"
    url = os.environ.get(variable)
    if not url:
        raise Failure(500, f"nobody knows where {service} is: {variable} is not set")
    data = None if body is None else json.dumps(body).encode()
    headers = {"host": service, "content-type": "application/json", **headers}
    try:
        return _exchange(urlsplit(url).netloc, method, path, data, headers)
    except (OSError, http.client.HTTPException) as error:
        raise Failure(500, f"{service} cannot be reached: {error or type(error).__name__}") from None


def _exchange(address: str, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
    idle = _idle.setdefault(address, [])
    while True:
        try:
            connection, used_before = idle.pop(), True
        except IndexError:
            connection, used_before = http.client.HTTPConnection(address, timeout=TIMEOUT), False
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers.get("x-shop-path", ""), response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # A connection may have been closed by the other side while it was idle. To repeat the call is safe: all
            # that change something carry an Idempotency-Key.
            if not used_before or isinstance(error, TimeoutError):
                raise
            continue
        if not response.will_close:
            idle.append(connection)
        return answer
