"""Requests into a mesh under test: as a client beside a sidecar sends them, once or steadily."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.e2e.harness import SERVICES, MeshUnderTest
from tests.e2e.harness import free_port as free_port  # noqa: PLC0414 - for those who import it from here

ECHO = [sys.executable, str(SERVICES / "echo.py")]
LAB = [sys.executable, str(SERVICES / "lab.py")]
GRPC = [sys.executable, str(SERVICES / "grpc_echo.py")]
TCP = [sys.executable, str(SERVICES / "tcp_echo.py")]

PATIENT = {"timeout": {"request": "60s", "connect": "30s"}}
"""Defaults of a mesh in which nothing is too late because the machine does something else for some seconds."""

_TIMEOUT = 60.0
# Seconds; ends what hangs, and nothing that is only slow.


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass(frozen=True, slots=True)
class Map:
    """Where everything of a mesh is, read once: ports hold as long as the mesh runs."""

    mesh: MeshUnderTest
    services: Mapping[str, dict[str, Any]]
    gateway: int
    """The gateway's port; 0 when there is none."""

    since: float
    """When it was read, by the monotonic clock: what is in it was there before."""

    def proxy(self, service: str) -> int:
        """The port of a service's outbound listener, which routes by host name."""
        port: int = self.services[service]["sidecar"]["outbound_port"]
        return port

    def upstream(self, service: str, upstream: str) -> int:
        """The port at which a service finds one of its upstreams."""
        port: int = self.services[service]["upstreams"][upstream]
        return port

    def instance(self, name: str) -> dict[str, Any]:
        """One instance by its id."""
        return next(i for s in self.services.values() for i in s["instances"] if i["id"] == name)

    def own(self, instance: str) -> int:
        """The port at which an instance itself listens."""
        port: int = self.instance(instance)["port"]
        return port

    def stats(self, service: str, pattern: str = "") -> dict[str, int]:
        """The counters and gauges of a service's sidecar."""
        return stats(self.services[service]["sidecar"]["admin_socket"], pattern)


def read_map(mesh: MeshUnderTest) -> Map:
    """The map of a mesh as it is now."""
    status = mesh.status()
    gateway = status["gateway"]
    services = {item["name"]: item for item in status["services"]}
    return Map(mesh, services, gateway["port"] if gateway else 0, time.monotonic())


