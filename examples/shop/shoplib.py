"""What most services of the shop share: requests, routes, and calls that are kept account of.

Standard library only, and little of it, so that a service starts fast.
Every answer carries the header `x-shop-path`: the services that took part in it, and as whom each of them was called,
as the sidecars tell (`x-forwarded-client-cert`). FAILURE_PERCENT, FAILURE_STATUS and DELAY_MS make a service misbehave,
evenly spread or, with FAILURE_SPREAD=random, by chance.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from shopcall import Failure, left, send, until
from shopserve import serve

__all__ = ["Failure", "Request", "route", "run", "say"]

NAME = os.environ.get("MESH_SERVICE") or os.path.basename(sys.argv[0]).removesuffix(".py")  # noqa: PTH119 - lean
VERSION = os.environ.get("MESH_VERSION", "")
INSTANCE = os.environ.get("MESH_INSTANCE", "")
PASSED_ON = ("traceparent", "tracestate", "baggage", "x-request-id", "idempotency-key")
"""Headers that go along with the calls made for a request: traces hold together, repeats are recognised."""
FAILURE_PERCENT = int(os.environ.get("FAILURE_PERCENT", "0"))
FAILURE_STATUS = int(os.environ.get("FAILURE_STATUS", "500"))
FAILURE_SPREAD = os.environ.get("FAILURE_SPREAD", "even")
DELAY = float(os.environ.get("DELAY_MS", "0")) / 1000


class Request:
    """One request; `argument` is what stands for `{}` in the route's path."""

    def __init__(self, target: str, headers: dict[str, str], body: bytes) -> None:
        url = urlsplit(target)
        self.path, self.query, self.argument, self.body = url.path, dict(parse_qsl(url.query)), "", body
        self.until, self.passed_on = until(headers), {name: headers[name] for name in PASSED_ON if name in headers}
        # By=<this service>;Hash=...;URI=<its caller>, from the certificates of both sidecars.
        identities = dict(re.findall(r'\b(By|URI)="?([^;,"]+)', headers.get("x-forwarded-client-cert", "")))
        self.identity: str | None = identities.get("By")
        caller: str | None = identities.get("URI")
        me = {"service": NAME, "version": VERSION, "instance": INSTANCE, "caller": caller, "depth": 0}
        self.hops: list[dict[str, Any]] = [me]

    @property
    def key(self) -> str:
        """The Idempotency-Key: requests with the same key are one wish, to be fulfilled once."""
        if not self.passed_on.get("idempotency-key"):
            raise Failure(400, "the header Idempotency-Key is missing")
        return self.passed_on["idempotency-key"]

    def json(self) -> dict[str, Any]:
        """The body, which must be a JSON object."""
        try:
            body = json.loads(self.body or b"{}")
        except ValueError:
            raise Failure(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise Failure(400, "the body is not a JSON object")
        return body

    def call(self, service: str, method: str, path: str, body: object = None) -> Any:
        """The JSON that another service answers; raises Failure when it refuses or fails."""
        hop = {"service": service, "version": "", "instance": "", "caller": self.identity, "noted_by": NAME, "depth": 1}
        try:
            answer = send(service, method, path, body, {**self.passed_on, **left(self.until)})
        except Failure:
            self.hops.append({**hop, "failed": True})
            raise
        if answer.path:
            self.hops += [{**below, "depth": below["depth"] + 1} for below in json.loads(answer.path)]
        else:  # it says nothing of itself, so its caller notes what it knows
            self.hops.append(hop)
        if answer.status >= 500:
            # 500 and no 503: the mesh has tried as often as it may, those who called us need not start over.
            raise Failure(500, f"{service} answered {answer.status}: {answer.message()}")
        if answer.status >= 400:
            raise Failure(answer.status, answer.message())
        return json.loads(answer.body)


Handler = Callable[[Request], tuple[int, Any]]
_routes: list[tuple[str, re.Pattern[str], Handler]] = []
_lock = threading.Lock()
_seen = 0


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Register a function that answers with a status and JSON; `{}` in the path stands for one segment."""

    def register(handler: Handler) -> Handler:
        _routes.append((method, re.compile(path.replace("{}", "([^/]+)")), handler))
        return handler

    return register


def say(text: str) -> None:
    """A line of log."""
    print(text, flush=True)


def run() -> None:
    """Serve the routes until SIGTERM."""

    def answer(method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        request = Request(target, headers, body)
        status, result = _dispatch(method, request)
        shown = {"Content-Type": "application/json", "x-shop-path": json.dumps(request.hops)}
        return status, shown, json.dumps(result).encode() + b"\n"

    serve(answer)


def _dispatch(method: str, request: Request) -> tuple[int, Any]:
    if request.path == "/health":
        return 200, {"status": "ok", "service": NAME, "version": VERSION}
    try:
        _misbehave()
        for wanted, pattern, handler in _routes:
            match = pattern.fullmatch(request.path)
            if match and wanted == method:
                request.argument = unquote(match[1]) if pattern.groups else ""
                return handler(request)
    except Failure as failure:
        return failure.status, {"error": str(failure)}
    except KeyError as missing:
        return 400, {"error": f"{missing} is missing"}
    return 404, {"error": f"{NAME} does not know {method} {request.path}"}


def _misbehave() -> None:
    """Fail and wait as the environment says: evenly spread, exactly so many of every hundred requests fail."""
    global _seen  # noqa: PLW0603 - one process, one count
    with _lock:
        _seen += 1
        fails = _seen * FAILURE_PERCENT // 100 > (_seen - 1) * FAILURE_PERCENT // 100
    fails = random.random() * 100 < FAILURE_PERCENT if FAILURE_SPREAD == "random" else fails
    time.sleep(DELAY)
    if fails:
        say(why := f"{NAME} fails {FAILURE_PERCENT}% of its requests, as FAILURE_PERCENT says")
        raise Failure(FAILURE_STATUS, why)
