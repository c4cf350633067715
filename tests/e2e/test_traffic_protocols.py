"""What crosses two sidecars unharmed: TCP, gRPC, HTTP/2 from applications, WebSocket, event streams, large bodies."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self

import aiohttp
import grpc
import pytest
from tests.e2e.traffic import ECHO, GRPC, LAB, PATIENT, TCP, Map, admin, ask, free_port, read_map, running

pytestmark = pytest.mark.e2e

MEGABYTES = 64 << 20
GROWTH = 16 << 20
"""Bytes that a sidecar may hold more while a body of MEGABYTES passes it: a few connections' buffers, and no body."""


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    topology = {
        "name": "proto",
        "defaults": PATIENT,
        "gateway": {"port": free_port(), "routes": [{"path": "/", "service": "lab"}]},
        "services": {
            "a": {"command": ECHO, "upstreams": ["lab", "grpc", "tcp"]},
            "lab": {"command": LAB},
            "grpc": {"command": GRPC, "protocol": "grpc"},
            "tcp": {"command": TCP, "protocol": "tcp", "replicas": 2},
        },
    }
    with running(topology) as mesh:
        yield read_map(mesh)


def unchanged(message: bytes) -> bytes:
    return message


def gather(connection: socket.socket, goal: int) -> bytes:
    parts: list[bytes] = []
    while goal > 0 and (block := connection.recv(1 << 16)):
        parts.append(block)
        goal -= len(block)
    return b"".join(parts)


# ---------------------------------------------------------------------------------------------- TCP


def test_bytes_cross_both_ways_over_mtls(world: Map) -> None:
    before = sum(world.stats("tcp", "ssl.handshake").values())
    sent = hashlib.sha256(b"seed").digest() * 40_000
    with socket.create_connection(("127.0.0.1", world.upstream("a", "tcp")), 60) as connection:
        first = connection.recv(100)
        assert re.fullmatch(rb"tcp-v1-[12]\n", first)
        writer = threading.Thread(target=connection.sendall, args=(sent,))
        writer.start()
        assert gather(connection, len(sent)) == sent
        writer.join()
    assert sum(world.stats("tcp", "ssl.handshake").values()) > before


def test_the_end_of_one_direction_of_a_tcp_connection_is_carried_on(world: Map) -> None:
    with socket.create_connection(("127.0.0.1", world.upstream("a", "tcp")), 60) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        everything = gather(connection, 1 << 20)
    assert everything.partition(b"\n")[2] == b"last words"


def test_tcp_connections_are_spread_over_the_instances(world: Map) -> None:
    seen = set()
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", world.upstream("a", "tcp")), 60) as connection:
            seen.add(connection.recv(100))
    assert seen == {b"tcp-v1-1\n", b"tcp-v1-2\n"}


# ---------------------------------------------------------------------------------------------- gRPC


