"""An HTTP/1.1 server on 127.0.0.1:$PORT for one function.  Standard library only.

On SIGTERM it stops accepting, lets requests that are under way finish, for a second at most, and ends with 0.
"""

from __future__ import annotations

import os
import signal
import socketserver
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

GRACE = 1.0

Answer = Callable[[str, str, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]
"""(method, target, headers by lower-case name, body) -> (status, headers, body)."""

_state = threading.Condition()
_busy = 0
_stopping = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        # HTTPServer would look its own host name up, which can take seconds where there is no name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def _handler(answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # headers and body leave in one send

        def handle_request(self) -> None:
            global _busy  # noqa: PLW0603 - one server per process
            with _state:
                _busy += 1
            try:
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, extra, body = answer(self.command, self.path, headers, self.read_body())
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                if _stopping:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
            finally:
                with _state:
                    _busy -= 1
                    _state.notify_all()

        do_GET = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815 - names that http.server asks for

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return body

        def log_message(self, *_: object) -> None:
            """The sidecars keep the access log."""

    return Handler


def serve(answer: Answer) -> None:
    """Serve until SIGTERM or Ctrl+C."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    server = _Server(("127.0.0.1", int(os.environ.get("PORT", "0"))), _handler(answer))
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    try:
        # A signal interrupts the wait, unless it comes in the instant before: then it is seen at the next turn.
        server.serve_forever(poll_interval=0.2)
    except SystemExit:
        server.socket.close()
        with _state:
            _state.wait_for(lambda: _busy == 0, GRACE)
        raise


def _leave(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    global _stopping  # noqa: PLW0603 - one server per process
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stopping = True
    sys.exit(0)
