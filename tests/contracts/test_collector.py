"""The collector of spans: what it takes, what it refuses, and that nothing harms it."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.clock import FakeClock

from meshctl.adapters import otlp_forward
from meshctl.adapters.collector import MAX_BODY, Collector
from meshctl.adapters.otlp_decode import decode_json, decode_protobuf
from meshctl.adapters.otlp_forward import HttpForwarder
from meshctl.adapters.otlp_messages import Refusal, Request, Response
from meshctl.adapters.port_owner import port_is_free
from meshctl.telemetry.spans import MAX_ATTRIBUTES, MAX_EVENTS, Span

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def make_body(*, spans: int = 1, trace: bytes = bytes.fromhex(TRACE), attributes: int = 1) -> bytes:
    request = Request()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "checkout"
    scope = group.scope_spans.add()
    for number in range(1, spans + 1):
        span = scope.spans.add(
            trace_id=trace, span_id=number.to_bytes(8), name="price", start_time_unix_nano=5, end_time_unix_nano=9
        )
        for each in range(attributes):
            span.attributes.add(key=f"key{each}").value.int_value = each
        span.events.add(time_unix_nano=6, name="discount")
        span.status.code = 2
        span.status.message = "sold out"
    data: bytes = request.SerializeToString()
    return data


def make_json(**changes: Any) -> bytes:
    span = {
        "traceId": TRACE.upper(),
        "spanId": "00f067aa0ba902b7",
        "parentSpanId": "",
        "name": "price",
        "kind": 1,
        "startTimeUnixNano": "5",
        "endTimeUnixNano": 9,
        "attributes": [
            {"key": "items", "value": {"intValue": "3"}},
            {"key": "gift", "value": {"boolValue": False}},
            {"key": "skus", "value": {"arrayValue": {"values": [{"stringValue": "kettle"}]}}},
        ],
        "events": [{"timeUnixNano": "6", "name": "discount", "attributes": []}],
        "status": {"code": 2, "message": "sold out"},
        "unknownKey": {"a": [1]},
        **changes,
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}).encode()


@dataclass
class Door:
    url: str
    session: aiohttp.ClientSession
    collector: Collector
    spans: list[Span] = field(default_factory=list)
    passed_on: list[tuple[str, bytes, Mapping[str, str]]] = field(default_factory=list)

    async def post(
        self, body: bytes, headers: Mapping[str, str] = PROTOBUF, path: str = "/v1/traces"
    ) -> tuple[int, bytes]:
        async with self.session.post(self.url + path, data=io.BytesIO(body), headers=headers) as answer:
            return answer.status, await answer.read()


def free_port() -> int:
    """One that the system gives to nobody else by itself; another one for whoever runs tests at the same time."""
    first = 28000 + os.getpid() * 61 % 4000
    return next(port for port in range(first, 32768) if port_is_free("127.0.0.1", port))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver may be as slow as this machine is; what is tried again is so at once."""
    monkeypatch.setattr(otlp_forward, "_TIMEOUT", 60.0)
    monkeypatch.setattr(otlp_forward, "_PAUSE", 0.01)


@pytest.fixture(params=["pipe", "port"])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    # By a clock that stands still, no time passes in which more could be taken.
    collector = Collector(FakeClock())
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector()
    url = f"http://127.0.0.1:{(port := free_port())}"
    if request.param == "pipe":
        await collector.open_pipe(str(tmp_path / "s"))
        connector, url = aiohttp.UnixConnector(str(tmp_path / "s")), "http://collector"
    else:
        await collector.open_port(port)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        made = Door(url, session, collector)
        collector.connect(made.spans.extend, lambda path, body, headers: made.passed_on.append((path, body, headers)))
        yield made
    await collector.close()


async def test_spans_of_protobuf_are_taken(door: Door) -> None:
    status, body = await door.post(make_body(spans=250))
    assert (status, Response.FromString(body).partial_success.rejected_spans) == (200, 0)
    assert len(door.spans) == 250
    span = door.spans[0]
    assert (span.trace_id, span.service, span.name, span.failed, span.message) == (
        TRACE, "checkout", "price", True, "sold out",
    )  # fmt: skip
    assert (span.start_ns, span.end_ns, dict(span.attributes)) == (5, 9, {"key0": "0"})
    assert [(event.time_ns, event.name) for event in span.events] == [(6, "discount")]


