"""Answers everything with what it was asked, as JSON; ``/health`` with 200.

Paths: ``/status/503`` answers that status, ``/sleep/0.5`` waits first, ``/call/<NAME>/<path>`` calls an upstream by its
URL, ``/proxy/<host>/<path>`` by host name through HTTP_PROXY.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def answer(self) -> None:
        """Any method, any path."""
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode()
        words = self.path.strip("/").split("/")
        status, said = 200, {}
        if words[0] == "status":
            status = int(words[1])
        elif words[0] == "sleep":
            time.sleep(float(words[1]))
        elif words[0] == "call":
            said = fetch(os.environ[f"{words[1]}_URL"] + "/" + "/".join(words[2:]))
        elif words[0] == "proxy":
            said = fetch(f"http://{words[1]}/" + "/".join(words[2:]))
        elif words[0] == "print":
            print(words[1], flush=True)
        elif words[0] == "exit":
            os._exit(int(words[1]))
        told = {
            "service": os.environ.get("MESH_SERVICE", ""),
            "instance": os.environ.get("MESH_INSTANCE", ""),
            "version": os.environ.get("MESH_VERSION", ""),
            "greeting": os.environ.get("GREETING", ""),
            "method": self.command,
            "path": self.path,
            "headers": {k.lower(): v for k, v in self.headers.items()},
            "body": body,
            "said": said,
        }
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


def fetch(url: str) -> dict[str, Any]:
    """What an upstream answers: status and body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return {"status": answer.status, "body": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode()}


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
