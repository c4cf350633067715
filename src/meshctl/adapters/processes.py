"""The processes of a mesh, through the keeper (ports.ProcessHost).  I/O.

Enters: ProcessSpecs.  Leaves: handles and exits. The keeper is started when none answers, and started again when it
dies; what was asked of it meanwhile is asked again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import meshctl
from meshctl.adapters.keeper_link import KeeperLink, KeeperLost
from meshctl.adapters.keeper_protocol import ALREADY_LOCKED, MARKER, PROTOCOL
from meshctl.adapters.process_identity import is_same, read_birth
from meshctl.adapters.strays import (
    KILL_SECONDS,
    Scanner,
    explain_unkillable,
    find_strays,
    kill_seen,
    kill_strays,
    select_family,
)
from meshctl.errors import ConflictError, MeshctlError, StartError, WaitTimeoutError
from meshctl.ports import ProcessExit, ProcessHandle, ProcessSpec
from meshctl.tasks import TaskBag

_CONNECT_SECONDS = 10.0
_STEADY_SECONDS = 2.0
_ATTEMPTS = 5
_REMEMBERED_EXITS = 4096

_ExitKey = tuple[str, int, float]


class KeeperHost:
    """Client of one mesh's process keeper.

    Args:
        socket: path of the keeper's unix socket, short enough for the system (104 bytes on macOS).
        state_dir: folder for the keeper's records and FIFOs; made 0700 when it is not there.
        log_path: the keeper's own log.
        tag: names the mesh in the environment of its processes; unique among the meshes of the machine.
        idle: seconds after which a keeper without process and client ends.
    """

    def __init__(self, *, socket: str, state_dir: str, log_path: str, tag: str, idle: float = 60.0) -> None:
        self._socket = socket
        self._state_dir = state_dir
        self._log_path = log_path
        self._tag = tag
        self._idle = idle
        self._tasks = TaskBag(self._fail_task)
        self._scanner = Scanner(self._tasks)
        self._link: asyncio.Future[KeeperLink] | None = None
        self._closing = False
        self._handles: dict[str, ProcessHandle] = {}
        """The process last known by each name, running or not."""
        self._exits: asyncio.Queue[tuple[_ExitKey, ProcessExit] | None] = asyncio.Queue()
        self._seen: OrderedDict[_ExitKey, None] = OrderedDict()
        self._untaken: dict[_ExitKey, ProcessExit] = {}
        self._starting: set[str] = set()
        self._held: dict[str, list[tuple[_ExitKey, ProcessExit]]] = {}
        """Exits of what is being started, until whoever starts it knows its pid."""
        self.keeper_pid: int | None = None

    async def open(self) -> None:
        """
        Connect to the keeper, starting it when none answers.

        Raises:
            StartError: it cannot be started.
            ConflictError: a keeper of another version of meshctl is at work.
        """
        self._link = asyncio.get_running_loop().create_future()
        self._tasks.spawn("keeper", self._supervise())
        try:
            await asyncio.shield(self._link)
        except MeshctlError:
            await self.close(stop=False)
            raise

    async def start(self, spec: ProcessSpec) -> ProcessHandle:
        """
        Start a process. Its exit is told by ``exits`` after this has returned, however soon it comes.

        Raises:
            StartError: it cannot be started; the message says why.
            ConflictError: one of this name runs, or is being started.
        """
        if spec.name in self._starting:
            raise ConflictError(f"{spec.name} is being started")
        self._starting.add(spec.name)
        self._held.setdefault(spec.name, [])
        try:
            return await self._start(spec)
        finally:
            self._starting.discard(spec.name)
            # Not at once: the caller goes on first.
            asyncio.get_running_loop().call_soon(self._release_exits, spec.name)

    async def _start(self, spec: ProcessSpec) -> ProcessHandle:
        arguments = {
            "name": spec.name,
            "token": secrets.token_hex(6),
            "argv": list(spec.argv),
            "env": dict(spec.env),
            "cwd": spec.cwd,
            "log_path": spec.log_path,
            "log_max_bytes": spec.log_max_bytes,
            "log_keep": spec.log_keep,
        }
        for attempt in range(_ATTEMPTS):
            link = await self._linked()
            try:
                if attempt and spec.name not in {handle["name"] for handle in await link.call("list")}:
                    # A keeper that was killed between starting the process and recording it leaves one without record.
                    await self._kill_unrecorded(spec.name)
                return self._remember(await link.call("start", **arguments))
            except KeeperLost:
                await self._lost(link)
        raise self._unstable()

    async def signal(self, name: str, signum: int) -> bool:
        """Send a signal to the whole process group; False when nothing of it is left."""
        return bool(await self._call("signal", name=name, signum=int(signum)))

    async def hold(self, name: str, share: float, until: float) -> bool:
        """
        Take a share of its time (1: all of it) from a process group until a moment; False when it does not run.

        It goes on then whatever happens to this process and to the keeper, and before when it is signalled.
        """
        return bool(await self._call("hold", name=name, share=share, until=until))

    async def release(self, name: str) -> bool:
        """Let a process group that is held go on; False when it is not held."""
        return bool(await self._call("release", name=name))

    async def sweep(self, name: str) -> None:
        """
        SIGKILL whatever is left of the process, its group and its descendants; return when none is left.

        Raises:
            WaitTimeoutError: something outlives SIGKILL for 10 s.
        """
        await self.running()
        deadline = asyncio.get_running_loop().time() + KILL_SECONDS
        delay = 0.002
        family: set[tuple[int, float]] = set()
        while True:
            # Looked for before the first kill, while it still shows who descends from whom.
            left = select_family(
                await self._scanner.scan(),
                marker=f"{self._tag}/{name}",
                leader=self._handles.get(name),
                known=family,
            )
            family.update((seen.pid, seen.started_at) for seen in left)
            await self.signal(name, signal.SIGKILL)
            for seen in left:
                kill_seen(seen)
            if not left and name not in {handle.name for handle in await self.running()}:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise explain_unkillable(left[0]) if left else self._unstable()
            await asyncio.sleep(delay)
            delay = min(2 * delay, 0.2)

    async def running(self) -> tuple[ProcessHandle, ...]:
        """The processes alive now, by name."""
        return tuple(self._remember(handle) for handle in await self._call("list"))

    async def exits(self) -> AsyncIterator[ProcessExit]:
        """
        Exits as they happen, for one reader; ends when the host is closed. An exit counts as taken, and is not told
        to the next control plane, once the reader asks for the one after it.
        """
        while (item := await self._exits.get()) is not None:
            key, ended = item
            yield ended
            self._untaken.pop(key, None)
            await self._acknowledge(key)

    def missed(self) -> tuple[ProcessExit, ...]:
        """Exits that wait to be taken from ``exits``; once this host is open, all that no control plane saw."""
        return tuple(self._untaken.values())

    async def close(self, *, stop: bool) -> None:
        """
        Let go of the keeper; with ``stop``, kill strays of the mesh and end the keeper.

        Raises:
            ConflictError: ``stop`` while processes run; nothing was closed.
            WaitTimeoutError: a stray or the keeper does not end.
        """
        if stop and not self._closing:
            await self._stop_keeper()
        self._closing = True
        if self._link and self._link.done() and not self._link.exception():
            self._link.result().close()
        await self._tasks.close()
        if self._link and not self._link.done():
            self._link.set_exception(ConflictError("the process host is closed"))
            self._link.exception()
        self._exits.put_nowait(None)

    async def _stop_keeper(self) -> None:
        if handles := await self.running():
            names = ", ".join(handle.name for handle in handles)
            raise ConflictError(f"the process keeper cannot end while processes run: {names}")
        pid = self.keeper_pid
        await kill_strays(await find_strays(self._tag, keeper_pid=pid))
        birth = read_birth(pid) if pid else None
        self._closing = True
        await self._call("stop")
        deadline = asyncio.get_running_loop().time() + KILL_SECONDS
        while pid and birth and is_same(pid, birth.token):
            if asyncio.get_running_loop().time() > deadline:
                raise WaitTimeoutError(f"the process keeper (pid {pid}) does not end")
            await asyncio.sleep(0.005)

    async def _call(self, operation: str, **arguments: Any) -> Any:
        for _ in range(_ATTEMPTS):
            link = await self._linked()
            try:
                return await link.call(operation, **arguments)
            except KeeperLost:
                if operation == "stop":
                    return None
                await self._lost(link)
        raise self._unstable()

    async def _linked(self) -> KeeperLink:
        if self._link is None:
            raise ConflictError("the process host is not open")
        return await asyncio.shield(self._link)

    async def _lost(self, link: KeeperLink) -> None:
        """Return when the supervisor, too, has noticed that the connection ended."""
        for _ in range(1000):
            if self._closing:
                raise ConflictError("the process host is closed")
            if not (self._link and self._link.done() and not self._link.exception() and self._link.result() is link):
                return
            await asyncio.sleep(0.001)
        raise self._unstable()

    def _unstable(self) -> StartError:
        return StartError("the process keeper does not stay up", hint=f"Its log says why: {self._log_path}")

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        delay = 0.0
        while not self._closing:
            assert self._link is not None
            begun = loop.time()
            try:
                link, serving = await self._connect()
            except MeshctlError as error:
                self._link.set_exception(error)
                self._link.exception()  # nobody may be waiting for it
            else:
                self._link.set_result(link)
                await serving
                self._link = loop.create_future()
            # One that died is replaced at once; one that does not stay up, less and less often.
            delay = 0.0 if loop.time() - begun > _STEADY_SECONDS else min(max(0.01, 2 * delay), 2.0)
            await asyncio.sleep(delay)
            if self._link.done():  # until now, whoever asked was told at once that there is no keeper
                self._link = loop.create_future()

    async def _connect(self) -> tuple[KeeperLink, asyncio.Task[None]]:
        deadline = asyncio.get_running_loop().time() + _CONNECT_SECONDS
        delay = 0.005
        while True:
            try:
                link = await KeeperLink.connect(self._socket, self._take_event)
            except (FileNotFoundError, ConnectionError):
                self._check_patience(deadline)
                await self._launch()
            except OSError as error:
                raise StartError(f"cannot connect to the process keeper at {self._socket}: {error}") from None
            else:
                serving = self._tasks.spawn("keeper link", link.serve())
                try:
                    await self._greet(link)
                except KeeperLost:
                    await serving
                    self._check_patience(deadline)
                except MeshctlError:
                    link.close()
                    raise
                else:
                    return link, serving
            await asyncio.sleep(delay)
            delay = min(2 * delay, 0.1)

    def _check_patience(self, deadline: float) -> None:
        """Raises StartError when no keeper answers though one had time to; whatever was started is asked once more."""
        if asyncio.get_running_loop().time() > deadline:
            raise StartError(
                f"the process keeper does not answer at {self._socket}",
                hint=f"Its log may say why: {self._log_path}",
            )

    async def _greet(self, link: KeeperLink) -> None:
        hello = await link.call("hello")
        if hello["protocol"] != PROTOCOL:
            raise ConflictError(
                f"the processes of this mesh are kept by another version of meshctl (pid {hello['pid']})",
                hint="Stop the mesh with the version that started it, then start it again.",
            )
        self.keeper_pid = hello["pid"]
        await link.call("subscribe")

    async def _launch(self) -> None:
        """Start a keeper; returns when it, or another one, can be connected to."""
        command = [sys.executable, "-S", "-P", "-X", "utf8", "-m", "meshctl.adapters.keeper"]
        options = ["--socket", self._socket, "--state-dir", self._state_dir, "--log", self._log_path]
        environ = {key: value for key, value in os.environ.items() if key != MARKER and not key.startswith("PYTHON")}
        # Without the site module it starts twice as fast, but does not find the package by itself.
        environ["PYTHONPATH"] = str(Path(meshctl.__file__).parent.parent)
        try:
            Path(self._socket).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            done = await asyncio.to_thread(
                subprocess.run,
                [*command, *options, "--tag", self._tag, "--idle", str(self._idle)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environ,
                cwd="/",
                check=False,
            )
        except OSError as error:
            raise StartError(f"cannot start the process keeper: {error}") from None
        if done.returncode not in (0, ALREADY_LOCKED):
            detail = done.stderr.decode("utf-8", "replace").strip()
            raise StartError("the process keeper did not start", detail=detail)

    def _take_event(self, message: dict[str, Any]) -> None:
        if message.get("event") != "exit":
            return
        key = (message["name"], message["pid"], message["started_at"])
        if key in self._seen:
            if key not in self._untaken:  # its acknowledgement was lost with the connection
                self._tasks.spawn("acknowledge", self._acknowledge(key))
            return
        self._seen[key] = None
        ended = self._untaken[key] = ProcessExit(name=key[0], pid=key[1], code=message["code"])
        if len(self._seen) > _REMEMBERED_EXITS:
            self._seen.popitem(last=False)
        if key[0] not in self._handles or self._handles[key[0]].started_at < key[2]:
            self._handles[key[0]] = ProcessHandle(name=key[0], pid=key[1], started_at=key[2])
        item = (key, ended)
        if key[0] in self._held:
            self._held[key[0]].append(item)
        else:
            self._exits.put_nowait(item)

    def _release_exits(self, name: str) -> None:
        if name in self._starting:  # again, and that start will release them
            return
        for item in self._held.pop(name, []):
            self._exits.put_nowait(item)

    async def _acknowledge(self, key: _ExitKey) -> None:
        link = self._link
        if link is None or not link.done() or link.exception() or self._closing:
            return  # the exit is told again over the next connection, and acknowledged then
        try:
            await link.result().call("ack", name=key[0], pid=key[1])
        except (KeeperLost, MeshctlError):
            return

    async def _kill_unrecorded(self, name: str) -> None:
        strays = await find_strays(self._tag)
        await kill_strays(stray for stray in strays if stray.name == name)

    def _remember(self, handle: dict[str, Any]) -> ProcessHandle:
        known = ProcessHandle(name=handle["name"], pid=handle["pid"], started_at=handle["started_at"])
        self._handles[known.name] = known
        return known

    def _fail_task(self, name: str, error: BaseException) -> None:
        """A task of this object failed, which is a mistake in it: whoever asks next is told."""
        if self._link and not self._link.done():
            self._link.set_exception(MeshctlError(f"the task {name!r} of the process host failed: {error!r}"))
            self._link.exception()
