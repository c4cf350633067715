"""A greeting over HTTP.  Standard library only; nothing here knows of a mesh.

`PORT` says where to listen. With `HELLO_URL` it asks the service there and passes its greeting on.
"""

import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("NAME", "hello")
HELLO_URL = os.environ.get("HELLO_URL")


class Hello(BaseHTTPRequestHandler):
    """Answers GET."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        status, text = 200, f"hello from {NAME}"
        if HELLO_URL and self.path != "/health":
            try:
                with urllib.request.urlopen(HELLO_URL, timeout=10) as answer:
                    text = f"{NAME} says: {answer.read().decode().strip()}"
            except OSError as error:
                status, text = 502, f"{NAME} got no greeting: {error}"
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
