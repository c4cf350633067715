"""The catalogue: what the shop sells.  Plain Python, nothing but the standard library, one variable: PORT.

GET /products    GET /products/<sku>    GET /health
"""

import json
import os
import signal
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRODUCTS = {
    product["sku"]: product
    for product in (
        {"sku": "kettle", "name": "Kettle", "price_cents": 3490, "shelf": "A1", "goes_with": ["teapot", "tea"]},
        {"sku": "teapot", "name": "Teapot", "price_cents": 2790, "shelf": "A2", "goes_with": ["tea", "cup"]},
        {"sku": "cup", "name": "Cup", "price_cents": 890, "shelf": "A3", "goes_with": ["teapot", "biscuits"]},
        {"sku": "tea", "name": "Darjeeling, 250 g", "price_cents": 1290, "shelf": "B1", "goes_with": ["biscuits"]},
        {"sku": "biscuits", "name": "Shortbread", "price_cents": 450, "shelf": "B2", "goes_with": ["tea"]},
    )
}


class Catalog(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one send

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/health":
            self.answer(200, {"status": "ok"})
        elif path == "/products":
            self.answer(200, {"products": list(PRODUCTS.values())})
        elif path.startswith("/products/") and path.removeprefix("/products/") in PRODUCTS:
            self.answer(200, PRODUCTS[path.removeprefix("/products/")])
        else:
            self.answer(404, {"error": f"there is no {path}"})

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """No access log."""


class Server(ThreadingHTTPServer):
    """Listens on loopback."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        # HTTPServer would look up its own host name, which can be slow.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Catalog)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever(poll_interval=3600)
    except SystemExit:
        server.socket.close()
        time.sleep(0.1)  # for answers that are being written
        raise


if __name__ == "__main__":
    main()