async def test_spans_of_json_are_taken(door: Door) -> None:
    status, body = await door.post(make_json(), JSON)
    assert (status, json.loads(body)) == (200, {})
    (span,) = door.spans
    assert (span.trace_id, span.service, span.failed, span.message) == (TRACE, "checkout", True, "sold out")
    assert span.attributes["items"] == "3"
    assert span.attributes["gift"] == "false"
    assert "kettle" in span.attributes["skus"]


@pytest.mark.parametrize("kind", [PROTOBUF, JSON], ids=["protobuf", "json"])
async def test_gzip_is_taken(door: Door, kind: Mapping[str, str]) -> None:
    body = gzip.compress(make_body() if kind is PROTOBUF else make_json())
    status, _ = await door.post(body, {**kind, "content-encoding": "gzip"})
    assert (status, len(door.spans)) == (200, 1)


@pytest.mark.parametrize(
    ("body", "headers", "status", "why"),
    [
        (b"\xff\xff\xff", PROTOBUF, 400, "no ExportTraceServiceRequest in protobuf"),
        (b"{", JSON, 400, "no ExportTraceServiceRequest in JSON"),
        (b'{"resourceSpans": 3}', JSON, 400, "no ExportTraceServiceRequest in JSON"),
        (b"\xff\xfe", JSON, 400, "no ExportTraceServiceRequest in JSON"),
        (b"nothing", {**PROTOBUF, "content-encoding": "gzip"}, 400, "no gzip"),
        (gzip.compress(make_body())[:-9], {**PROTOBUF, "content-encoding": "gzip"}, 400, "ends too early"),
        (b"x", {**PROTOBUF, "content-encoding": "br"}, 415, "br is not known"),
        (b"x", {"content-type": "text/plain"}, 415, "not as text/plain"),
        (b"x" * (MAX_BODY + 1), PROTOBUF, 413, "send fewer spans"),
        (gzip.compress(b"x" * (MAX_BODY + 1)), {**PROTOBUF, "content-encoding": "gzip"}, 413, "send fewer spans"),
    ],
    ids=["protobuf", "json", "shape", "utf-8", "no-gzip", "cut", "encoding", "type", "large", "bomb"],
)
async def test_what_cannot_be_read_is_refused_with_why(
    door: Door, body: bytes, headers: Mapping[str, str], status: int, why: str
) -> None:
    found, answer = await door.post(body, headers)
    is_json = headers is JSON or headers["content-type"] == "text/plain"
    message = json.loads(answer)["message"] if is_json else Refusal.FromString(answer).message
    assert found == status
    assert why in message
    assert not door.spans
    # And it goes on.
    assert (await door.post(make_body()))[0] == 200


async def test_spans_that_are_none_are_counted_and_the_others_taken(door: Door) -> None:
    body = make_body(spans=2, trace=b"\0" * 16) + make_body()
    status, answer = await door.post(body)
    told = Response.FromString(answer).partial_success
    assert (status, told.rejected_spans, len(door.spans)) == (200, 2, 1)
    assert "trace id" in told.error_message
    status, answer = await door.post(make_json(spanId="12", startTimeUnixNano="soon"), JSON)
    assert json.loads(answer)["partialSuccess"]["rejectedSpans"] == "1"


async def test_metrics_and_logs_are_let_go_of(door: Door) -> None:
    for path in ("/v1/metrics", "/v1/logs"):
        assert (await door.post(b"whatever", PROTOBUF, path))[0] == 200
    assert (await door.post(b"x", PROTOBUF, "/v1/other"))[0] == 404


async def test_bodies_are_passed_on_as_they_came(door: Door) -> None:
    body = gzip.compress(make_body())
    await door.post(body, {**PROTOBUF, "content-encoding": "gzip"})
    assert door.passed_on == [
        ("/v1/traces", body, {"content-type": "application/x-protobuf", "content-encoding": "gzip"})
    ]
    await door.post(b"\xff")
    assert len(door.passed_on) == 1


