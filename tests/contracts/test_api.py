"""The API's server and client together, over a real unix socket: every call, every failure, streams, limits."""

from __future__ import annotations

import asyncio
import io
import json
import operator
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.fakes.backend import FakeBackend, make_event, make_line

from meshctl.api import server
from meshctl.api.routes import BASE, ROUTES
from meshctl.api.server import MAX_BODY, Runner, serve, status_of
from meshctl.client.client import MeshClient
from meshctl.client.errors import DisconnectedError
from meshctl.errors import (
    ConflictError,
    InvalidTopology,
    MeshctlError,
    NotFoundError,
    NotRunningError,
    Problem,
    UsageError,
    Where,
)
from meshctl.wire import models, policies
from meshctl.wire.authorization import AuthzRequest
from meshctl.wire.explain import ExplainRequest
from meshctl.wire.failures import LEAVES, to_body, to_error
from meshctl.wire.rollouts import ChangeRequest, StartRequest
from meshctl.wire.shifts import MirrorRequest, ShiftRequest

UP = models.UpRequest(
    files=[models.SourceFileShape(path="mesh.yaml", directory="/m", text="services: {}")], variables={}, services=[]
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks often whether its client has gone."""
    monkeypatch.setattr(server, "_GONE_CHECK", 0.02)


@pytest.fixture
def socket() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mt-", dir="/tmp") as folder:
        yield f"{folder}/api.sock"


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def runner(socket: str, backend: FakeBackend) -> AsyncIterator[Runner]:
    made = await serve(backend, socket)
    yield made
    await backend.finish()
    await made.close()


@pytest.fixture
async def client(runner: Runner, socket: str) -> AsyncIterator[MeshClient]:
    async with MeshClient(socket, directory="/mesh") as made:
        yield made


@pytest.fixture
async def raw(runner: Runner, socket: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=socket)) as session:
        yield session


async def _wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server logged, and nobody else in this process."""
    return [record.message for record in caplog.records if record.name.startswith(("meshctl", "aiohttp"))]


def test_every_call_has_a_method_of_the_client_and_of_the_backend() -> None:
    for route in ROUTES:
        find = operator.attrgetter(route.name)
        assert callable(find(MeshClient("/no/socket"))), route.name
        assert callable(find(FakeBackend())), route.name
        assert (route.answer is None) != (route.stream is None)


async def test_every_call_answers_its_shape(client: MeshClient, backend: FakeBackend) -> None:
    assert await client.status() == backend.mesh
    assert (await client.up(UP)).generation == 1
    assert [what for name, what in backend.asked if name == "up"] == [UP]
    assert (await client.ready(2.5)).state == "ready"
    assert [what for name, what in backend.asked if name == "ready"] == [2.5]
    assert (await client.instances.scale(models.ScaleRequest(service="a", version="v1", replicas=3))).acked == 2
    shifted = await client.shifts.shift(ShiftRequest(service="a", weights={"v2": 10}, author="ann@canary shift"))
    assert shifted.after.weights == {"v1": 90, "v2": 10}
    started = await client.rollouts.start(StartRequest(service="cart", version="v2", alpha=0.05, author="ann"))
    assert (started.phase, started.settings.alpha, started.settings.window) == ("running", 0.05, 300.0)
    change = ChangeRequest(service="checkout", author="ann")
    assert (await client.rollouts.pause(change)).phase == "paused"
    assert (await client.rollouts.resume(change)).phase == "running"
    assert (await client.rollouts.promote(change)).weight == 25
    assert (await client.rollouts.roll_back(change)).phase == "rolled_back"
    assert [item async for item in client.rollouts.stream("checkout")][-1].phase == "rolled_back"
    assert (await client.rollouts.retry(change)).number == 4
    assert [item.service for item in (await client.rollouts.list()).rollouts] == ["cart", "checkout"]
    assert [len(item.decisions) for item in (await client.rollouts.history("checkout", 4)).rollouts] == [2]
    mirrored = await client.shifts.mirror(MirrorRequest(service="a", version="v2", author="ann@canary mirror"))
    assert mirrored.after.mirror is not None
    assert (await client.instances.restart(models.RestartRequest(targets=["a"]))).message == "restarted a"
    registered = await client.instances.register(
        models.RegisterRequest(service="a/b", address="127.0.0.1:1", version="v1", ttl=5.0)
    )
    assert await client.instances.heartbeat(registered.id) == registered
    assert (await client.instances.deregister(registered.id)).message == "deregistered a/b-r1"
    assert len((await client.certificates()).certificates) == 2
    assert (await client.rotate(models.RotateRequest(service="", root=True))).message == "rotated"
    assert (await client.verify_certificates()).ok
    assert [proxy.sidecar for proxy in (await client.proxy_status()).proxies] == ["checkout", "payment"]
    assert (await client.proxy_config("checkout", "routes")).kind == "routes"
    assert (await client.call_target("checkout")).port == 20100
    question = AuthzRequest(source="a", target="b", method="POST", headers={"x-role": ["a", "b"]})
    assert (await client.authorization.check(question)).rule == "look-only"
    assert [what for name, what in backend.asked if name == "authorization.check"] == [question]
    await client.down(force=True)
    assert backend.asked[-1] == ("down", True)


async def test_every_call_about_policies_answers_its_shape(client: MeshClient, backend: FakeBackend) -> None:
    fake, calls = backend.policies, client.policies
    assert (await calls.list()).policies == [fake.split, fake.timeout]
    assert (await calls.list("payment", "timeout")).policies == [fake.timeout]
    assert backend.asked[-1] == ("policies.list", ("payment", "timeout"))
    requests: list[tuple[Any, Any, str]] = [
        (calls.apply, policies.ApplyRequest(files=UP.files, variables={"A": "b"}, author="ann@apply", base=7), "apply"),
        (calls.delete, policies.DeleteRequest(owner="a", kind="timeout", author="ann@delete"), "delete"),
        (calls.roll_back, policies.RollbackRequest(revision=6, author="ann@rollback", reason="why"), "roll_back"),
    ]
    for call, request, name in requests:
        assert (await call(request)).changes == fake.changes
        assert backend.asked[-1] == (f"policies.{name}", request)
    assert (await calls.diff(policies.DiffRequest(before=6))).changes == fake.changes
    assert (await calls.history("checkout")).revisions == fake.heads[1:]
    newest = await calls.history(limit=1)
    assert (newest.revisions, newest.total) == (fake.heads[:1], 2)
    question = ExplainRequest(service="payment", source="checkout", headers={"x-user": "ann"})
    assert (await calls.explain(question)).source == "checkout"
    assert backend.asked[-1] == ("policies.explain", question)


async def test_every_call_about_metrics_answers_its_shape(client: MeshClient, backend: FakeBackend) -> None:
    fake, calls = backend.metrics, client.metrics
    assert await calls.get() == fake.found
    assert backend.asked[-1:] == [("metrics.get", ("", "", 10.0, None, False))]
    await calls.get("checkout", "v2", 60, until=1234.5, buckets=True)
    assert backend.asked[-1:] == [("metrics.get", ("checkout", "v2", 60.0, 1234.5, True))]
    assert [item async for item in calls.stream("checkout", interval=0.5)] == [fake.found] * fake.repeats
    assert backend.asked[-1:] == [("metrics.stream", ("checkout", "", 10.0, 0.5))]
    assert await calls.history("checkout", window=300, step=5) == fake.past
    assert backend.asked[-1:] == [("metrics.history", ("checkout", 300.0, 5.0))]


async def test_logs_pass_every_choice_on(client: MeshClient, backend: FakeBackend) -> None:
    backend.lines = [make_line("checkout-v1-1", "a & b=c"), make_line("payment-v1-1", "other")]
    found = [
        line
        async for line in client.logs(
            sources=["checkout", "payment-v1-1"], sidecars=True, tail=5, since=1.5, until=2.5, grep="a & b=."
        )
    ]
    assert found == backend.lines[:1]
    assert backend.asked[-1] == ("logs", (["checkout", "payment-v1-1"], True, 5, 1.5, 2.5, "a & b=.", False))


async def test_a_followed_stream_gives_each_event_as_it_happens_and_ends_with_the_mesh(
    client: MeshClient, backend: FakeBackend
) -> None:
    backend.event_list = [make_event(1, "one"), make_event(2, "two")]
    stream = client.events(since=1, follow=True)
    assert (await anext(stream)).seq == 2
    await backend.add_event(make_event(3, "three"))
    assert (await anext(stream)).seq == 3
    await backend.finish()
    assert [event async for event in stream] == []


async def test_a_server_that_closes_ends_its_streams_in_good_order(socket: str, backend: FakeBackend) -> None:
    runner = await serve(backend, socket)
    async with MeshClient(socket) as client:
        backend.lines = [make_line("checkout-v1-1", "last")]
        stream = client.logs(follow=True)
        assert (await anext(stream)).text == "last"
        await runner.close()
        assert [line async for line in stream] == []
    assert not Path(socket).exists()
    assert backend.open_streams == 0


async def test_a_client_that_goes_away_ends_its_stream_and_nothing_is_logged(
    runner: Runner, socket: str, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async with MeshClient(socket) as client:
        backend.event_list = [make_event(1, "one")]
        assert (await anext(client.events(follow=True))).seq == 1
        assert backend.open_streams == 1
    await _wait_until(lambda: backend.open_streams == 0)
    await runner.close()
    assert logged(caplog) == []


async def test_a_client_that_goes_away_gives_up_its_wait_and_nothing_is_logged(
    runner: Runner, socket: str, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.hold_ready = True
    async with MeshClient(socket) as client:
        waiting = asyncio.ensure_future(client.ready())
        await _wait_until(lambda: backend.waiting == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
    await _wait_until(lambda: not backend.waiting)
    await runner.close()
    assert logged(caplog) == []


async def test_a_change_runs_to_its_end_when_the_client_goes_away(
    runner: Runner, socket: str, backend: FakeBackend
) -> None:
    backend.hold_down = True
    async with MeshClient(socket) as client:
        stopping = asyncio.ensure_future(client.down())
        await _wait_until(lambda: backend.stopping == 1)
        stopping.cancel()
        await asyncio.wait([stopping])
    # Time in which the server looks whether the client has gone.
    await asyncio.sleep(3 * server._GONE_CHECK)
    assert backend.stopping == 1
    await backend.finish()
    await _wait_until(lambda: backend.stopping == 0)


async def test_many_lines_come_whole_and_in_order(client: MeshClient, backend: FakeBackend) -> None:
    backend.lines = [make_line("checkout-v1-1", f"{n} " + "x" * 100) for n in range(5000)]
    assert [line async for line in client.logs()] == backend.lines


async def test_a_line_of_hundreds_of_kilobytes_comes_whole(client: MeshClient, backend: FakeBackend) -> None:
    backend.lines = [make_line("checkout-v1-1", "\x00" * 65536)]  # JSON writes six characters for each
    assert [line async for line in client.logs()] == backend.lines


# ------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("leaf", list(LEAVES.values()), ids=list(LEAVES))
async def test_every_leaf_comes_back_as_itself(
    leaf: type[MeshctlError], client: MeshClient, backend: FakeBackend
) -> None:
    backend.failures["up"] = leaf("it failed", hint="do this", detail="more\nlines")
    with pytest.raises(MeshctlError) as raised:
        await client.up(UP)
    error = raised.value
    assert type(error) is leaf
    assert (error.message, error.hint, error.detail) == ("it failed", "do this", "more\nlines")


async def test_every_problem_of_a_topology_comes_back_with_its_place(client: MeshClient, backend: FakeBackend) -> None:
    problems = (
        Problem(code="unknown-key", message="unknown key", where=Where("mesh.yaml", 3, 5), hint="did you mean"),
        Problem(code="no-services", message="no services"),
    )
    backend.failures["up"] = InvalidTopology(problems)
    with pytest.raises(InvalidTopology) as raised:
        await client.up(UP)
    assert raised.value.problems == problems


def test_a_code_that_is_not_known_becomes_the_plain_failure() -> None:
    body = models.ErrorBody(code="from-the-future", message="m", hint="h", detail="", problems=[])
    assert type(to_error(body)) is MeshctlError


@pytest.mark.parametrize(
    ("leaf", "status"), [(UsageError, 400), (NotFoundError, 404), (ConflictError, 409), (MeshctlError, 500)]
)
def test_a_leaf_has_a_status(leaf: type[MeshctlError], status: int) -> None:
    assert status_of(leaf("m")) == status
    assert to_body(leaf("m")).code == leaf.__dict__["code"]


async def test_a_stream_that_fails_at_once_has_the_failure_s_status(
    raw: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_FIRST_ITEM", 60.0)
    async with raw.get(f"http://x{BASE}/logs?source=nothing") as response:
        assert response.status == 404
        assert (await response.json())["code"] == "not-found"


async def test_a_stream_that_fails_later_raises_in_the_client(client: MeshClient, backend: FakeBackend) -> None:
    backend.event_list = [make_event(1, "one")]
    backend.break_streams = NotFoundError("gone", hint="look elsewhere")
    stream = client.events()
    assert (await anext(stream)).seq == 1
    with pytest.raises(NotFoundError, match="gone"):
        await anext(stream)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/nothing", "", 404, "no such call: /v1/nothing"),
        ("DELETE", "/status", "", 405, "/v1/status takes GET only"),
        ("POST", "/up", "{", 400, "the body is no UpRequest"),
        ("POST", "/up", '{"files": 1}', 400, "the body is no UpRequest"),
        ("POST", "/scale", "", 400, "the body is no ScaleRequest"),
        ("GET", "/events?sinse=1", "", 400, "/v1/events has no parameter sinse"),
        ("GET", "/events?since=-1", "", 400, "since=-1: a whole number from 0 is wanted"),
        ("GET", "/events?follow=yes", "", 400, "follow=yes: true or false is wanted"),
        ("GET", "/ready?timeout=nan", "", 400, "timeout=nan: a number from 0 is wanted"),
        ("GET", "/ready?timeout=soon", "", 400, "timeout=soon: a number from 0 is wanted"),
        ("GET", "/logs?grep=(", "", 400, "grep=("),
        ("GET", "/proxies/checkout/everything", "", 400, "'everything' is no kind of configuration"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said(
    raw: aiohttp.ClientSession, *, method: str, path: str, body: str, status: int, message: str
) -> None:
    async with raw.request(method, f"http://x{BASE}{path}", data=body or None) as response:
        answer = await response.json()
    assert (response.status, sorted(answer)) == (status, ["code", "detail", "hint", "message", "problems"])
    assert answer["message"].startswith(message)


async def test_a_body_that_is_too_large_is_refused(raw: aiohttp.ClientSession) -> None:
    async with raw.post(f"http://x{BASE}/up", data=io.BytesIO(b"x" * (MAX_BODY + 1))) as response:
        assert response.status == 413
        assert (await response.json())["message"] == f"the body is over {MAX_BODY} bytes"


async def test_a_bug_in_a_call_ends_that_call_only(
    client: MeshClient, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    failures: dict[str, Any] = backend.failures
    failures["up"] = ZeroDivisionError("boom")
    with pytest.raises(MeshctlError, match="unexpected ZeroDivisionError: boom"):
        await client.up(UP)
    assert "POST /v1/up failed" in caplog.text
    assert (await client.status()).mesh == "shop"


# ------------------------------------------------------------------------------------------ sockets


async def test_no_socket_means_that_no_mesh_runs(socket: str) -> None:
    async with MeshClient(socket, directory="/mesh") as client:
        with pytest.raises(NotRunningError, match="no mesh runs in /mesh") as raised:
            await client.status()
        with pytest.raises(NotRunningError):
            await anext(client.events())
    assert type(raised.value) is NotRunningError


async def test_a_socket_that_nobody_answers_on_means_the_same_and_is_replaced(
    socket: str, backend: FakeBackend
) -> None:
    listener = await asyncio.start_unix_server(lambda _reader, _writer: None, socket)
    listener.close()
    await listener.wait_closed()
    if not Path(socket).exists():  # Python from 3.13 on removes it
        Path(socket).touch()
    async with MeshClient(socket, directory="/mesh") as client:
        with pytest.raises(NotRunningError, match="no mesh runs"):
            await client.status()
        runner = await serve(backend, socket)
        assert (await client.status()).mesh == "shop"
    await runner.close()


async def test_a_control_plane_that_dies_is_told_from_one_that_does_not_run(socket: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_unix_server(hang_up, socket)
    async with MeshClient(socket) as client:
        with pytest.raises(DisconnectedError):
            await client.certificates()
    listener.close()
    await listener.wait_closed()


async def test_a_second_control_plane_is_refused(runner: Runner, socket: str) -> None:
    with pytest.raises(ConflictError, match="already runs"):
        await serve(FakeBackend(), socket)


async def test_only_this_user_may_connect(runner: Runner, socket: str) -> None:
    assert stat.S_IMODE(Path(socket).stat().st_mode) == 0o600


async def test_an_answer_that_is_not_understood_is_explained(socket: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"mesh": 1}).encode() + b"\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_unix_server(answer, socket)
    async with MeshClient(socket) as client:
        with pytest.raises(ConflictError, match="not understood"):
            await client.status()
        with pytest.raises(ConflictError, match="not understood"):
            await anext(client.events())
    listener.close()
    await listener.wait_closed()
