"""Runs the command line in this process against a real API server (in a thread) with a fake control plane."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from aiohttp import web
from tests.fakes.backend import FakeBackend

from meshctl.api.server import Runner, serve
from meshctl.cli.app import run
from meshctl.wire.models import CallTarget
from meshctl.wire.paths import MeshPaths, locate

T = TypeVar("T")

TOPOLOGY = """\
name: shop
gateway: {port: 8080, routes: [{path: /, service: frontend}]}
services:
  frontend: {command: python frontend.py, upstreams: [checkout]}
  checkout: {command: python checkout.py, upstreams: [payment]}
  payment: {command: python payment.py}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed and how it ended."""

    stdout: str
    stderr: str
    code: int

    @property
    def shown(self) -> str:
        """Everything, as snapshots compare it."""
        return f"--- exit {self.code}\n--- stdout\n{self.stdout}--- stderr\n{self.stderr}"


class RunCli(Protocol):
    """``run_cli("status", "-o", "wide", width=60)``; ``width`` None is what a pipe sees."""

    def __call__(self, *args: str, width: int | None = None) -> Outcome: ...


class ServedMesh:
    """A fake control plane that answers on the socket of a folder; used from a thread of its own."""

    def __init__(self, paths: MeshPaths, backend: FakeBackend) -> None:
        self.paths = paths
        self.backend = backend
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake control plane")
        self._runner: Runner | None = None

    def start(self) -> None:
        self._thread.start()
        Path(self.paths.runtime).mkdir(parents=True, exist_ok=True)
        self._runner = self.do(serve(self.backend, self.paths.api_socket))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop of the server."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def stop(self) -> None:
        if self._runner is not None:
            self.do(self._runner.close())
        self.do(self._let_go())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _let_go(self) -> None:
        """Close what came while the server was closing: left to the garbage collector, it would fail another test."""
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in list(getattr(self._loop, "_transports", {}).values()):
            transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is the current one, with a clean environment and a runtime directory of its own."""
    for name in [name for name in os.environ if name.startswith("MESHCTL_")]:
        monkeypatch.delenv(name)
    runtime = tempfile.mkdtemp(prefix="mt-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    place = tmp_path / "shop"
    place.mkdir()
    monkeypatch.chdir(place)
    yield place
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def project(folder: Path) -> Path:
    """A folder with a topology, and no mesh running."""
    (folder / "mesh.yaml").write_text(TOPOLOGY)
    return folder


@pytest.fixture
def paths_of(folder: Path) -> Callable[[Path], MeshPaths]:
    """The paths of the mesh of a folder."""
    return lambda place: locate(str(place.resolve()), environ=os.environ, uid=os.getuid())


@pytest.fixture
def served(project: Path, paths_of: Callable[[Path], MeshPaths]) -> Iterator[ServedMesh]:
    """A folder with a topology whose mesh "runs": its control plane is ``served.backend``."""
    mesh = ServedMesh(paths_of(project), FakeBackend())
    mesh.start()
    yield mesh
    mesh.stop()


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """Run a command line in this process."""

    def call(*args: str, width: int | None = None) -> Outcome:
        if width is not None:
            monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(args)
        out, err = capsys.readouterr()
        code = ended.value.code
        return Outcome(out, err, code if isinstance(code, int) else 0 if code is None else 1)

    return call


class Sidecar:
    """A sidecar's outbound listener on a unix socket: keeps requests, answers as told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status = 200
        self.body = b'{"ok": true}'
        self.headers = {"x-meshctl-instance": "payment-v1-1", "x-meshctl-version": "v1"}
        self.hang = False
        self.ended = asyncio.Event()
        self.answer_with = self.answer_at_once

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return await self.answer_with(request)

    async def answer_at_once(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.raw_path, headers, await request.read()))
        if self.hang:
            await self.ended.wait()
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@pytest.fixture
def sidecar(served: ServedMesh, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sidecar]:
    """A mesh whose every sidecar is this one."""
    fake = Sidecar()
    path = f"{served.paths.runtime}/gateway.out"

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", fake.answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        return runner

    runner = served.do(start())
    monkeypatch.setattr(
        served.backend, "call_target", lambda source: CallTarget(source=source, socket=path, host="", port=0)
    )
    yield fake

    async def stop() -> None:
        fake.ended.set()
        await runner.cleanup()

    served.do(stop())
