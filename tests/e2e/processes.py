"""What tests of processes need beside a mesh: steady load, quick looks at its state, what it leaves, a terminal."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from tests.e2e.harness import SERVICES, MeshUnderTest, ask_socket, wait_until
from tests.e2e.harness import free_port as free_port  # noqa: PLC0414 - for those who import it from here

MOODY = [sys.executable, str(SERVICES / "moody.py")]
QUICK = {"health_check": {"path": "/health", "interval": "100ms", "unhealthy_threshold": 10}}
"""A load_balancing section whose active check notices in seconds that a service is sick, and forgives a late answer."""

PATIENT = {"timeout": {"request": "60s", "connect": "30s"}, "circuit_breaker": {"enabled": False}}
"""Defaults under which a machine that stands still for seconds costs no request, and none that failed is remembered."""

_GRACE = "60s"
"""How long services have to end: they do at once, but on a busy machine only once they get to run."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_END = b"\0end\0"


def make_service(**more: Any) -> dict[str, Any]:
    """A service that runs moody.py; upper-case words are its environment."""
    env = {name: value for name, value in more.items() if name.isupper()}
    rest = {name: value for name, value in more.items() if not name.isupper()}
    return {"command": MOODY, "stop_grace": _GRACE, **({"env": env} if env else {}), **rest}


def make_gateway(service: str) -> dict[str, Any]:
    """A gateway on a free port that leads everything to one service."""
    return {"port": free_port(), "routes": [{"path": "/", "service": service}]}


def listens(port: int) -> bool:
    """Whether something takes connections at a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, path: str = "/", timeout: float = 60) -> tuple[int, Any]:
    """Status and JSON (or text) of one GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    with suppress(ValueError):
        return answer.status, json.loads(text)
    return answer.status, text


def answers(port: int) -> bool:
    """Whether something well answers at a port now: behind the gateway's, when it has heard that a service is back."""
    try:
        return ask(port)[0] == 200
    except OSError:
        return False


def look(mesh: MeshUnderTest) -> dict[str, Any]:
    """The status of a mesh as it is now."""
    return mesh.status()


def instances(mesh: MeshUnderTest) -> dict[str, dict[str, Any]]:
    """All instances by id."""
    return {item["id"]: item for service in look(mesh)["services"] for item in service["instances"]}


def sidecars(mesh: MeshUnderTest) -> dict[str, dict[str, Any]]:
    """All sidecars by service."""
    return {service["name"]: service["sidecar"] for service in look(mesh)["services"] if service["sidecar"]}


def pids(mesh: MeshUnderTest) -> dict[str, int]:
    """Pids of instances, sidecars and the gateway by name."""
    return mesh.pids()


def active_requests(mesh: MeshUnderTest, service: str) -> int:
    """Requests that a service's sidecar is handing to its instances now."""
    found = ask_socket(mesh.paths.admin_socket(service), "/stats?filter=^cluster.local/.*upstream_rq_active")
    return sum(int(line.split(": ")[1]) for line in found.splitlines() if ": " in line)


def wait_state(mesh: MeshUnderTest, name: str, **wanted: Any) -> dict[str, Any]:
    """Return an instance once its fields are as wanted."""

    def find() -> dict[str, Any] | None:
        item = instances(mesh).get(name)
        return item if item is not None and all(item[key] == value for key, value in wanted.items()) else None

    found: dict[str, Any] = wait_until(find, f"{name} with {wanted}: {instances(mesh).get(name)}")
    return found


def wait_replaced(mesh: MeshUnderTest, name: str, pid: int) -> None:
    """Return when something runs with another pid."""
    wait_until(lambda: pids(mesh).get(name) not in (None, pid), f"{name} runs again")


def events(mesh: MeshUnderTest) -> list[dict[str, Any]]:
    """What this control plane recorded."""
    return [json.loads(line) for line in mesh.must("events", "-o", "json").splitlines()]


def journal(mesh: MeshUnderTest) -> list[str]:
    """What the services noted, in order."""
    path = mesh.folder / "journal"
    return path.read_text().splitlines() if path.exists() else []


def kill(pid: int) -> None:
    """``kill -9``; returns when the process is gone or a zombie."""
    process = psutil.Process(pid)
    process.kill()
    wait_until(lambda: not is_alive(process), f"the end of {pid}")


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def keeper_of(mesh: MeshUnderTest) -> psutil.Process:
    """The process that owns all others."""
    return next(item for item in mesh.processes() if "meshctl.adapters.keeper" in words_of(item))


