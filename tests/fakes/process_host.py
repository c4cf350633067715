"""A process host in memory: behaves like adapters.processes.KeeperHost, on processes that are only described.

A :class:`FakeMachine` is the operating system and the keeper in one; it outlives the :class:`FakeProcessHost`, which
stands for one control plane's connection to it. tests/contracts holds both hosts to the same rules.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from meshctl.errors import ConflictError, StartError
from meshctl.ports import ProcessExit, ProcessHandle, ProcessSpec
from meshctl.wire.loglines import Stream, format_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a command does: it prints, and ends with ``exit_code``, or runs until a signal ends it when that is None.

    ``ignores``: signals that do nothing. ``leaves_child``: a child in its process group goes on after it.
    ``leaves_detached``: a descendant in a session of its own goes on, which no signal to the group reaches.
    """

    exit_code: int | None = None
    output: tuple[tuple[Stream, str], ...] = ()
    ignores: frozenset[int] = frozenset()
    leaves_child: bool = False
    leaves_detached: bool = False


@dataclass(slots=True, kw_only=True)
class FakeProcess:
    """One process of the machine, with what it left behind."""

    spec: ProcessSpec
    behaviour: Behaviour
    handle: ProcessHandle
    code: int | None = None
    alive: bool = True
    child: bool = False
    detached: bool = False
    held: float = 0.0
    held_until: float = 0.0


@dataclass(slots=True, kw_only=True)
class FakeMachine:
    """Processes, and the exits that no control plane took note of.

    Args:
        commands: what each ``argv[0]`` does; one that is missing here does not exist. None: every command exists and
            runs until it is signalled.
        folders: working folders that exist; None: all of them.
        now: the time at which processes start.
    """

    commands: Mapping[str, Behaviour] | None = None
    folders: frozenset[str] | None = None
    now: Callable[[], float] = lambda: 1_700_000_000.0
    processes: dict[str, FakeProcess] = field(default_factory=dict)
    """The latest process of each name."""
    started: list[ProcessSpec] = field(default_factory=list)
    signals: list[tuple[str, int]] = field(default_factory=list)
    """Every signal that reached somebody, in order."""
    unacked: dict[int, ProcessExit] = field(default_factory=dict)
    hosts: list[FakeProcessHost] = field(default_factory=list)
    next_pid: int = 1000
    on_start: Callable[[str], None] = lambda _name: None
    """Is told of every start: for a process that is to do something."""

    def run(self, spec: ProcessSpec) -> FakeProcess:
        """Start a process, as ports.ProcessHost.start says."""
        previous = self.processes.get(spec.name)
        if previous and previous.alive:
            raise ConflictError(f"{spec.name} runs already, as pid {previous.handle.pid}")
        if self.folders is not None and spec.cwd not in self.folders:
            raise StartError(f"no such folder: {spec.cwd}")
        if self.commands is not None and spec.argv[0] not in self.commands:
            raise StartError(f"command not found: {spec.argv[0]}")
        behaviour = self.commands[spec.argv[0]] if self.commands is not None else Behaviour()
        self.next_pid += 1
        process = FakeProcess(
            spec=spec,
            behaviour=behaviour,
            handle=ProcessHandle(name=spec.name, pid=self.next_pid, started_at=self.now()),
            child=behaviour.leaves_child,
            detached=behaviour.leaves_detached or bool(previous and previous.detached),
        )
        self.processes[spec.name] = process
        self.started.append(spec)
        self.on_start(spec.name)
        if behaviour.output:
            with Path(spec.log_path).open("a") as log:
                log.writelines(format_line(self.now(), stream, text) for stream, text in behaviour.output)
        return process

    def finish(self, name: str, code: int | None) -> None:
        """The process ends: ``code`` as in ports.ProcessExit."""
        process = self.processes[name]
        assert process.alive, f"{name} has ended already"
        process.alive, process.code = False, code
        ended = ProcessExit(name=name, pid=process.handle.pid, code=code)
        self.unacked[ended.pid] = ended
        for host in self.hosts:
            host.tell(ended)

    def finish_itself(self, process: FakeProcess) -> None:
        """The process comes to its own end, unless something ended it before."""
        if process.alive:
            self.finish(process.spec.name, process.behaviour.exit_code)

    def signal(self, name: str, signum: int) -> bool:
        """Signal a group, as ports.ProcessHost.signal says."""
        process = self.processes.get(name)
        if process is None or not (process.alive or process.child):
            return False
        self.signals.append((name, signum))
        if signum == 0:
            return True
        process.child = False
        process.held = 0.0
        if process.alive and (signum == signal.SIGKILL or signum not in process.behaviour.ignores):
            self.finish(name, -signum)
        return True

    def kill_family(self, name: str) -> None:
        """End a process and all that it left, as ports.ProcessHost.sweep says."""
        self.signal(name, signal.SIGKILL)
        if name in self.processes:
            self.processes[name].detached = False

    def count_left(self, name: str) -> int:
        """How many processes there are of this name: itself, in its group, and outside of it."""
        process = self.processes.get(name)
        return process.alive + process.child + process.detached if process else 0


