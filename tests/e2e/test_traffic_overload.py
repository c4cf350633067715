"""A sidecar under more load than its memory can bear: it sheds load, and lives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import admin, answer_http, ask, free_port, outside, stats
from tests.support.cases import make_case
from tests.support.envoy_validate import envoy_path, throwaway_credentials

from meshctl.envoy.static import build_static

pytestmark = pytest.mark.e2e

MEGABYTE = 2**20
HEAP = 48 * MEGABYTE
CONNECTIONS = 150
CLIENTS = 100
PATIENT = 20

TOPOLOGY = """
name: flood
egress: registry_only
services:
  web: {{command: ./web, upstreams: [good, stuck]}}
  good: {{address: "127.0.0.1:{good}"}}
  stuck: {{address: "127.0.0.1:{stuck}", timeout: 60s}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A sidecar, where it listens, and how to ask it for numbers."""

    process: subprocess.Popen[bytes]
    admin: str
    port: int

    def count(self, name: str) -> int:
        """One number of its stats."""
        return stats(self.admin, f"^{name}$").get(name, 0)


@contextmanager
def sidecar(good: int, stuck: int) -> Iterator[Running]:
    """The sidecar of ``web`` with the bootstrap that every sidecar gets, but for little memory and few connections."""
    case = make_case(TOPOLOGY.format(good=good, stuck=stuck))
    outbound = free_port()
    config = json.loads(build_static("web", case.resources(throwaway_credentials())["web"]))
    listeners = config["staticResources"]["listeners"]
    (listener,) = (item for item in listeners if item["name"] == "outbound")
    listener["address"]["socketAddress"]["portValue"] = outbound
    config["staticResources"]["listeners"] = [listener]
    # All that it needs is there; what it tells of requests is decided by a control plane.
    del config["dynamicResources"]
    config["layeredRuntime"]["layers"] = [
        item for item in config["layeredRuntime"]["layers"] if "rtdsLayer" not in item
    ]
    for chain in listener["filterChains"]:
        for network_filter in chain["filters"]:
            network_filter["typedConfig"].pop("accessLog", None)
    heap, connections = config["overloadManager"]["resourceMonitors"]
    heap["typedConfig"]["maxHeapSizeBytes"] = HEAP
    connections["typedConfig"]["maxActiveDownstreamConnections"] = CONNECTIONS
    with tempfile.TemporaryDirectory() as folder:
        config["admin"]["address"]["pipe"]["path"] = f"{folder}/admin"
        (Path(folder) / "envoy.json").write_text(json.dumps(config))
        process = subprocess.Popen(
            [envoy_path(), "-c", f"{folder}/envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
            env=os.environ,
        )
        try:
            wait_until(lambda: Path(f"{folder}/admin").exists() and is_live(f"{folder}/admin"), "it is live")
            yield Running(process, f"{folder}/admin", outbound)
        finally:
            process.kill()
            process.wait()


def is_live(path: str) -> bool:
    """Whether a sidecar serves."""
    with suppress(OSError):
        return admin(path, "/ready").startswith("LIVE")
    return False


def never_read(connection: socket.socket) -> None:
    """Takes a connection, and nothing that comes by it."""
    with suppress(OSError):
        threading.Event().wait(300)
        connection.close()


class Flood:
    """Clients that send long bodies which nobody reads."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        head = b"POST http://stuck/ HTTP/1.1\r\nhost: stuck\r\ncontent-length: 1000000000\r\n\r\n"
        while not self._over.wait(0.02):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5) as connection:
                connection.settimeout(0.2)
                with suppress(TimeoutError):
                    connection.sendall(head)
                    for _ in range(64):
                        connection.sendall(b"x" * MEGABYTE)
                while not self._over.is_set():
                    with suppress(TimeoutError):
                        connection.recv(2000)
                        break


def exchange(connection: socket.socket) -> bytes:
    """What a request on an open connection is answered with."""
    connection.sendall(b"GET http://good/ HTTP/1.1\r\nhost: good\r\n\r\n")
    return connection.recv(2000)


def test_a_sidecar_short_of_memory_sheds_load_and_lives() -> None:
    with ExitStack() as stack:
        good = stack.enter_context(outside(answer_http("good")))
        hanging = stack.enter_context(ExitStack())
        stuck = hanging.enter_context(outside(never_read))
        running = stack.enter_context(sidecar(good, stuck))
        memory = psutil.Process(running.process.pid)
        assert ask(running.port, "http://good/").status == 200
        # Opened before the flood: when it is worst, new connections are closed without a word.
        early = [stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 60)) for _ in range(PATIENT)]
        with Flood(running.port):
            stops = "overload.envoy.overload_actions.stop_accepting_requests.active"

            def is_told() -> bool:
                wait_until(lambda: running.count(stops), "it takes no requests")
                with suppress(OSError):  # it may close a connection as well
                    return b"x-meshctl-overloaded: sidecar" in exchange(early.pop())
                return False

            wait_until(is_told, "it says so")
            assert memory.memory_info().rss < 400 * MEGABYTE, "without a bound, these clients would fill gigabytes"
            assert running.process.poll() is None
        hanging.close()
        wait_until(lambda: is_answered(running.port), "it recovers when the bodies are gone")


def test_a_sidecar_closes_connections_beyond_those_it_can_hold() -> None:
    with ExitStack() as stack:
        good = stack.enter_context(outside(answer_http("good")))
        running = stack.enter_context(sidecar(good, good))
        taken = [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 60)) for _ in range(CONNECTIONS)
        ]
        wait_until(
            lambda: running.count("listener.outbound.downstream_cx_active") == CONNECTIONS, "it holds all it can"
        )
        with socket.create_connection(("127.0.0.1", running.port), 60) as beyond:
            assert beyond.recv(1) == b"", "closed, and not left waiting"
        taken.pop().close()
        wait_until(lambda: is_answered(running.port), "there is room again")


def is_answered(port: int) -> bool:
    """Whether a request is taken."""
    try:
        return ask(port, "http://good/").status == 200
    except OSError:
        return False
