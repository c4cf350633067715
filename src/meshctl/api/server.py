"""The API on a unix socket: reads requests, asks the backend, writes JSON; no decision is made here.

Enters: HTTP on the socket (0600).  Leaves: wire shapes as JSON, streams as NDJSON, failures as ErrorBody.  I/O.
A client that goes away ends its streams and waits; what changes the mesh runs to its end all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Route
from meshctl.api.routes import BASE, ROUTES
from meshctl.errors import (
    ConflictError,
    EnvoyMissingError,
    InvalidTopology,
    MeshctlError,
    NotFoundError,
    NotRunningError,
    PortTakenError,
    RejectedError,
    StartError,
    UsageError,
    WaitTimeoutError,
)
from meshctl.wire.failures import StreamFailure, to_body
from meshctl.wire.models import ErrorBody, Shape, encode

MAX_BODY = 8 * 2**20
"""Bytes of a request's body: topologies of hundreds of services are far below."""

STATUSES: tuple[tuple[type[MeshctlError], HTTPStatus], ...] = (
    (InvalidTopology, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (NotRunningError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (PortTakenError, HTTPStatus.CONFLICT),
    (EnvoyMissingError, HTTPStatus.SERVICE_UNAVAILABLE),
    (StartError, HTTPStatus.BAD_GATEWAY),
    (RejectedError, HTTPStatus.BAD_GATEWAY),
    (WaitTimeoutError, HTTPStatus.GATEWAY_TIMEOUT),
)
"""The HTTP status of each leaf; others answer 500."""

_GONE_CHECK = 1.0
"""Seconds between looks whether a client that is sent nothing is still there."""

_FIRST_ITEM = 0.05
"""Seconds that a stream's begin may be held back, so that what fails at once has its own HTTP status."""

_QUEUE = 1000
"""Items of a stream that may lie between the backend and a slow client."""

_SHUTDOWN = 5.0

_log = logging.getLogger(__name__)

_WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Runner:
    """A served API. Made by ``serve``."""

    def __init__(self, backend: Backend, socket: str) -> None:
        self._backend = backend
        self._socket = socket
        self._pumps: set[asyncio.Future[None]] = set()
        self._closing = False
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_answer_failures])
        for route in ROUTES:
            handler = self._make_stream(route) if route.stream else self._make_answer(route)
            app.router.add_route(route.method, f"{BASE}{route.path}", handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)

    async def start(self) -> None:
        """Listen. Raises ConflictError when another control plane answers on the socket."""
        listener = _bind(self._socket)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """End the streams in good order, let calls under way finish (5 s), and remove the socket."""
        self._closing = True
        for pump in tuple(self._pumps):
            pump.cancel()
        await self._runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket)  # noqa: PTH108 - as in _bind

    def _make_answer(self, route: Route) -> _WebHandler:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert route.answer is not None
            work = route.answer(self._backend, await _read_call(route, request))
            result = await _while_there(request, work) if route.waits else await work
            if result is None:
                return web.Response(status=route.status)
            return web.Response(status=route.status, body=encode(result), content_type="application/json")

        return answer

    def _make_stream(self, route: Route) -> _WebHandler:
        async def stream(request: web.Request) -> web.StreamResponse:
            assert route.stream is not None
            items = route.stream(self._backend, await _read_call(route, request))
            queue: asyncio.Queue[Shape | MeshctlError | None] = asyncio.Queue(_QUEUE)
            pump = asyncio.ensure_future(_pump(items, queue))
            self._pumps.add(pump)
            if self._closing:
                pump.cancel()
            try:
                return await _write_stream(request, queue)
            finally:
                while not queue.empty():  # makes room, so that the pump can end
                    queue.get_nowait()
                pump.cancel()
                await asyncio.wait([pump])
                self._pumps.discard(pump)

        return stream


async def serve(backend: Backend, socket: str) -> Runner:
    """Serve the API on a unix socket that only this user may connect to.

    Raises:
        ConflictError: another control plane answers there.
    """
    runner = Runner(backend, socket)
    await runner.start()
    return runner


