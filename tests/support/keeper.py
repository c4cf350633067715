"""Real keepers for tests: each in a folder of its own, ended with everything that it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil

from meshctl.adapters.processes import KeeperHost
from meshctl.adapters.strays import find_strays, kill_strays
from meshctl.ports import ProcessExit, ProcessSpec
from meshctl.wire.loglines import Line, parse_line


async def wait_until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, seconds: float = 60) -> None:
    """Return as soon as a condition holds; TimeoutError when it does not come to hold."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.005)


class KeeperWorld:
    """One mesh's keeper and the folder that it works in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = f"test-{secrets.token_hex(4)}"
        self.socket = str(folder / "run" / "keeper.sock")
        self.state_dir = folder / "run" / "processes"
        self.keeper_log = folder / "logs" / "keeper.log"
        self.hosts: list[KeeperHost] = []

    async def connect(self, *, idle: float = 60.0) -> KeeperHost:
        """A new control plane's connection."""
        host = KeeperHost(
            socket=self.socket, state_dir=str(self.state_dir), log_path=str(self.keeper_log), tag=self.tag, idle=idle
        )
        self.hosts.append(host)
        await host.open()
        return host

    def spec(self, name: str, *argv: str, env: dict[str, str] | None = None, **changes: object) -> ProcessSpec:
        """How to start a process that runs in the folder, with the PATH of the tests."""
        values = {
            "cwd": str(self.folder),
            "log_path": str(self.log(name)),
            "env": {"PATH": os.environ["PATH"], **(env or {})},
        }
        return ProcessSpec(name=name, argv=argv, **{**values, **changes})  # type: ignore[arg-type]

    def shell(self, name: str, script: str, **changes: object) -> ProcessSpec:
        """How to run a shell script."""
        return self.spec(name, "sh", "-c", script, **changes)  # type: ignore[arg-type]

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.folder / "logs" / f"{name}.log"

    def lines(self, name: str) -> list[Line]:
        """What a process has written so far, as its log says; every whole line must be a log line."""
        try:
            *raw, _begun = self.log(name).read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        parsed = [parse_line(line.decode()) for line in raw]
        assert None not in parsed
        return [line for line in parsed if line is not None]

    def texts(self, name: str) -> list[str]:
        """The text of the lines."""
        return [line.text for line in self.lines(name)]

    async def wait_for_text(self, name: str, text: str) -> None:
        """Return when a process has written a line."""
        await wait_until(lambda: text in self.texts(name))

    async def count_left(self, name: str) -> int:
        """How many processes bear the mark of a process."""
        return sum(stray.name == name for stray in await find_strays(self.tag))

    async def close(self) -> None:
        """End everything."""
        pids = {host.keeper_pid for host in self.hosts}
        for host in self.hosts:
            await host.close(stop=False)
        await kill_strays(await find_strays(self.tag))
        for pid in pids - {None}:
            with contextlib.suppress(psutil.Error):
                if self.socket in (keeper := psutil.Process(pid)).cmdline():
                    keeper.kill()


@contextlib.asynccontextmanager
async def open_world() -> AsyncIterator[KeeperWorld]:
    """A keeper's world; its path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mk-", ignore_cleanup_errors=True) as folder:
        world = KeeperWorld(Path(folder))
        try:
            yield world
        finally:
            await world.close()


class Exits:
    """Takes the exits of a host in the background."""

    def __init__(self, exits: AsyncIterator[ProcessExit]) -> None:
        self.taken: list[ProcessExit] = []
        self._task = asyncio.get_running_loop().create_task(self._take(exits))

    async def _take(self, exits: AsyncIterator[ProcessExit]) -> None:
        async for ended in exits:
            self.taken.append(ended)

    async def wait_for(self, name: str, *, count: int = 1) -> ProcessExit:
        """The ``count``-th exit of a process."""
        found: list[ProcessExit] = []

        def has_come() -> bool:
            found[:] = [ended for ended in self.taken if ended.name == name]
            return len(found) >= count

        await wait_until(has_come)
        return found[count - 1]

    async def wait_closed(self) -> None:
        """Return when there are no more."""
        await asyncio.wait_for(self._task, 60)
