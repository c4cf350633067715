"""A real Envoy that gets everything from an xDS server on a unix socket, for contract tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import aiohttp.web

from meshctl.adapters.envoy_binary import find_envoy
from meshctl.envoy.bootstrap import build_bootstrap


async def until(condition: Callable[[], Awaitable[bool]], *, timeout: float = 60.0) -> None:
    """Return when the condition holds; raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.005)


class Sidecar:
    """One running Envoy. ``folder`` holds its sockets and its log."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.process = process

    async def admin(self, path: str) -> tuple[int, str]:
        """Status and body of ``GET path`` on the admin interface; status 0 when it does not answer."""
        try:
            connector = aiohttp.UnixConnector(str(self.folder / "admin"))
            async with aiohttp.ClientSession(connector=connector) as client, client.get(f"http://admin{path}") as got:
                return got.status, await got.text()
        except aiohttp.ClientError:
            return 0, ""

    async def is_live(self) -> bool:
        """True when Envoy has initialised and serves."""
        return (await self.admin("/ready"))[0] == 200

    async def gauge(self, name: str) -> int:
        """One number of its stats; 0 when there is none."""
        _, text = await self.admin(f"/stats?filter=^{name}$")
        return int(text.rsplit(":", 1)[1]) if ":" in text else 0

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def run_sidecar(folder: Path, *, node: str, ads_socket: str) -> AsyncIterator[Sidecar]:
    """Run an Envoy with the bootstrap that every sidecar gets."""
    bootstrap = folder / "bootstrap.json"
    bootstrap.write_text(
        build_bootstrap(
            node=node,
            mesh="test",
            admin_socket=str(folder / "admin"),
            ads_socket=ads_socket,
            collector_socket=str(folder / "spans"),
        )
    )
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(find_envoy(os.environ).path, "--config-path", str(bootstrap)),
            *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
            stdout=log,
            stderr=log,
        )
    sidecar = Sidecar(folder, process)
    try:
        yield sidecar
    finally:
        await sidecar.kill()


@asynccontextmanager
async def run_backend(
    socket: Path, answer: str, *, ssl: object = None, release: asyncio.Event | None = None
) -> AsyncIterator[str]:
    """An HTTP server on a unix socket that answers with its name, ``/slow`` when it is released; yields its path."""

    async def handle(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if request.path == "/slow" and release is not None:
            await release.wait()
        return aiohttp.web.Response(text=answer)

    app = aiohttp.web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.UnixSite(runner, str(socket), ssl_context=ssl).start()  # type: ignore[arg-type]
    try:
        yield str(socket)
    finally:
        await runner.cleanup()
