"""The contract of ports.ProcessHost, held by the keeper on real processes and by the fake."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from tests.fakes.process_host import Behaviour, FakeMachine, FakeProcessHost
from tests.support.keeper import Exits, KeeperWorld, open_world, wait_until

from meshctl.adapters.processes import KeeperHost
from meshctl.errors import ConflictError, StartError
from meshctl.ports import ProcessHost, ProcessSpec
from meshctl.wire.loglines import Stream, parse_line

TALK: tuple[tuple[Stream, str], ...] = (("stdout", "one"), ("stdout", "two"), ("stderr", "three"))

COMMANDS = {
    "sleeper": Behaviour(output=(("stdout", "ready"),)),
    "ends-0": Behaviour(exit_code=0),
    "ends-3": Behaviour(exit_code=3),
    "stubborn": Behaviour(ignores=frozenset({signal.SIGTERM}), output=(("stdout", "ready"),)),
    "parent": Behaviour(exit_code=0, leaves_child=True),
    "escaper": Behaviour(leaves_detached=True, output=(("stdout", "ready"),)),
    "talker": Behaviour(exit_code=0, output=TALK),
}
SCRIPTS = {
    "sleeper": "echo ready; exec sleep 1000",
    "ends-0": "exit 0",
    "ends-3": "exit 3",
    "stubborn": "trap '' TERM; echo ready; while :; do sleep 1000; done",
    "parent": "sleep 1000 & exit 0",
    "escaper": "setsid sh -c 'echo ready; sleep 1000' & exec sleep 1000",
    "talker": "echo one; echo two; echo three >&2",
}


class World(Protocol):
    """What the contract is tried on."""

    async def connect(self) -> ProcessHost: ...

    def command(self, name: str, command: str) -> ProcessSpec: ...

    async def count_left(self, name: str) -> int: ...


class FakeWorld:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = FakeMachine(commands=COMMANDS, folders=frozenset({str(folder)}))

    async def connect(self) -> FakeProcessHost:
        return FakeProcessHost(self.machine)

    def command(self, name: str, command: str) -> ProcessSpec:
        path = str(self.folder / f"{name}.log")
        return ProcessSpec(name=name, argv=(command,), env={}, cwd=str(self.folder), log_path=path)

    async def count_left(self, name: str) -> int:
        return self.machine.count_left(name)


class RealWorld:
    def __init__(self, keeper: KeeperWorld) -> None:
        self.keeper = keeper
        bin_dir = keeper.folder / "bin"
        bin_dir.mkdir()
        for name, script in SCRIPTS.items():
            path = bin_dir / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o700)
        self.path = f"{bin_dir}:/usr/bin:/bin"

    async def connect(self) -> KeeperHost:
        return await self.keeper.connect()

    def command(self, name: str, command: str) -> ProcessSpec:
        return self.keeper.spec(name, command, env={"PATH": self.path})

    async def count_left(self, name: str) -> int:
        return await self.keeper.count_left(name)


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld(tmp_path)
        return
    async with open_world() as keeper:
        yield RealWorld(keeper)


def read_texts(spec: ProcessSpec) -> list[tuple[str, str]]:
    try:
        raw = Path(spec.log_path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [(line.stream, line.text) for line in map(parse_line, raw) if line]


async def start_ready(host: ProcessHost, spec: ProcessSpec) -> int:
    handle = await host.start(spec)
    await wait_until(lambda: ("stdout", "ready") in read_texts(spec))
    return handle.pid


async def wait_left(world: World, name: str, count: int) -> None:
    """Return when so many processes bear a name; one that becomes another program does not for a moment."""

    async def are_left() -> bool:
        return await world.count_left(name) >= count

    await wait_until(are_left)


async def names(host: ProcessHost) -> list[str]:
    return [handle.name for handle in await host.running()]


async def test_what_was_started_is_running_by_name(world: World) -> None:
    host = await world.connect()
    assert await host.running() == ()
    b = await host.start(world.command("b", "sleeper"))
    a = await host.start(world.command("sidecar.a", "sleeper"))
    assert await host.running() == (b, a)
    assert (a.name, a.pid != b.pid) == ("sidecar.a", True)


@pytest.mark.parametrize(("command", "code"), [("ends-0", 0), ("ends-3", 3)])
async def test_an_exit_is_told_once_with_its_code(world: World, command: str, code: int) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    handle = await host.start(world.command("a", command))
    ended = await exits.wait_for("a")
    assert (ended.pid, ended.code) == (handle.pid, code)
    assert await host.running() == ()
    await host.close(stop=True)
    await exits.wait_closed()
    assert exits.taken == [ended]


async def test_an_exit_is_told_after_the_start_has_returned(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    for number in range(10):
        await host.start(world.command(f"a{number}", "ends-0"))
        assert all(ended.name != f"a{number}" for ended in exits.taken)
    await exits.wait_for("a9")


async def test_a_signal_ends_a_process_with_its_negative_number(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await start_ready(host, world.command("a", "sleeper"))
    assert await host.signal("a", signal.SIGTERM)
    assert (await exits.wait_for("a")).code == -signal.SIGTERM


async def test_a_process_may_ignore_sigterm_but_not_sigkill(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await start_ready(host, world.command("a", "stubborn"))
    assert await host.signal("a", signal.SIGTERM)
    assert await host.signal("a", 0)
    assert await names(host) == ["a"]
    assert await host.signal("a", signal.SIGKILL)
    assert (await exits.wait_for("a")).code == -signal.SIGKILL


async def test_a_signal_to_nobody_is_false(world: World) -> None:
    host = await world.connect()
    assert not await host.signal("never", signal.SIGTERM)
    exits = Exits(host.exits())
    await host.start(world.command("a", "ends-0"))
    await exits.wait_for("a")
    assert not await host.signal("a", signal.SIGTERM)


async def test_a_signal_reaches_the_group_after_its_leader_has_ended(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await host.start(world.command("a", "parent"))
    await exits.wait_for("a")
    assert await host.signal("a", 0)
    assert await host.signal("a", signal.SIGTERM)

    async def is_gone() -> bool:
        return not await host.signal("a", 0)

    await wait_until(is_gone)


async def test_a_name_runs_once_at_a_time(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    first = await host.start(world.command("a", "sleeper"))
    with pytest.raises(ConflictError, match="a runs already"):
        await host.start(world.command("a", "sleeper"))
    await host.signal("a", signal.SIGKILL)
    assert (await exits.wait_for("a")).pid == first.pid
    second = await host.start(world.command("a", "sleeper"))
    assert await host.running() == (second,)


async def test_what_cannot_be_started_says_why_and_leaves_the_name_free(world: World) -> None:
    host = await world.connect()
    with pytest.raises(StartError, match="command not found: pythn"):
        await host.start(world.command("a", "pythn"))
    with pytest.raises(StartError, match="no such folder: /nowhere"):
        await host.start(replace(world.command("a", "sleeper"), cwd="/nowhere"))
    assert await host.running() == ()
    await host.start(world.command("a", "sleeper"))
    assert await names(host) == ["a"]


@pytest.mark.parametrize("command", ["sleeper", "stubborn", "escaper"])
async def test_after_a_sweep_nothing_is_left(world: World, command: str) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await start_ready(host, world.command("a", command))
    await wait_left(world, "a", 1)
    await host.sweep("a")
    assert await world.count_left("a") == 0
    assert await host.running() == ()
    assert (await exits.wait_for("a")).code == -signal.SIGKILL


async def test_a_sweep_finds_what_an_ended_process_left(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await host.start(world.command("a", "parent"))
    await exits.wait_for("a")
    await start_ready(host, world.command("b", "escaper"))
    await host.signal("b", signal.SIGKILL)
    await exits.wait_for("b")
    await wait_left(world, "a", 1)
    await wait_left(world, "b", 1)
    for name in ("a", "b"):
        await host.sweep(name)
        assert await world.count_left(name) == 0


async def test_a_sweep_leaves_others_alone(world: World) -> None:
    host = await world.connect()
    await start_ready(host, world.command("a", "escaper"))
    await start_ready(host, world.command("ab", "escaper"))
    await host.sweep("a")
    await host.sweep("never")
    assert await names(host) == ["ab"]
    await wait_left(world, "ab", 2)


async def test_output_is_in_the_log_when_the_exit_is_told(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    spec = world.command("a", "talker")
    await host.start(spec)
    await exits.wait_for("a")
    assert read_texts(spec) == list(TALK)


async def test_a_new_control_plane_finds_what_runs_and_the_exits_it_missed(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    handle = await host.start(world.command("a", "sleeper"))
    await host.start(world.command("taken", "ends-0"))
    await host.start(world.command("mark", "ends-0"))
    await exits.wait_for("taken")
    await exits.wait_for("mark")
    await host.start(world.command("missed", "sleeper"))
    await host.close(stop=False)
    other = await world.connect()
    await other.sweep("missed")
    await other.close(stop=False)

    third = await world.connect()
    assert [(ended.name, ended.code) for ended in third.missed()] == [("missed", -signal.SIGKILL)]
    missed = Exits(third.exits())
    assert await third.running() == (handle,)
    ended = await missed.wait_for("missed")
    assert ended.code == -signal.SIGKILL
    assert "taken" not in {ended.name for ended in missed.taken}
    assert await third.signal("a", signal.SIGTERM)
    assert (await missed.wait_for("a")).pid == handle.pid


async def test_the_host_is_ended_only_when_nothing_runs(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await start_ready(host, world.command("b", "sleeper"))
    await start_ready(host, world.command("a", "escaper"))
    with pytest.raises(ConflictError, match="cannot end while processes run: a, b"):
        await host.close(stop=True)
    for name in ("a", "b"):
        await host.signal(name, signal.SIGKILL)
        await exits.wait_for(name)
    await host.close(stop=True)
    await exits.wait_closed()
    assert await world.count_left("a") == 0


async def test_a_host_that_was_ended_remembers_no_exit(world: World) -> None:
    host = await world.connect()
    await start_ready(host, world.command("a", "sleeper"))
    await host.sweep("a")
    await host.close(stop=True)
    other = await world.connect()
    exits = Exits(other.exits())
    await other.start(world.command("b", "ends-0"))
    await exits.wait_for("b")
    assert [ended.name for ended in exits.taken] == ["b"]


async def test_a_closed_host_says_so(world: World) -> None:
    host = await world.connect()
    await host.close(stop=False)
    await host.close(stop=False)
    with pytest.raises(ConflictError, match="closed"):
        await host.running()


async def test_a_process_is_held_while_it_runs_and_let_go(world: World) -> None:
    host = await world.connect()
    await start_ready(host, world.command("a", "sleeper"))
    assert await host.hold("a", 1.0, time.time() + 60)
    assert await names(host) == ["a"]
    assert await host.release("a")
    assert not await host.release("a")
    assert not await host.hold("nobody", 1.0, time.time() + 60)


async def test_what_is_held_takes_a_signal_at_once(world: World) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await start_ready(host, world.command("a", "sleeper"))
    assert await host.hold("a", 1.0, time.time() + 60)
    assert await host.signal("a", signal.SIGTERM)
    assert (await exits.wait_for("a")).code == -signal.SIGTERM
    assert not await host.hold("a", 1.0, time.time() + 60)
