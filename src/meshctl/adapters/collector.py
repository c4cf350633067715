"""Receives spans by OTLP/HTTP: of sidecars on a unix socket, of services on a port of loopback.  I/O; implements
control.tracing.SpanReceiver.

Whatever is sent is bounded before it is looked at, and what cannot be read is refused and harms nothing. Source:
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from http import HTTPStatus

from aiohttp import web

from meshctl.adapters.otlp_bodies import BodyTooLargeError, inflate
from meshctl.adapters.otlp_decode import decode_json, decode_protobuf, encode_answer, encode_refusal
from meshctl.ports import Clock
from meshctl.telemetry.intake import Intake
from meshctl.telemetry.spans import Span

_HOST = "127.0.0.1"
_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"

MAX_BODY = 4 << 20
"""Bytes of one body, as it comes and as it is meant."""

_RATE = 4 << 20
_BURST = 16 << 20
# Bytes a second, and at once, of each door: about five thousand spans a second, ten times what sampling aims at.

_AT_ONCE = 100
# Spans that are read before others get a turn: a few milliseconds.

_TRACES = "/v1/traces"
_OTHERS = ("/v1/metrics", "/v1/logs")
# Taken and let go of: who sends them need not fill a log with failures.


Take = Callable[[list[Span]], None]
Forward = Callable[[str, bytes, Mapping[str, str]], None]
"""Who takes spans, and bodies with their path and headers."""


class Collector:
    """Hands spans on to ``take``, and bodies to ``forward`` as they came."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._take: Take = lambda _spans: None
        self._forward: Forward = lambda _path, _body, _headers: None
        self._pipe: web.AppRunner | None = None
        self._port: web.AppRunner | None = None
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many bodies were not looked at, because too much came."""
        return self._dropped

    def connect(self, take: Take, forward: Forward) -> None:
        """Say where spans go, and bodies, before any door is opened."""
        self._take, self._forward = take, forward

    async def open_pipe(self, path: str) -> None:
        """Receive from sidecars. Raises OSError when that cannot be."""
        runner = await self._make_runner(is_pipe=True)
        await _start(runner, web.UnixSite(runner, path))
        self._pipe = runner

    async def open_port(self, port: int) -> None:
        """Receive from services, on a port of loopback. Raises OSError when that cannot be."""
        await self.close_port()
        runner = await self._make_runner(is_pipe=False)
        await _start(runner, web.TCPSite(runner, _HOST, port))
        self._port = runner

    async def close_port(self) -> None:
        """Receive no more from services."""
        runner, self._port = self._port, None
        if runner is not None:
            await runner.cleanup()

    async def close(self) -> None:
        """Receive no more."""
        await self.close_port()
        runner, self._pipe = self._pipe, None
        if runner is not None:
            await runner.cleanup()

    async def _make_runner(self, *, is_pipe: bool) -> web.AppRunner:
        intake = Intake(rate=_RATE, burst=_BURST)
        app = web.Application(client_max_size=MAX_BODY, middlewares=[] if is_pipe else [_refuse_other_hosts])

        async def traces(request: web.Request) -> web.Response:
            return await self._receive(request, intake, is_pipe=is_pipe)

        async def others(request: web.Request) -> web.Response:
            return await self._let_go(request, intake)

        app.router.add_post(_TRACES, traces)
        for path in _OTHERS:
            app.router.add_post(path, others)
        # Bodies are inflated here, with a bound; by itself the server would inflate what it is given.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, auto_decompress=False)
        await runner.setup()
        return runner

    async def _receive(self, request: web.Request, intake: Intake, *, is_pipe: bool) -> web.Response:
        as_json = request.content_type == _JSON
        if not as_json and request.content_type != _PROTOBUF:
            found = request.headers.get("content-type", "nothing")[:100]
            return _refuse(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"meshctl takes spans as {_PROTOBUF} or {_JSON}, not as {found}",
                as_json=True,
            )
        encoding = request.headers.get("content-encoding", "").strip().lower()
        try:
            raw = await request.read()
            if not intake.take(len(raw), self._clock.monotonic()):
                self._dropped += 1
                return _too_many(as_json=as_json, is_pipe=is_pipe)
            body = inflate(raw, encoding, MAX_BODY)
            spans = (decode_json if as_json else decode_protobuf)(body)
        except (web.HTTPRequestEntityTooLarge, BodyTooLargeError):
            message = f"the body holds more than {MAX_BODY} bytes; send fewer spans at once"
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, as_json=as_json)
        except LookupError:
            message = f"the content-encoding {encoding[:100]} is not known; use gzip, or none"
            return _refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, as_json=as_json)
        except ValueError as error:
            return _refuse(HTTPStatus.BAD_REQUEST, str(error), as_json=as_json)
        rejected = 0
        taken: list[Span] = []
        for span in spans:
            if span is None:
                rejected += 1
            else:
                taken.append(span)
            if len(taken) >= _AT_ONCE:
                self._take(taken)
                taken = []
                await asyncio.sleep(0)
        self._take(taken)
        self._forward(_TRACES, raw, _headers_of(request))
        why = "their ids are none: a trace id has 16 bytes, a span id 8, and neither is all zeros"
        return _answer(encode_answer(rejected, why, as_json=as_json), as_json=as_json)

    async def _let_go(self, request: web.Request, intake: Intake) -> web.Response:
        as_json = request.content_type == _JSON
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            message = f"the body holds more than {MAX_BODY} bytes"
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, as_json=as_json)
        if not intake.take(len(raw), self._clock.monotonic()):
            return _too_many(as_json=as_json, is_pipe=False)
        self._forward(request.path, raw, _headers_of(request))
        return _answer(encode_answer(0, "", as_json=as_json), as_json=as_json)


async def _start(runner: web.AppRunner, site: web.BaseSite) -> None:
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise


def _headers_of(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in ("content-type", "content-encoding") if name in request.headers}


def _too_many(*, as_json: bool, is_pipe: bool) -> web.Response:
    # A sidecar would not send its spans again anyway.
    if is_pipe:
        return _answer(encode_answer(0, "", as_json=as_json), as_json=as_json)
    answer = _refuse(HTTPStatus.TOO_MANY_REQUESTS, "too many spans come; send them later, or fewer", as_json=as_json)
    answer.headers["retry-after"] = "1"
    return answer


def _answer(body: bytes, *, as_json: bool) -> web.Response:
    return web.Response(body=body, content_type=_JSON if as_json else _PROTOBUF)


def _refuse(status: HTTPStatus, message: str, *, as_json: bool) -> web.Response:
    body = encode_refusal(message, as_json=as_json)
    return web.Response(status=status, body=body, content_type=_JSON if as_json else _PROTOBUF)


@web.middleware
async def _refuse_other_hosts(request: web.Request, handler: Callable[[web.Request], object]) -> web.StreamResponse:
    # A page of the internet whose name resolves to this machine would be taken by a browser for one of its own.
    host = request.url.host or ""
    if host != "localhost" and not _is_address(host):
        return _refuse(HTTPStatus.FORBIDDEN, "this endpoint answers to localhost and IP addresses only", as_json=True)
    answer = await handler(request)  # type: ignore[misc]
    assert isinstance(answer, web.StreamResponse)
    return answer


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