@contextmanager
def running(topology: dict[str, Any], **environ: str) -> Iterator[MeshUnderTest]:
    """A mesh that is up, in a folder of its own; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        mesh = MeshUnderTest(Path(folder).resolve())
        mesh.environ |= environ
        try:
            mesh.write(topology)
            mesh.up()
            yield mesh
        finally:
            mesh.close()


def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request on a connection of its own. A whole URL as path makes it one to a proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        return _read(connection.getresponse())
    finally:
        connection.close()


def is_reached(port: int, path: str = "/") -> bool:
    """Whether a request is answered with 200 now; nobody may even listen."""
    try:
        return ask(port, path).status == 200
    except OSError:
        return False


def ask_many(port: int, path: str, count: int, *, clients: int = 4) -> list[Answer]:
    """So many requests, one after another on each of a few connections."""
    answers: list[Answer] = []

    def work() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)) as connection:
            for _ in range(count // clients):
                connection.request("GET", path)
                answers.append(_read(connection.getresponse()))

    do_together([work] * clients)
    assert len(answers) == count
    return answers


def ask_together(port: int, paths: Iterable[str]) -> list[Answer]:
    """A request for each path, all at once; answers in the order of the paths."""
    wanted = list(paths)
    answers: dict[int, Answer] = {}

    def work(number: int) -> None:
        answers[number] = ask(port, wanted[number])

    do_together([partial(work, number) for number in range(len(wanted))])
    return [answers[number] for number in range(len(wanted))]


def do_together(work: Sequence[Callable[[], None]]) -> None:
    """Do all of it at once, each in a thread; raises the first thing that went wrong."""
    with ThreadPoolExecutor(max_workers=len(work)) as pool:
        for done in [pool.submit(each) for each in work]:
            done.result()


def ask_until_within(port: int, path: str, bound: float, **more: Any) -> tuple[Answer, float]:
    """
    The first answer that takes less than ``bound`` seconds, and how long it took.

    A bound of the mesh's own holds for each request. That an answer takes longer still only says that the machine did
    something else meanwhile: then it is asked again, and after some times it is no longer the machine.
    """
    for _ in range(8):
        start = time.monotonic()
        answer = ask(port, path, **more)
        taken = time.monotonic() - start
        if taken < bound:
            return answer, taken
    raise AssertionError(f"{path} takes {taken:.2f} s and more, not {bound} s")


class Load:
    """Steady requests while a test changes something; ``failures`` holds everything that was no 200."""

    def __init__(self, port: int, path: str = "/", *, clients: int = 3) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self._port = port
        self._path = path
        self._done = threading.Event()
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        """Requests answered so far."""
        return sum(self.statuses.values())

    def wait_for_more(self, count: int) -> None:
        """Return when so many more requests have been answered."""
        goal = self.count + count
        while self.count < goal and not self.failures:
            self._done.wait(0.005)

    def _work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        # About two hundred requests a second and client: a load, and not a benchmark.
        while not self._done.wait(0.004):
            try:
                connection.request("GET", self._path)
                answer = _read(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            with self._counting:
                self.statuses[answer.status] += 1
            if answer.status != 200:
                self.failures.append(f"{answer.status} {answer.text[:200]}")
        connection.close()


def admin(socket_path: str, path: str) -> str:
    """What a sidecar's admin interface answers to ``GET path``."""
    connection = http.client.HTTPConnection("admin", timeout=_TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_TIMEOUT)
    try:
        connection.sock.connect(socket_path)
        connection.request("GET", path)
        return _read(connection.getresponse()).text
    finally:
        connection.close()


def api(mesh: MeshUnderTest, path: str) -> Any:
    """What the control plane answers to ``GET path``: for conditions to wait for, where a command each is too much."""
    return json.loads(admin(mesh.paths.api_socket, f"/v1{path}"))


def stats(socket_path: str, pattern: str = "") -> dict[str, int]:
    """A sidecar's counters and gauges by name, those that match the pattern."""
    text = admin(socket_path, f"/stats?filter={pattern}" if pattern else "/stats")
    found = (line.rpartition(": ") for line in text.splitlines())
    return {name: int(value) for name, _, value in found if value.isdigit()}


@contextmanager
def outside(handler: Callable[[socket.socket], None], *, port: int = 0) -> Iterator[int]:
    """
    A server outside the mesh, on loopback: every connection is handed to ``handler``; yields its port. At the end
    nothing listens there, and every connection is closed.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", port)))
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                taken.append(connection)
                threading.Thread(target=_hand_over, args=(handler, connection), daemon=True).start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Closing alone does not wake an accept() of another thread.
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)
            for connection in taken:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def answer_http(name: str) -> Callable[[socket.socket], None]:
    """A handler that answers HTTP/1.1 requests with ``name``, the Host and the path that were asked for."""

    def handle(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while first := lines.readline():
                headers = {}
                while (line := lines.readline().strip()) != b"":
                    key, _, value = line.partition(b":")
                    headers[key.strip().lower()] = value.strip()
                if b"host" not in headers:
                    return  # it was cut off
                lines.read(int(headers.get(b"content-length", b"0")))
                said = json.dumps({"name": name, "host": headers[b"host"].decode(), "path": first.split()[1].decode()})
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
                connection.sendall((head + said).encode())

    return handle


def _hand_over(handler: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with connection:
        try:
            handler(connection)
        except OSError:
            return  # the client went away


def _read(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