def status_of(error: MeshctlError) -> HTTPStatus:
    """The HTTP status for a failure."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


@web.middleware
async def _answer_failures(request: web.Request, handler: _WebHandler) -> web.StreamResponse:
    """Every failure as an ErrorBody."""
    try:
        return await handler(request)
    except MeshctlError as error:
        return _failure(status_of(error), to_body(error))
    except web.HTTPRequestEntityTooLarge:
        return _failure(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _body("usage", f"the body is over {MAX_BODY} bytes"))
    except web.HTTPNotFound:
        return _failure(HTTPStatus.NOT_FOUND, _body("not-found", f"no such call: {request.path}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _failure(HTTPStatus.METHOD_NOT_ALLOWED, _body("usage", f"{request.path} takes {allowed} only"))
    except web.HTTPException:
        raise
    except Exception as error:  # noqa: BLE001 - the runner's boundary: a bug in one call ends that call only
        _log.exception("%s %s failed", request.method, request.path)
        return _failure(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            _body("failed", f"unexpected {type(error).__name__}: {error}", hint="the control plane's log says more"),
        )


def _body(code: str, message: str, *, hint: str = "see docs/reference/api.md") -> ErrorBody:
    return ErrorBody(code=code, message=message, hint=hint, detail="", problems=[])


def _failure(status: HTTPStatus, body: ErrorBody) -> web.Response:
    return web.Response(status=status, body=encode(body), content_type="application/json")


async def _read_call(route: Route, request: web.Request) -> Call:
    """The request as a Call. Raises UsageError for parameters that the route does not have."""
    known = {parameter.name for parameter in route.query}
    unknown = sorted(set(request.query) - known)
    if unknown:
        raise UsageError(
            f"{request.path} has no parameter {', '.join(unknown)}",
            hint=f"parameters: {', '.join(sorted(known))}" if known else "it has none",
        )
    query = {name: request.query.getall(name) for name in request.query}
    return Call(query=query, path=dict(request.match_info), body=await request.read())


async def _while_there(request: web.Request, work: Awaitable[Answer]) -> Answer:
    """Await work that is worth nothing to anybody else: it is given up when the client goes away."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_GONE_CHECK)
            if not task.done() and _is_gone(request):
                return None
        return task.result()
    finally:
        task.cancel()


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def _pump(items: AsyncIterator[Shape], queue: asyncio.Queue[Shape | MeshctlError | None]) -> None:
    """Move items to the queue; None marks the end. A failure goes as itself."""
    try:
        try:
            async for item in items:
                await queue.put(item)
        except MeshctlError as error:
            await queue.put(error)
        except Exception as error:  # noqa: BLE001 - the runner's boundary: the stream's reader is told
            _log.exception("a stream failed")
            await queue.put(MeshctlError(f"unexpected {type(error).__name__}: {error}"))
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
        await queue.put(None)


async def _write_stream(request: web.Request, queue: asyncio.Queue[Shape | MeshctlError | None]) -> web.StreamResponse:
    """Write a stream to its end, many items at a time when there are many."""
    first: list[Shape | MeshctlError | None] = []
    with contextlib.suppress(TimeoutError):
        first.append(await asyncio.wait_for(queue.get(), _FIRST_ITEM))
    if first and isinstance(first[0], MeshctlError):
        raise first[0]
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    with contextlib.suppress(ConnectionResetError):  # a client that goes away is nothing to report
        await response.prepare(request)
        batch = first
        while True:
            data = b"".join(_encode_item(item) for item in batch if item is not None)
            if data:
                await response.write(data)
            if None in batch or _is_gone(request):
                break
            batch = await _take(queue)
        await response.write_eof()
    return response


async def _take(queue: asyncio.Queue[Shape | MeshctlError | None]) -> list[Shape | MeshctlError | None]:
    """What lies in the queue; nothing when it stays empty for a second."""
    try:
        batch = [await asyncio.wait_for(queue.get(), _GONE_CHECK)]
    except TimeoutError:
        return []
    while not queue.empty():
        batch.append(queue.get_nowait())
    return batch


def _encode_item(item: Shape | MeshctlError) -> bytes:
    shape = StreamFailure(error=to_body(item)) if isinstance(item, MeshctlError) else item
    return encode(shape) + b"\n"


def _bind(path: str) -> sockets.socket:
    """A bound unix socket of mode 0600; a socket file that nobody answers on is replaced."""
    if Path(path).exists():
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                pass
            else:
                raise ConflictError("a control plane already runs for this folder", hint="`meshctl status` shows it")
        os.unlink(path)  # noqa: PTH108 - one call on one path
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        listener.bind(path)
        # Nobody can connect before listen(), so there is no moment at which others could.
        os.chmod(path, 0o600)  # noqa: PTH101 - as above
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