async def test_more_than_can_be_taken_is_not_looked_at(door: Door) -> None:
    """A sidecar is told nothing, a service to send later."""
    filler = b"\xff" * MAX_BODY
    statuses = {(await door.post(filler))[0] for _ in range(12)}
    assert door.collector.dropped > 0
    assert statuses == ({400, 200} if door.url == "http://collector" else {400, 429})


async def test_only_loopback_is_listened_on() -> None:
    collector = Collector(FakeClock())
    port = free_port()
    await collector.open_port(port)
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/v1/traces"
            async with session.post(url, data=make_body(), headers={**PROTOBUF, "host": "evil.example"}) as answer:
                assert answer.status == 403
        assert not port_is_free("127.0.0.1", port)
        assert port_is_free("127.0.0.2", port)
    finally:
        await collector.close()
    assert port_is_free("127.0.0.1", port)


# --------------------------------------------------------------------------------------------- whatever is sent


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_are_spans_or_a_value_error(body: bytes) -> None:
    for decode in (decode_protobuf, decode_json):
        try:
            found = list(decode(body))
        except ValueError:
            continue
        assert all(span is None or isinstance(span, Span) for span in found)


@settings(max_examples=200)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_a_body_that_was_damaged_is_spans_or_a_value_error(at: int, other: bytes) -> None:
    body = make_body(spans=2, attributes=3)
    try:
        list(decode_protobuf(body[:at] + other + body[at + len(other) :]))
    except ValueError:
        return


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["traceId", "attributes", "events", "status", "startTimeUnixNano", "name"]), _JSON_VALUES)
def test_any_value_in_a_span_of_json_is_taken_or_refused(key: str, value: object) -> None:
    try:
        list(decode_json(make_json(**{key: value})))
    except ValueError:
        return


def test_what_a_span_holds_is_bounded() -> None:
    (span,) = decode_protobuf(make_body(attributes=500))
    assert span is not None
    assert len(span.attributes) == MAX_ATTRIBUTES
    (span,) = decode_json(make_json(events=[{"name": "again"}] * 100))
    assert span is not None
    assert len(span.events) == MAX_EVENTS


# --------------------------------------------------------------------------------------------- passing on


@dataclass
class Sink:
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[str, bytes]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((request.path, await request.read()))
        self.arrived.set()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


async def _wait_for(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def sink() -> AsyncIterator[tuple[Sink, str]]:
    made, port = Sink(), free_port()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield made, f"http://127.0.0.1:{port}/base"
    await runner.cleanup()


async def test_what_is_offered_is_passed_on_in_order_and_a_busy_receiver_gets_it_again(sink: tuple[Sink, str]) -> None:
    made, url = sink
    made.statuses = [503]
    told: list[str] = []
    forwarder = HttpForwarder(url, told.append)
    task = asyncio.ensure_future(forwarder.run())
    forwarder.offer("/v1/traces", b"one", {})
    forwarder.offer("/v1/traces", b"two", {})
    await _wait_for(lambda: len(made.got) == 3)
    assert [body for _, body in made.got] == [b"one", b"one", b"two"]
    assert made.got[0][0] == "/base/v1/traces"
    assert (forwarder.dropped, told) == (0, [])
    task.cancel()


async def test_what_is_not_taken_is_dropped_and_told_once_and_again_when_it_goes_on(sink: tuple[Sink, str]) -> None:
    made, url = sink
    made.statuses = [400, 400, 400]
    told: list[str] = []
    forwarder = HttpForwarder(url, told.append)
    task = asyncio.ensure_future(forwarder.run())
    for body in (b"1", b"2", b"3", b"4"):
        forwarder.offer("/v1/traces", body, {})
    await _wait_for(lambda: "" in told)
    assert told == ["it answers 400", ""]
    assert forwarder.dropped == 3
    task.cancel()


async def test_nobody_waits_for_a_receiver_that_is_not_there() -> None:
    told: list[str] = []
    forwarder = HttpForwarder(f"http://127.0.0.1:{free_port()}", told.append)
    for number in range(3000):
        forwarder.offer("/v1/traces", b"x" * 10_000, {})
        assert number < 1000 or forwarder.dropped > 0
    assert told == ["it does not take them as fast as they come"]
