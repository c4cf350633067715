"""What is stopped goes on at its moment, whoever is dead by then."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import psutil
import pytest
from tests.support.keeper import KeeperWorld, open_world, wait_until

from meshctl.adapters.process_identity import read_birth

TICK = "import itertools, time\nfor i in itertools.count(1): print(i, flush=True); time.sleep(0.02)"
# No shell: one that is stopped between vfork and exec waits for its child without being stopped itself.


@pytest.fixture
async def world() -> AsyncIterator[KeeperWorld]:
    async with open_world() as keeper:
        yield keeper


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def watchdogs(pid: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "meshctl.adapters.keeper_watchdog" in words and str(pid) in words:
            found.append(process.pid)
    return found


async def kill_keeper(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: (birth := read_birth(pid)) is None or birth.zombie)


async def test_a_held_process_stands_still_until_its_moment(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.spec("a", sys.executable, "-c", TICK))
    await world.wait_for_text("a", "3")
    assert await host.hold("a", 1.0, time.time() + 3)
    await wait_until(lambda: is_stopped(handle.pid))
    # What it had written before is in its log by now, and nothing comes after it.
    await wait_until(lambda: not is_stopped(handle.pid))
    lines = [line.time for line in world.lines("a")]
    await wait_until(lambda: len(world.lines("a")) > len(lines) + 3)
    times = [line.time for line in world.lines("a")]
    assert max(after - before for before, after in pairwise(times)) > 1.0
    await wait_until(lambda: not watchdogs(handle.pid))


async def test_what_lets_it_go_on_before_its_moment_does_not_last(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.spec("a", sys.executable, "-c", TICK))
    await host.hold("a", 1.0, time.time() + 60)
    await wait_until(lambda: is_stopped(handle.pid))
    os.killpg(handle.pid, signal.SIGCONT)
    await wait_until(lambda: is_stopped(handle.pid))
    assert await host.release("a")
    await wait_until(lambda: not is_stopped(handle.pid))


async def test_a_share_of_its_time_is_taken(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.shell("a", "while :; do :; done"))
    process = psutil.Process(handle.pid)
    assert await host.hold("a", 0.9, time.time() + 60)
    begun, used = time.monotonic(), sum(process.cpu_times()[:2])
    await wait_until(lambda: time.monotonic() - begun > 2)
    share = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - begun)
    assert share < 0.5  # without the hold it would be all that the machine gives
    assert await host.release("a")
    await wait_until(lambda: not is_stopped(handle.pid))


async def test_a_keeper_that_follows_another_holds_on_and_lets_go(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.spec("a", sys.executable, "-c", TICK))
    await host.hold("a", 1.0, time.time() + 6)
    await wait_until(lambda: is_stopped(handle.pid))
    await kill_keeper(host.keeper_pid)
    assert await host.running() == (handle,)
    os.killpg(handle.pid, signal.SIGCONT)
    await wait_until(lambda: is_stopped(handle.pid))
    await wait_until(lambda: not is_stopped(handle.pid))


async def test_a_watchdog_lets_it_go_on_when_everybody_is_dead(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.spec("a", sys.executable, "-c", TICK))
    await host.hold("a", 1.0, time.time() + 6)
    await wait_until(lambda: is_stopped(handle.pid))
    keeper = host.keeper_pid
    await host.close(stop=False)
    await kill_keeper(keeper)
    assert is_stopped(handle.pid)
    assert watchdogs(handle.pid)
    await wait_until(lambda: not is_stopped(handle.pid))
    await wait_until(lambda: not watchdogs(handle.pid))


async def test_a_watchdog_ends_with_its_process(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.spec("a", sys.executable, "-c", TICK))
    await host.hold("a", 1.0, time.time() + 60)
    assert watchdogs(handle.pid)
    await host.signal("a", signal.SIGKILL)
    await wait_until(lambda: not watchdogs(handle.pid))
