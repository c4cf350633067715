"""One HTTP request sent as a service would send it, through that service's sidecar.  I/O.

A CallTarget and a MeshRequest enter; a MeshResponse leaves as soon as the answer begins, then its body in chunks.
"""

from __future__ import annotations

import re
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

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


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
    headers = complete_headers(request)
    url = URL(f"http://{target.host or 'localhost'}:{target.port or 80}{request.path}")
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
    except aiohttp.ClientError as error:
        raise MeshctlError(
            f"the sidecar of {target.source} broke the connection off: {error}",
            hint="`meshctl logs --sidecars` shows what it wrote",
        ) from None


def complete_headers(request: MeshRequest) -> list[tuple[str, str]]:
    """The headers to send, the host among them; refuses what HTTP has no way to write (RFC 9110, 5.1, 5.5 and 9.1)."""
    if not _TOKEN.fullmatch(request.method):
        raise UsageError(f"{request.method!r} is no HTTP method", hint="write GET, POST, PUT, PATCH or DELETE")
    for name, value in request.headers:
        if not _TOKEN.fullmatch(name) or _UNPRINTABLE.search(value):
            raise UsageError(f"{name!r}: {value!r} is no HTTP header", hint="write -H 'name: value'")
    names = {name.lower() for name, _ in request.headers}
    headers = list(request.headers)
    if "host" not in names:
        headers.insert(0, ("Host", request.service))
    if "user-agent" not in names:
        headers.append(("User-Agent", f"meshctl/{__version__}"))
    return headers
