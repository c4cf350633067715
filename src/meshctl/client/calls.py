"""One HTTP request sent as a service would send it, through that service's sidecar.  I/O.

A CallTarget and a MeshRequest enter; a MeshResponse leaves as soon as the answer begins, then its body in chunks.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from meshctl import __version__
from meshctl.errors import MeshctlError, UsageError, WaitTimeoutError
from meshctl.wire.models import CallTarget

INSTANCE_HEADER = "x-meshctl-instance"
VERSION_HEADER = "x-meshctl-version"
"""Which instance and version answered: set by the sidecar of the callee, absent when no instance was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshRequest:
    """A request: ``service`` is the host name that the sidecar routes by, ``path`` holds the query too."""

    service: str
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshResponse:
    """How an answer began: ``duration_ms`` counts until its headers were there; names are empty without instance."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    duration_ms: float
    instance: str
    version: str
    chunks: AsyncIterator[bytes]


@asynccontextmanager
async def open_call(target: CallTarget, request: MeshRequest) -> AsyncIterator[MeshResponse]:
    """Send a request and yield the answer; its ``chunks`` are to be read before the block ends.

    Raises:
        WaitTimeoutError: ``request.timeout`` seconds passed before the answer was complete.
        UsageError: the request cannot be written as HTTP.
        MeshctlError: the sidecar does not answer, or broke the connection off.
    """
    headers = [("Host", request.service), *request.headers]
    names = {name.lower() for name, _ in request.headers}
    if "host" in names:
        headers = headers[1:]
    if "user-agent" not in names:
        headers.append(("User-Agent", f"meshctl/{__version__}"))
    url = URL.build(scheme="http", host=target.host or "localhost", port=target.port or 80).join(
        URL(request.path, encoded=True)
    )
    started = time.monotonic()
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(target.socket) if target.socket else aiohttp.TCPConnector(),
                timeout=aiohttp.ClientTimeout(total=request.timeout),
                skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
            ) as session,
            session.request(request.method, url, headers=headers, data=request.body, allow_redirects=False) as response,
        ):
            yield MeshResponse(
                status=response.status,
                reason=response.reason or "",
                headers=tuple(response.headers.items()),
                duration_ms=(time.monotonic() - started) * 1000,
                instance=response.headers.get(INSTANCE_HEADER, ""),
                version=response.headers.get(VERSION_HEADER, ""),
                chunks=response.content.iter_any(),
            )
    except TimeoutError:
        raise WaitTimeoutError(
            f"{request.service} gave no whole answer within {request.timeout:g} s",
            hint="--timeout allows more time; `meshctl status` shows whether the service is ready",
        ) from None
    except aiohttp.ClientConnectorError as error:
        raise MeshctlError(
            f"the sidecar of {target.source} does not take connections: {error.strerror or error}",
            hint="`meshctl status` shows its state, `meshctl logs --sidecars` what it wrote",
        ) from None
    except (aiohttp.InvalidURL, ValueError) as error:
        raise UsageError(
            f"this is no HTTP request: {error}", hint="write SERVICE/PATH, such as orders/orders?limit=5"
        ) from None
    except aiohttp.ClientError as error:
        raise MeshctlError(
            f"the sidecar of {target.source} broke the connection off: {error}",
            hint="`meshctl logs --sidecars` shows what it wrote",
        ) from None
