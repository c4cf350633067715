"""A gRPC service without generated code: requests and answers are bytes.

``/lab.Echo/Once`` answers what it was sent, with the caller's identity as trailing metadata; ``Stream`` echoes
each message of a stream as it comes, and so shows that nothing holds the stream back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent import futures

import grpc


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


def main() -> None:
    """Serve until killed."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Once": grpc.unary_unary_rpc_method_handler(once),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Echo", handlers),))
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