def words_of(process: psutil.Process) -> list[str]:
    """The command line of a process; nothing when it has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill_keeper(mesh: MeshUnderTest, *talkers: int) -> None:
    """``kill -9`` the process that owns all others, while it has nothing in hand of what ``talkers`` say.

    What it has read and not written yet is lost with it, as with everybody who is killed.
    """
    keeper, held = keeper_of(mesh), [psutil.Process(pid) for pid in talkers]
    for talker in held:
        talker.suspend()
    try:
        wait_until(lambda: all(talker.status() == psutil.STATUS_STOPPED for talker in held), "nobody talks")
        if sys.platform == "linux":  # elsewhere what waits is called running, too
            wait_until(lambda: keeper.status() == psutil.STATUS_SLEEPING, "the keeper has written what it has read")
        kill(keeper.pid)
    finally:
        for talker in held:
            talker.resume()


def ports_of(mesh: MeshUnderTest) -> set[int]:
    """Every port on which a process of the mesh listens."""
    pids = {process.pid for process in mesh.processes()}
    return {
        entry.laddr[1]
        for entry in psutil.net_connections(kind="tcp")
        if entry.pid in pids and entry.status == psutil.CONN_LISTEN and entry.laddr
    }


def assert_no_trace(mesh: MeshUnderTest, ports: Iterable[int] = ()) -> None:
    """Nothing of the mesh runs or listens, and its runtime folder is gone."""
    left = [" ".join(words_of(process)) or f"pid {process.pid}, ended just now" for process in mesh.processes()]
    assert left == []
    assert not Path(mesh.paths.runtime).exists()
    assert [port for port in ports if listens(port)] == []


class Load:
    """Steady requests on a few kept connections: ``failures`` is everything that was no 200.

    ``answered`` says who answered, of requests that were begun since the last ``count_anew``.
    """

    def __init__(self, port: int, path: str = "/", *, clients: int = 3, pause: float = 0.005) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._count = 0
        self._port, self._path, self._pause = port, path, pause
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait_more()
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def wait_more(self, count: int = 30) -> None:
        """Return when so many more requests were answered or failed."""
        goal = self._count + count
        wait_until(lambda: self._count >= goal, f"{count} more requests")

    def count_anew(self) -> None:
        """Forget who has answered, and leave out who is still to answer what he was asked before."""
        self.answered = Counter()

    def who_answers(self) -> set[str]:
        """Who answers of some requests that are begun from now on."""
        self.count_anew()
        self.wait_more(50)
        return set(self.answered)

    def _work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._ended.is_set():
            answered = self.answered
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            else:
                if answer.status == 200:
                    answered[json.loads(body)["instance"]] += 1
                else:
                    self.failures.append(f"{answer.status} {dict(answer.getheaders())} {body[:300]!r}")
            with self._lock:
                self._count += 1
            self._ended.wait(self._pause)
        connection.close()


class Terminal:
    """A command in a terminal of its own, as a person sees it. ``close`` hangs up."""

    def __init__(self, mesh: MeshUnderTest, *words: str, environ: Mapping[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        # The shell leads a session without a terminal, so that the one it opens becomes its own.
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(slave), sys.executable, "-m", "meshctl", *words],
            cwd=mesh.folder,
            env={**mesh.environ, "TERM": "xterm", "COLUMNS": "140", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._slave = slave  # held so that reading does not end before the command has opened it
        self._bell = os.pipe()
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.hang_up()

    @property
    def text(self) -> str:
        """Everything that was shown, without control sequences."""
        return _ESCAPES.sub("", self._seen.replace(_END, b"").decode(errors="replace"))

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Return when a text has been shown."""
        wait_until(lambda: text in self.text, f"{text!r} in the terminal: {self.text}", timeout)

    def press_interrupt(self) -> None:
        """Ctrl+C."""
        os.write(self._master, b"\x03")

    def hang_up(self) -> None:
        """Close the window."""
        if self._master < 0:
            return
        # The terminal is not closed while somebody reads from it.
        os.write(self._bell[1], b"!")
        self._reader.join(10)
        for descriptor in (self._slave, self._master, *self._bell):
            os.close(descriptor)
        self._master = -1

    def wait(self, timeout: float = 90) -> int:
        """The command's exit code; all that it said is in ``text`` then."""
        code = self.process.wait(timeout)
        if self._master >= 0:
            # Said last, and so read last.
            os.write(self._slave, _END)
            wait_until(lambda: _END in self._seen, "all that was said was read")
        return code

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._master, self._bell[0]], [], [])
            if self._bell[0] in ready:
                return
            self._seen += os.read(self._master, 65536)
