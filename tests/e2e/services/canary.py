"""A service with ``ERRORS`` percent of errors (status 500), whose answers take around ``MS`` milliseconds each.

With ``AFTER`` it does not listen before there is such a file in its folder.
Which requests fail, and how long each takes, is drawn from a seed, so that every run of an instance is like the other.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

from aiohttp import web

DRAW = random.Random(os.environ["MESH_INSTANCE"])
ERRORS = float(os.environ.get("ERRORS", "0")) / 100
SECONDS = float(os.environ.get("MS", "5")) / 1000


async def answer(request: web.Request) -> web.Response:
    """An answer, or an error."""
    if request.path == "/health":
        return web.Response()
    fails, seconds = DRAW.random() < ERRORS, SECONDS * DRAW.uniform(0.8, 1.2)
    await asyncio.sleep(seconds)
    return web.Response(status=500 if fails else 200, text=os.environ["MESH_VERSION"])


while "AFTER" in os.environ and not Path(os.environ["AFTER"]).exists():
    time.sleep(0.05)
application = web.Application()
application.router.add_route("*", "/{path:.*}", answer)
web.run_app(application, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)
