"""A service whose moods a test sets, by its environment and by files in its working folder.

Environment: ``NAP`` seconds before it listens, ``TICK`` seconds between numbered lines, ``STUBBORN`` ignores SIGTERM,
``BROOD`` starts descendants that leave its process group, ``FLOOD`` lines at its start, ``JOB`` ends instead of
serving. Files: ``<instance>.sick`` fails ``/health``, ``<instance>.dying`` fails ``/alive``; what it does is added to
``journal``. Paths: ``/wait/<file>`` answers once there is such a file, ``/print/<word>``, ``/exit/<code>``; anything
else says who answers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

SERVICE = os.environ["MESH_SERVICE"]
INSTANCE = os.environ["MESH_INSTANCE"]
SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        words = self.path.strip("/").split("/")
        status = 200
        if words[0] == "wait":
            while not Path(words[1]).exists():
                time.sleep(0.02)
        elif words[0] == "print":
            print(words[1], flush=True)
        elif words[0] == "exit":
            os._exit(int(words[1]))
        elif words[0] in ("health", "alive"):
            mood = "sick" if words[0] == "health" else "dying"
            status = 503 if Path(f"{INSTANCE}.{mood}").exists() else 200
        told = {"service": SERVICE, "instance": INSTANCE, "pid": os.getpid(), "greeting": os.environ.get("GREETING")}
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    daemon_threads = True
    request_queue_size = 256


def note(what: str) -> None:
    """Add a line to the journal, whole."""
    with Path("journal").open("a") as journal:
        journal.write(f"{SERVICE} {what}\n")


def tick(seconds: float) -> None:
    """Print numbered lines for ever, each at one go."""
    for number in count():
        sys.stdout.write(f"tick {number}\n")
        sys.stdout.flush()
        time.sleep(seconds)


def flood(lines: int) -> None:
    """Print so many long lines, as fast as they are taken."""
    with open(1, "w", closefd=False) as out:
        out.writelines(f"flood {number:06} {'x' * 1000}\n" for number in range(lines))


def breed() -> None:
    """Leave a descendant in a session of its own, and one that lost its environment too."""
    for environ in (dict(os.environ), {}):
        subprocess.Popen([sys.executable, "-c", SLEEPER, str(Path.cwd())], env=environ, start_new_session=True)


def end(*_: object) -> None:
    """Go at once, and say so."""
    note("ends")
    os._exit(0)


def main() -> None:
    """Serve, or do a job."""
    # First, as whoever reads that it begins may have it stopped.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "STUBBORN" in os.environ else end)
    note("begins")
    flood(int(os.environ.get("FLOOD", "0")))
    if "BROOD" in os.environ:
        breed()
    time.sleep(float(os.environ.get("NAP", "0")))
    if "JOB" in os.environ:
        note("is done")
        sys.exit(int(os.environ["JOB"]))
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
    note("listens")
    if "TICK" in os.environ:
        threading.Thread(target=tick, args=(float(os.environ["TICK"]),), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
