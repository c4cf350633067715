"""A gRPC service without generated code: requests and answers are bytes.

``/lab.Echo/Once`` answers what it was sent, with the caller's identity as trailing metadata; ``Stream`` echoes
each message of a stream as it comes, and so shows that nothing holds the stream back. ``Flaky`` is told how often to
fail, with which status and by which key to count, such as ``2 UNAVAILABLE key``, and then says how often it was asked;
``Broken`` fails likewise, but after it has sent a message. ``Down`` sends so many messages, ``Up`` counts those it
gets, and ``Left`` says how long its caller waits (seconds).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent import futures

import grpc

tries: Counter[str] = Counter()


def once(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Unary."""
    sent = dict(context.invocation_metadata())
    context.set_trailing_metadata((("caller", sent.get("x-forwarded-client-cert", "")),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    return request


def stream(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    """Both ways."""
    yield from requests


def flaky(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Fail as often as asked."""
    count, status, key = request.decode().split()
    tries[key] += 1
    if tries[key] <= int(count):
        context.abort(grpc.StatusCode[status], f"try {tries[key]}")
    return str(tries[key]).encode()


def broken(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Fail after a first message."""
    _, status, key = request.decode().split()
    tries[key] += 1
    yield str(tries[key]).encode()
    context.abort(grpc.StatusCode[status], "too late to try again")


def down(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    """From the server."""
    for number in range(int(request)):
        yield b"%d " % number + bytes(1000)


def up(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
    """From the client."""
    return str(sum(1 for _ in requests)).encode()


def left(_: bytes, context: grpc.ServicerContext) -> bytes:
    """The deadline."""
    return f"{context.time_remaining():.3f}".encode()


def main() -> None:
    """Serve until killed."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Once": grpc.unary_unary_rpc_method_handler(once),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
        "Flaky": grpc.unary_unary_rpc_method_handler(flaky),
        "Broken": grpc.unary_stream_rpc_method_handler(broken),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Left": grpc.unary_unary_rpc_method_handler(left),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Echo", handlers),))
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
