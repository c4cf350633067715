"""A service on whose behaviour tests have a hand: it fails, streams, upgrades and counts as its paths say.

``/tries/<key>?fail=2`` answers 503 the first two times (``hang``: not at all, ``cut``: by closing the connection) and
says how often it was asked, with ``held=<key>`` not before ``/release/<key>``; ``/count/<key>`` says when,
``/seen/<path>`` how often a path was asked for and how often that was a copy, ``/relay/<UPSTREAM>/<path>`` asks an
upstream and hands the deadline on, ``/drip/<count>/<seconds>`` sends events one by one, ``/echo-stream`` sends back a
body as it comes,
``/events/<key>`` sends one event and the next only after ``/release/<key>``, ``/socket`` echoes WebSocket messages,
``/bytes/<n>`` sends and ``/digest`` takes bodies of any size, ``/sleep/<seconds>`` waits, ``/set-health/<status>``
says what ``/health`` is from now on (0: nothing at all) and ``/checks`` how often it was asked.
Everything else is answered with what was asked; ``/set-echo/<status>/<seconds>`` says with which status from now on,
and how late.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter, defaultdict

from aiohttp import ClientSession, WSMsgType, web

BLOCK = bytes(range(256)) * 256


class Lab:
    """One instance's memory."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.seen: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.released: dict[str, asyncio.Event] = {}
        self.health = 200
        self.checks = 0
        self.status = 200
        self.delay = 0.0

    def told(self, **more: object) -> web.Response:
        """Who answers, and what it has to say."""
        who = {"instance": os.environ["MESH_INSTANCE"], "version": os.environ["MESH_VERSION"]}
        return web.json_response(who | more)

    async def echo(self, request: web.Request) -> web.Response:
        """What was asked."""
        self.seen[request.path] += 1
        self.copies[request.path] += "x-meshctl-mirrored" in request.headers
        await asyncio.sleep(self.delay)
        headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
        answer = self.told(method=request.method, path=request.path_qs, headers=headers, body=await request.text())
        answer.set_status(self.status)
        return answer

    async def set_echo(self, request: web.Request) -> web.Response:
        """Change how everything else is answered."""
        self.status, self.delay = int(request.match_info["status"]), float(request.match_info["seconds"])
        return web.Response()

    async def say_health(self, _: web.Request) -> web.Response:
        """The health that was set."""
        self.checks += 1
        if not self.health:
            await asyncio.sleep(60)
        return web.Response(status=self.health)

    async def count_checks(self, _: web.Request) -> web.Response:
        """How often the health was asked for."""
        return self.told(checks=self.checks)

    async def set_health(self, request: web.Request) -> web.Response:
        """Change what /health says."""
        self.health = int(request.match_info["status"])
        return web.Response()

    async def fail_first(self, request: web.Request) -> web.Response:
        """Fail or hang as often as asked, then succeed."""
        key = request.match_info["key"]
        self.tries[key] += 1
        self.times[key].append(time.monotonic())
        if self.tries[key] <= int(request.query.get("cut", "0")):
            assert request.transport is not None
            request.transport.abort()
        if self.tries[key] <= int(request.query.get("hang", "0")):
            await asyncio.sleep(600)
        if "held" in request.query:
            await self.released.setdefault(request.query["held"], asyncio.Event()).wait()
        status = 503 if self.tries[key] <= int(request.query.get("fail", "0")) else 200
        return web.json_response({"tries": self.tries[key]}, status=status)

    async def count(self, request: web.Request) -> web.Response:
        """How often a key was tried."""
        key = request.match_info["key"]
        return self.told(tries=self.tries[key], times=self.times[key])

    async def say_seen(self, request: web.Request) -> web.Response:
        """How often a path was asked for."""
        path = "/" + request.match_info["path"]
        return self.told(seen=self.seen[path], copies=self.copies[path])

    async def relay(self, request: web.Request) -> web.Response:
        """What an upstream answers, asked with the deadline of this request."""
        name = "x-envoy-expected-rq-timeout-ms"
        headers = {name: request.headers[name]} if name in request.headers else {}
        if "deadline" in request.query:
            headers[name] = request.query["deadline"]
        url = os.environ[f"{request.match_info['name']}_URL"] + "/" + request.match_info["path"]
        async with ClientSession() as client, client.get(url, headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    async def drip(self, request: web.Request) -> web.StreamResponse:
        """Events at a steady pace."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(int(request.match_info["count"])):
            await response.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(float(request.match_info["seconds"]))
        await response.write_eof()
        return response

    async def sleep(self, request: web.Request) -> web.Response:
        """Answer late."""
        await asyncio.sleep(float(request.match_info["seconds"]))
        return self.told()

    async def stream_events(self, request: web.Request) -> web.StreamResponse:
        """Two events, the second only once it is released."""
        event = self.released.setdefault(request.match_info["key"], asyncio.Event())
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await event.wait()
        await response.write(b"data: second\n\n")
        await response.write_eof()
        return response

    async def echo_stream(self, request: web.Request) -> web.StreamResponse:
        """Every part of a body as it comes."""
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        async for part in request.content.iter_any():
            await response.write(part)
        await response.write_eof()
        return response

    async def release(self, request: web.Request) -> web.Response:
        """Let the second event go."""
        self.released.setdefault(request.match_info["key"], asyncio.Event()).set()
        return web.Response()

    async def send_bytes(self, request: web.Request) -> web.StreamResponse:
        """So many bytes, in blocks."""
        left = int(request.match_info["count"])
        response = web.StreamResponse()
        response.content_length = left
        await response.prepare(request)
        while left:
            block = BLOCK[:left]
            await response.write(block)
            left -= len(block)
        return response

    async def digest(self, request: web.Request) -> web.Response:
        """The length and the digest of a body, which is never held as a whole."""
        digest, length = hashlib.sha256(), 0
        async for block in request.content.iter_chunked(1 << 16):
            digest.update(block)
            length += len(block)
        return self.told(length=length, sha256=digest.hexdigest())

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        """Echo messages until the client closes."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.headers.get("x-forwarded-client-cert", ""))
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


def make_app() -> web.Application:
    """All paths."""
    lab = Lab()
    app = web.Application(client_max_size=1 << 27)
    app.router.add_get("/health", lab.say_health)
    app.router.add_route("*", "/set-health/{status}", lab.set_health)
    app.router.add_get("/checks", lab.count_checks)
    app.router.add_get("/set-echo/{status}/{seconds}", lab.set_echo)
    app.router.add_route("*", "/tries/{key}", lab.fail_first)
    app.router.add_get("/count/{key}", lab.count)
    app.router.add_get("/seen/{path:.*}", lab.say_seen)
    app.router.add_get("/relay/{name}/{path:.*}", lab.relay)
    app.router.add_get("/drip/{count}/{seconds}", lab.drip)
    app.router.add_route("*", "/sleep/{seconds}", lab.sleep)
    app.router.add_get("/events/{key}", lab.stream_events)
    app.router.add_get("/release/{key}", lab.release)
    app.router.add_get("/bytes/{count}", lab.send_bytes)
    app.router.add_route("*", "/digest", lab.digest)
    app.router.add_post("/echo-stream", lab.echo_stream)
    app.router.add_get("/socket", lab.talk)
    app.router.add_route("*", "/{path:.*}", lab.echo)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None)
