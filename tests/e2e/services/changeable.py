"""A service that fails while it is told to, and otherwise says how often it was asked, with the headers asked for.

``/mode/<status>`` sets the status of every answer from now on (200: it works). ``/bytes/<n>`` sends as many,
``/stream`` sends a body for ten minutes. Other paths say their number; each ``h=Name:value`` of the query is a header
of the answer.
"""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

MODE = {"status": 200}
ASKED = {"count": 0}


async def set_mode(request: web.Request) -> web.Response:
    """Fail from now on, or work again."""
    MODE["status"] = int(request.match_info["status"])
    return web.Response()


async def say_health(_: web.Request) -> web.Response:
    """It is healthy, whatever it answers."""
    return web.Response()


async def stream(request: web.Request) -> web.StreamResponse:
    """A body that goes on."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(12_000):
        await response.write(b"tick\n")
        await asyncio.sleep(0.05)
    return response


async def answer(request: web.Request) -> web.Response:
    """The number of the request, or as many bytes as asked for."""
    ASKED["count"] += 1
    headers = dict(pair.split(":", 1) for pair in request.query.getall("h", []))
    status = MODE["status"]
    if status >= 500:
        return web.Response(status=status, text="no", headers={"x-broken": "yes"})
    if request.path.startswith("/bytes/"):
        return web.Response(body=b"x" * int(request.path.rpartition("/")[2]), headers=headers)
    return web.Response(status=status, text=f"answer {ASKED['count']}", headers=headers)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/mode/{status}", set_mode)
    app.router.add_get("/health", say_health)
    app.router.add_get("/stream", stream)
    app.router.add_route("*", "/{path:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None)
