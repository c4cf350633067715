"""What is stopped goes on at its moment, whoever is dead by then."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import psutil
import pytest
from tests.support.keeper import KeeperWorld, open_world, wait_until

from meshctl.adapters.process_identity import read_birth
from meshctl.adapters.processes import KeeperHost
from meshctl.ports import ProcessHandle

TICK = """
import time
with open("ticks", "a") as file:
    while True:
        print(repr(time.time()), file=file, flush=True)
        time.sleep(0.02)
"""
# What it wrote says by its own clock when it ran, however late anybody else was scheduled. No shell: one that is
# stopped between vfork and exec waits for its child without being stopped itself.

FAR = 600.0
NEAR = 2.0
"""Seconds for which it is held: longer than a test takes, and so that it ends within one."""


@pytest.fixture
async def world() -> AsyncIterator[KeeperWorld]:
    async with open_world() as keeper:
        yield keeper


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def watchdogs(pid: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "meshctl.adapters.keeper_watchdog" in words and str(pid) in words:
                found.append(process.pid)
    return found


def ticks(world: KeeperWorld) -> list[float]:
    """When the process ran, by its own clock."""
    try:
        *lines, _begun = (world.folder / "ticks").read_text().split("\n")
    except FileNotFoundError:
        return []
    return [float(line) for line in lines]


async def start(world: KeeperWorld, host: KeeperHost) -> ProcessHandle:
    handle = await host.start(world.spec("a", sys.executable, "-c", TICK))
    await wait_until(lambda: len(ticks(world)) > 3)
    return handle


async def went_on(world: KeeperWorld, held: float, until: float) -> None:
    """Wait until it goes on; fails when it did so while it was to stand still."""
    await wait_until(lambda: ticks(world)[-1] > until)
    # It may have asked for the time just before it was stopped.
    assert [tick for tick in ticks(world) if held + 0.05 < tick < until - 0.01] == []


async def kill_keeper(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: (birth := read_birth(pid)) is None or birth.zombie)


async def test_a_held_process_stands_still_until_its_moment(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await start(world, host)
    until = time.time() + NEAR
    assert await host.hold("a", 1.0, until)
    await went_on(world, time.time(), until)
    await wait_until(lambda: not watchdogs(handle.pid))


async def test_what_lets_it_go_on_before_its_moment_does_not_last(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await start(world, host)
    await host.hold("a", 1.0, time.time() + FAR)
    await wait_until(lambda: is_stopped(handle.pid))
    os.killpg(handle.pid, signal.SIGCONT)
    await wait_until(lambda: is_stopped(handle.pid))
    assert await host.release("a")
    await wait_until(lambda: not is_stopped(handle.pid))


async def test_a_share_of_its_time_is_taken(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.shell("a", "while :; do :; done"))
    process = psutil.Process(handle.pid)
    assert await host.hold("a", 0.9, time.time() + FAR)
    begun, used = time.monotonic(), sum(process.cpu_times()[:2])

    def has_lost_most() -> bool:
        """Without the hold it would use all that the machine gives; a keeper that is late lets it run for as long."""
        passed = time.monotonic() - begun
        return passed > 1 and (sum(process.cpu_times()[:2]) - used) / passed < 0.3

    await wait_until(has_lost_most)
    assert await host.release("a")
    await wait_until(lambda: not is_stopped(handle.pid))


async def test_a_keeper_that_follows_another_holds_on_and_lets_go(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await start(world, host)
    await host.hold("a", 1.0, time.time() + FAR)
    await wait_until(lambda: is_stopped(handle.pid))
    await kill_keeper(host.keeper_pid)
    assert await host.running() == (handle,)
    os.killpg(handle.pid, signal.SIGCONT)
    await wait_until(lambda: is_stopped(handle.pid))
    until = time.time() + NEAR
    await host.hold("a", 1.0, until)
    held = time.time()
    await kill_keeper(host.keeper_pid)
    assert await host.running() == (handle,)
    await went_on(world, held, until)


async def test_a_watchdog_lets_it_go_on_when_everybody_is_dead(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await start(world, host)
    until = time.time() + NEAR
    await host.hold("a", 1.0, until)
    held = time.time()
    keeper = host.keeper_pid
    await host.close(stop=False)
    await kill_keeper(keeper)
    await went_on(world, held, until)
    await wait_until(lambda: not watchdogs(handle.pid))


async def test_a_watchdog_ends_with_its_process(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await start(world, host)
    await host.hold("a", 1.0, time.time() + FAR)
    await wait_until(lambda: bool(watchdogs(handle.pid)))
    await host.signal("a", signal.SIGKILL)
    await wait_until(lambda: not watchdogs(handle.pid))
