"""Serves the metrics to Prometheus on a port of loopback.  I/O; implements ports.MetricsServer."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from aiohttp import web

from meshctl.ports import Exposition, MetricsServer

_HOST = "127.0.0.1"
_PAGE = "<!doctype html><title>meshctl</title><p>Metrics of this mesh: <a href=/metrics>/metrics</a>\n"


class HttpMetricsServer(MetricsServer):
    """Answers ``GET /metrics``; one port at a time."""

    def __init__(self) -> None:
        self._runner: web.AppRunner | None = None

    async def open(self, port: int, expose: Callable[[str], Exposition]) -> None:
        """Listen on a port of loopback. Raises OSError when that cannot be."""
        await self.close()

        async def metrics(request: web.Request) -> web.Response:
            found = expose(request.headers.get("accept", ""))
            return web.Response(body=found.text.encode(), headers={"content-type": found.content_type})

        async def index(_: web.Request) -> web.Response:
            return web.Response(text=_PAGE, content_type="text/html")

        app = web.Application(middlewares=[_refuse_other_hosts])
        app.router.add_get("/metrics", metrics)
        app.router.add_get("/", index)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, _HOST, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner

    async def close(self) -> None:
        """Listen no more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


@web.middleware
async def _refuse_other_hosts(request: web.Request, handler: Callable[[web.Request], object]) -> web.StreamResponse:
    # A page of the internet whose name resolves to this machine would be taken by a browser for one of its own.
    host = request.url.host or ""
    if host != "localhost" and not _is_address(host):
        return web.Response(status=403, text="this endpoint answers to localhost and IP addresses only\n")
    answer = await handler(request)  # type: ignore[misc]
    assert isinstance(answer, web.StreamResponse)
    return answer


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
