"""A mesh in a temporary folder, driven by the command line in processes of its own."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from meshctl.wire.paths import MeshPaths, locate

SERVICES = Path(__file__).parent / "services"
"""Small real services for tests; each listens on $PORT."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class MeshUnderTest:
    """One folder with its mesh. ``close`` takes everything down, whatever state it is in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("MESHCTL_")},
            "NO_COLOR": "1",
            "COLUMNS": "160",
        }
        self._started: list[subprocess.Popen[str]] = []

    @property
    def paths(self) -> MeshPaths:
        """Where the mesh keeps its files and sockets."""
        return locate(str(self.folder.resolve()), environ=self.environ, uid=os.getuid())

    def write(self, topology: dict[str, Any], name: str = "mesh.yaml") -> None:
        """Write a topology file."""
        (self.folder / name).write_text(yaml.safe_dump(topology, sort_keys=False))

    def run(self, *words: str, timeout: float = 180, stdin: str = "") -> Done:
        """Run a command to its end; ``timeout`` only ends what hangs."""
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", *words],
            cwd=self.folder,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, *words: str, timeout: float = 180) -> str:
        """Run a command that has to succeed; its standard output."""
        done = self.run(*words, timeout=timeout)
        assert done.code == 0, f"meshctl {' '.join(words)}: exit {done.code}\n{done.out}\n{done.err}\n{self.daemon_log}"
        return done.out

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and go on; the caller ends it, or ``close`` does after a test that failed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "meshctl", *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def up(self, *words: str) -> None:
        """Bring the mesh up and wait until it is ready."""
        self.must("up", "-d", "--wait", "--wait-timeout", "150s", *words)

    def status(self) -> dict[str, Any]:
        """What ``status -o json`` prints, asked of the control plane itself: a command each is too much."""
        found: dict[str, Any] = json.loads(ask_socket(self.paths.api_socket, "/v1/status"))
        return found

    def service(self, name: str) -> dict[str, Any]:
        """One service of the status."""
        return next(item for item in self.status()["services"] if item["name"] == name)

    def call(self, target: str, *words: str) -> dict[str, Any]:
        """What ``call -o json`` says, whatever the status of the answer."""
        done = self.run("call", "-o", "json", *words, target)
        assert done.out, f"meshctl call {target}: exit {done.code}\n{done.err}"
        found: dict[str, Any] = json.loads(done.out)
        return found

    def processes(self) -> list[psutil.Process]:
        """Every living process that belongs to this mesh: by its tag in the environment, or its runtime folder."""
        mine = []
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
                tagged = f"{self.paths.tag}/" in process.environ().get("MESHCTL_PROCESS", "")
            except (psutil.Error, OSError):
                continue
            if process.pid != os.getpid() and (tagged or self.paths.runtime in words or str(self.folder) in words):
                mine.append(process)
        return mine

    def pids(self) -> dict[str, int]:
        """Pids of instances and sidecars by name."""
        status = self.status()
        found = {i["id"]: i["pid"] for s in status["services"] for i in s["instances"] if i["pid"]}
        found |= {f"sidecar.{s['name']}": s["sidecar"]["pid"] for s in status["services"] if s["sidecar"]}
        if status["gateway"]:
            found["gateway"] = status["gateway"]["sidecar"]["pid"]
        return found

    def kill_daemon(self) -> None:
        """``kill -9`` the control plane."""
        pid = self.status()["daemon_pid"]
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        process.wait(60)

    @property
    def daemon_log(self) -> str:
        """What the control plane wrote."""
        path = Path(self.paths.daemon_log)
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """Take everything down, and end what is left by pid."""
        try:
            for started in self._started:
                _end(started)
            if Path(self.paths.state).exists():
                self.run("down", "--force", timeout=60)
        finally:
            for process in self.processes():
                try:
                    process.kill()
                    process.wait(30)
                except psutil.Error:
                    continue


def _end(started: subprocess.Popen[str]) -> None:
    """End a command if it still runs, and close its pipes: what is left open would fail any later test."""
    if started.poll() is None:
        started.kill()
    started.wait(30)
    for pipe in (started.stdout, started.stderr):
        if pipe is not None:
            pipe.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask_socket(path: str, target: str) -> str:
    """What is answered to a GET over a unix socket."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", target)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


_HANDED_OUT: set[int] = set()


def free_port() -> int:
    """
    A port of loopback on which nobody listens: above those that the system hands out by itself, so that no connection
    takes it meanwhile, none that was handed out before, and none that another worker of this run is given.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.SystemRandom().randrange(61000 + worker % 4, 65500, 4)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _HANDED_OUT:
                _HANDED_OUT.add(port)
                return port


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
    """Return the condition's first true value. Fails the test when there is none in time, which is long on purpose."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {timeout:g} s still not: {what}"
        time.sleep(0.02)