@pytest.fixture(params=["upstream", "host"])
def channel(world: Map, request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """To the upstream's own port, and to the port that routes by host name."""
    if request.param == "upstream":
        made = grpc.insecure_channel(f"127.0.0.1:{world.upstream('a', 'grpc')}")
    else:
        options = [("grpc.default_authority", "grpc")]
        made = grpc.insecure_channel(f"127.0.0.1:{world.proxy('a')}", options=options)
    with made:
        yield made


def test_a_unary_grpc_call_carries_the_callers_identity(channel: grpc.Channel) -> None:
    once = channel.unary_unary("/lab.Echo/Once", unchanged, unchanged)
    answer, call = once.with_call(b"hello", timeout=60)
    assert answer == b"hello"
    trailing = dict(call.trailing_metadata())
    assert str(trailing["caller"]).endswith(";URI=spiffe://proto.mesh/a")
    assert dict(call.initial_metadata())["x-meshctl-instance"] == "grpc-v1-1"


def test_a_grpc_status_is_carried_in_trailers(channel: grpc.Channel) -> None:
    once = channel.unary_unary("/lab.Echo/Once", unchanged, unchanged)
    with pytest.raises(grpc.RpcError) as raised:
        once(b"fail", timeout=60)
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert raised.value.details() == "as asked"


def test_a_grpc_stream_is_carried_message_by_message(channel: grpc.Channel) -> None:
    stream = channel.stream_stream("/lab.Echo/Stream", unchanged, unchanged)
    seen: list[bytes] = []
    arrived = threading.Semaphore(0)

    def ask_one_by_one() -> Iterator[bytes]:
        # The next message is sent only after the one before has come back.
        for number in range(5):
            yield f"message {number}".encode()
            assert arrived.acquire(timeout=60)

    for message in stream(ask_one_by_one(), timeout=60):
        seen.append(message)
        arrived.release()
    assert seen == [f"message {number}".encode() for number in range(5)]


def test_a_grpc_stream_goes_either_way(channel: grpc.Channel) -> None:
    down = channel.unary_stream("/lab.Echo/Down", unchanged, unchanged)
    assert [message.split()[0] for message in down(b"300", timeout=60)] == [b"%d" % n for n in range(300)]
    up = channel.stream_unary("/lab.Echo/Up", unchanged, unchanged)
    assert up((bytes(1000) for _ in range(300)), timeout=60) == b"300"


# ---------------------------------------------------------------------------------------------- HTTP


def literal(name: str, value: str) -> bytes:
    """A header that is not indexed (RFC 7541, section 6.2.2); both texts shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize("way", ["gateway", "upstream", "host"])
def test_an_application_may_speak_http2_to_its_sidecar(world: Map, way: str) -> None:
    port = {"gateway": world.gateway, "upstream": world.upstream("a", "lab"), "host": world.proxy("a")}[way]
    asked = {":method": "GET", ":scheme": "http", ":authority": "lab", ":path": "/plain-h2"}
    headers = b"".join(literal(name, value) for name, value in asked.items())
    with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile("rb") as lines:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, headers))
        body = b""
        while True:
            head = lines.read(9)
            payload = lines.read(int.from_bytes(head[:3], "big"))
            if (head[3], head[5:]) == (0, b"\x00\x00\x00\x01"):
                body += payload
                if head[4] & 1:
                    break
    said = json.loads(body)
    assert (said["path"], said["headers"]["host"]) == ("/plain-h2", "lab")


class Heap:
    """The most that sidecars hold while something passes them, beyond what they held before."""

    def __init__(self, world: Map, *services: str) -> None:
        self._sockets = [world.services[service]["sidecar"]["admin_socket"] for service in services]
        self._before = self._look()
        self._done = threading.Event()
        self._most = [0] * len(services)
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """Bytes, of the sidecar that grew most."""
        return max(most - before for most, before in zip(self._most, self._before, strict=True))

    def _look(self) -> list[int]:
        return [int(json.loads(admin(path, "/memory"))["allocated"]) for path in self._sockets]

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._most = [max(pair) for pair in zip(self._most, self._look(), strict=True)]


@pytest.mark.parametrize("way", ["gateway", "upstream", "host"])
async def test_a_websocket_is_carried_through_all_sidecars(world: Map, way: str) -> None:
    caller = "gateway" if way == "gateway" else "a"
    port = {"gateway": world.gateway, "upstream": world.upstream("a", "lab"), "host": world.proxy("a")}[way]
    headers = {"host": "lab"} if way == "host" else {}
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"http://127.0.0.1:{port}/socket", headers=headers) as connection,
    ):
        assert (await connection.receive_str()).endswith(f"URI=spiffe://proto.mesh/{caller}")
        await connection.send_str("hello")
        assert await connection.receive_str() == "hello"
        large = bytes(range(256)) * 1000
        await connection.send_bytes(large)
        assert await connection.receive_bytes() == large


@pytest.mark.parametrize("way", ["gateway", "upstream"])
def test_an_event_arrives_before_the_next_one_is_sent(world: Map, way: str) -> None:
    port = world.gateway if way == "gateway" else world.upstream("a", "lab")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/events/{way}")
    response = connection.getresponse()
    assert response.getheader("content-type") == "text/event-stream"
    assert response.readline() == b"data: first\n"
    ask(port, f"/release/{way}")
    assert response.read() == b"\ndata: second\n\n"
    connection.close()


@pytest.mark.parametrize("way", ["gateway", "upstream"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_large_body_is_carried_up(world: Map, way: str, method: str) -> None:
    port = world.gateway if way == "gateway" else world.upstream("a", "lab")
    body = bytes(range(256)) * (MEGABYTES // 256)
    with Heap(world, "a", "lab") as heap:
        answer = ask(port, "/digest", method=method, body=body)
    assert answer.status == 200
    assert heap.growth < GROWTH
    assert (answer.json["length"], answer.json["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("way", ["gateway", "upstream"])
def test_a_large_body_is_carried_down(world: Map, way: str) -> None:
    port = world.gateway if way == "gateway" else world.upstream("a", "lab")
    with Heap(world, "a", "lab") as heap:
        body = ask(port, f"/bytes/{MEGABYTES}").body
    assert heap.growth < GROWTH
    assert hashlib.sha256(body).digest() == hashlib.sha256(bytes(range(256)) * (MEGABYTES // 256)).digest()


def test_a_slow_reader_slows_the_sender_down_and_fills_no_sidecar(world: Map) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", world.upstream("a", "lab"), timeout=60)
    with Heap(world, "a", "lab") as heap:
        connection.request("GET", f"/bytes/{MEGABYTES}")
        response = connection.getresponse()
        for _ in range(20):  # for a second, less than a hundredth of what there is
            assert response.read(1 << 12)
            time.sleep(0.05)
    assert heap.growth < GROWTH
    connection.close()


def test_a_streamed_body_is_answered_while_it_is_sent(world: Map) -> None:
    port = world.upstream("a", "lab")
    with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile("rb") as lines:
        connection.sendall(b"POST /echo-stream HTTP/1.1\r\nhost: lab\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            connection.sendall(b"3\r\n%03d\r\n" % number)
            if number == 0:
                assert lines.readline() == b"HTTP/1.1 200 OK\r\n"
                while lines.readline() != b"\r\n":
                    continue
            # The next part is sent only after the one before has come back.
            assert (lines.readline(), lines.readline()) == (b"3\r\n", b"%03d\r\n" % number)
        connection.sendall(b"0\r\n\r\n")
        assert lines.readline() == b"0\r\n"
