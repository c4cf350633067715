"""Activities that are no verbs of meshctl: HTTP requests and programs.  I/O.

Enters: a provider.  Leaves: what Chaos Toolkit's providers answer (https://chaostoolkit.org/reference/api/experiment/).
A program and all that it started end when its activity is cancelled or its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import aiohttp

from meshctl.errors import MeshctlError, UsageError, WaitTimeoutError
from meshctl.experiments.model import HttpProvider, ProcessProvider
from meshctl.spec.render import Value

_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

_MOST = 1_000_000
"""Characters that are kept of a body or an output."""


async def send_request(provider: HttpProvider) -> Value:
    """Send a request; ``status``, ``headers`` and ``body``. Raises MeshctlError when there is no answer."""
    options: dict[str, Any] = {}
    if provider.arguments is not None:
        kind = next((v for k, v in provider.headers.items() if k.lower() == "content-type"), "")
        if provider.method == "GET" and isinstance(provider.arguments, dict):
            options["params"] = {name: str(value) for name, value in provider.arguments.items()}
        else:
            options["json" if kind == "application/json" else "data"] = provider.arguments
    limits = aiohttp.ClientTimeout(total=provider.timeout, sock_connect=provider.connect_timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.request(provider.method, provider.url, headers=dict(provider.headers), **options) as response,
        ):
            text = (await response.text(errors="replace"))[:_MOST]
            body: Any = text
            if response.content_type == "application/json":
                with contextlib.suppress(ValueError, aiohttp.ClientError):
                    body = await response.json()
            return {"status": response.status, "headers": dict(response.headers), "body": body}
    except TimeoutError:
        raise WaitTimeoutError(f"{provider.url} gave no answer within {provider.timeout:g} s") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise MeshctlError(f"{provider.url}: {error}") from None


async def run_program(provider: ProcessProvider) -> Value:
    """Run a program to its end; ``status``, ``stdout`` and ``stderr``.

    Raises:
        UsageError: there is no such program.
        WaitTimeoutError: it took longer than it may.
    """
    path = _find_program(provider.path)
    if path is None:
        raise UsageError(f"there is no program {provider.path!r}", hint="name one that is in PATH, or its path")
    pipes: dict[str, Any] = {
        "stdin": asyncio.subprocess.DEVNULL,
        "stdout": asyncio.subprocess.PIPE,
        "stderr": asyncio.subprocess.PIPE,
        "start_new_session": True,
    }
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_shell(f"{shlex.quote(path)} {provider.arguments}", **pipes)
        if isinstance(provider.arguments, str)
        else asyncio.create_subprocess_exec(path, *provider.arguments, **pipes)
    )
    try:
        # A start that is cancelled half-way would wait for the end of all that was started, and nobody would end it.
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        process = await starting
        await _end_group(process, asyncio.ensure_future(process.communicate()))
        raise
    reading = asyncio.ensure_future(process.communicate())
    try:
        await asyncio.wait({reading}, timeout=provider.timeout)
    finally:
        # It is read from until its end, or the end would never be heard of.
        on_time = reading.done()
        await _end_group(process, reading)
    if not on_time:
        raise WaitTimeoutError(f"{Path(provider.path).name} took longer than {provider.timeout:g} s")
    out, err = reading.result()
    return {"status": process.returncode, "stdout": _decode(out), "stderr": _decode(err)}


def _find_program(name: str) -> str | None:
    return shutil.which(os.path.expanduser(name))  # noqa: PTH111 - a name to look for, not a path yet


async def _end_group(process: asyncio.subprocess.Process, reading: asyncio.Future[tuple[bytes, bytes]]) -> None:
    """End what is left of a program: first asked, then killed. What has left its group may hold its output open."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if reading.done():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        await asyncio.wait({reading}, timeout=_GRACE)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


def _decode(data: bytes) -> str:
    return data.decode(errors="replace")[:_MOST]
