"""Programs and HTTP requests as activities: what they answer, and that they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.keeper import wait_until
from tests.support.marked import find_marked

from meshctl.conduct.programs import run_program, send_request
from meshctl.errors import MeshctlError, UsageError, WaitTimeoutError
from meshctl.experiments.model import HttpProvider, ProcessProvider


async def test_a_program_answers_with_its_exit_code_and_what_it_wrote() -> None:
    found = await run_program(ProcessProvider(path="sh", arguments=("-c", "echo one; echo two >&2; exit 3")))
    assert found == {"status": 3, "stdout": "one\n", "stderr": "two\n"}
    found = await run_program(ProcessProvider(path="echo", arguments="a | tr a b"))
    assert found == {"status": 0, "stdout": "b\n", "stderr": ""}


async def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="no program 'nothing-like-it'"):
        await run_program(ProcessProvider(path="nothing-like-it"))


def run_family(folder: Path, *, timeout: float | None) -> asyncio.Task[Any]:
    """A program with a child, both known by the folder."""
    script = f"export FAMILY={folder}; sleep 1000 & wait"
    return asyncio.ensure_future(run_program(ProcessProvider(path="sh", arguments=("-c", script), timeout=timeout)))


async def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    with pytest.raises(WaitTimeoutError, match=r"longer than 0\.3 s"):
        await run_family(tmp_path, timeout=0.3)
    await wait_until(lambda: not find_marked(str(tmp_path)))


async def test_a_program_ends_with_its_activity(tmp_path: Path) -> None:
    task = run_family(tmp_path, timeout=None)
    await wait_until(lambda: len(find_marked(str(tmp_path))) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await wait_until(lambda: not find_marked(str(tmp_path)))


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(60)
        if request.path == "/text":
            return web.Response(text="plain", status=503)
        body = await request.text()
        return web.json_response({"method": request.method, "query": dict(request.query), "body": body})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def test_an_answer_has_a_status_headers_and_a_body(server: str) -> None:
    found: Any = await send_request(HttpProvider(url=f"{server}/text"))
    assert (found["status"], found["body"], found["headers"]["Content-Type"]) == (
        503,
        "plain",
        "text/plain; charset=utf-8",
    )


async def test_arguments_are_the_query_of_a_get_and_the_body_of_others(server: str) -> None:
    found: Any = await send_request(HttpProvider(url=server, arguments={"a": 1}))
    assert found["body"]["query"] == {"a": "1"}
    headers = {"Content-Type": "application/json"}
    found = await send_request(HttpProvider(url=server, method="POST", headers=headers, arguments={"a": [1]}))
    assert json.loads(found["body"]["body"]) == {"a": [1]}
    found = await send_request(HttpProvider(url=server, method="PUT", arguments={"a": "b"}))
    assert found["body"]["body"] == "a=b"


async def test_no_answer_is_an_error(server: str) -> None:
    with pytest.raises(WaitTimeoutError, match="no answer within"):
        await send_request(HttpProvider(url=f"{server}/slow", timeout=0.2))
    with pytest.raises(MeshctlError, match="127"):
        await send_request(HttpProvider(url="http://127.0.0.1:9/"))