class FakeProcessHost:
    """Implements ports.ProcessHost on a FakeMachine; its own one when none is given."""

    def __init__(self, machine: FakeMachine | None = None) -> None:
        self.machine = machine or FakeMachine()
        self._exits: asyncio.Queue[ProcessExit | None] = asyncio.Queue()
        self._untaken: list[ProcessExit] = []
        self._closed = False
        self.machine.hosts.append(self)
        for ended in self.machine.unacked.values():
            self.tell(ended)

    def tell(self, ended: ProcessExit) -> None:
        """The machine's news of an exit."""
        self._untaken.append(ended)
        self._exits.put_nowait(ended)

    async def start(self, spec: ProcessSpec) -> ProcessHandle:
        self._check_open()
        process = self.machine.run(replace(spec, argv=tuple(spec.argv)))
        if process.behaviour.exit_code is not None:
            asyncio.get_running_loop().call_soon(self.machine.finish_itself, process)
        return process.handle

    async def signal(self, name: str, signum: int) -> bool:
        self._check_open()
        return self.machine.signal(name, signum)

    async def hold(self, name: str, share: float, until: float) -> bool:
        self._check_open()
        process = self.machine.processes.get(name)
        if process is None or not process.alive:
            return False
        process.held, process.held_until = share, until
        return True

    async def release(self, name: str) -> bool:
        self._check_open()
        process = self.machine.processes.get(name)
        held = process is not None and process.alive and process.held > 0
        if process is not None:
            process.held = 0.0
        return held

    async def sweep(self, name: str) -> None:
        self._check_open()
        self.machine.kill_family(name)

    async def running(self) -> tuple[ProcessHandle, ...]:
        self._check_open()
        return tuple(process.handle for _, process in sorted(self.machine.processes.items()) if process.alive)

    async def exits(self) -> AsyncIterator[ProcessExit]:
        while (ended := await self._exits.get()) is not None:
            yield ended
            self._untaken.remove(ended)
            if not self._closed:
                self.machine.unacked.pop(ended.pid, None)

    def missed(self) -> tuple[ProcessExit, ...]:
        return tuple(self._untaken)

    async def close(self, *, stop: bool) -> None:
        if stop and (handles := await self.running()):
            names = ", ".join(handle.name for handle in handles)
            raise ConflictError(f"the process keeper cannot end while processes run: {names}")
        if stop:
            self.machine.unacked.clear()
            for process in self.machine.processes.values():
                process.child = process.detached = False
        if not self._closed:
            self._closed = True
            self.machine.hosts.remove(self)
            self._exits.put_nowait(None)

    def _check_open(self) -> None:
        if self._closed:
            raise ConflictError("the process host is closed")
