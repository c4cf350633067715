"""Whatever is killed, at whatever moment: no process stops, no line and no exit code is lost without need."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.support.keeper import Exits, KeeperWorld, open_world, wait_until

from meshctl.adapters import processes
from meshctl.adapters.process_identity import read_birth
from meshctl.adapters.processes import KeeperHost
from meshctl.adapters.strays import find_strays
from meshctl.errors import MeshctlError, StartError

COUNT = (
    'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo "$i"; echo "e$i" >&2; sleep 0.002; done; echo end; exec sleep 1000'
)


@pytest.fixture
async def world() -> AsyncIterator[KeeperWorld]:
    async with open_world() as keeper:
        yield keeper


async def kill_keeper(host: KeeperHost) -> int:
    """kill -9 of the keeper; returns its pid when it is gone."""
    pid = host.keeper_pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: (birth := read_birth(pid)) is None or birth.zombie)
    return pid


async def test_processes_and_their_output_survive_the_keeper(world: KeeperWorld) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    handle = await host.start(world.shell("a", COUNT))
    await world.wait_for_text("a", "50")
    killed = await kill_keeper(host)
    assert await host.running() == (handle,)
    assert host.keeper_pid != killed
    await world.wait_for_text("a", "end")
    await world.wait_for_text("a", "e400")
    # Only what the keeper had read of one stream, and not written yet, may be missing: lines that follow one another.
    lost: list[list[int]] = []
    for expected, stream in (("{}", "stdout"), ("e{}", "stderr")):
        texts = [line.text for line in world.lines("a") if line.stream == stream]
        missing = [number for number in range(1, 401) if expected.format(number) not in texts]
        assert not missing or missing == list(range(missing[0], missing[-1] + 1))
        lost += [missing] if missing else []
        assert len(texts) == len(set(texts))
    assert len(lost) <= 1
    assert exits.taken == []
    await host.signal("a", signal.SIGTERM)
    assert (await exits.wait_for("a")).code is None


async def test_output_written_while_no_keeper_runs_is_captured(world: KeeperWorld) -> None:
    host = await world.connect()
    go, done = world.folder / "go", world.folder / "done"
    script = (
        f"echo before; until [ -e {go} ]; do sleep 0.01; done; echo during; echo more >&2; : > {done}; exec sleep 99"
    )
    handle = await host.start(world.shell("a", script))
    await world.wait_for_text("a", "before")
    await host.close(stop=False)
    await kill_keeper(host)
    go.touch()
    await wait_until(done.exists)
    assert world.texts("a") == ["before"]
    other = await world.connect()
    await world.wait_for_text("a", "during")
    await world.wait_for_text("a", "more")
    assert await other.running() == (handle,)


async def test_an_exit_that_no_keeper_saw_is_told_without_its_code(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.shell("a", "exec sleep 1000"))
    await host.close(stop=False)
    await kill_keeper(host)
    os.kill(handle.pid, signal.SIGKILL)
    other = await world.connect()
    ended = await Exits(other.exits()).wait_for("a")
    assert (ended.pid, ended.code) == (handle.pid, None)
    assert await other.running() == ()


async def test_an_exit_that_was_not_taken_survives_the_keeper(world: KeeperWorld) -> None:
    host = await world.connect()
    await host.start(world.shell("a", "exit 7"))

    async def has_ended() -> bool:
        return await host.running() == ()

    await wait_until(has_ended)
    await kill_keeper(host)
    await host.running()
    await host.close(stop=False)
    other = await world.connect()
    assert (await Exits(other.exits()).wait_for("a")).code == 7


async def test_an_exit_that_was_taken_is_not_told_after_the_keeper_died(world: KeeperWorld) -> None:
    host = await world.connect()
    exits = Exits(host.exits())
    await host.start(world.shell("a", "exit 7"))
    await exits.wait_for("a")
    await wait_until(lambda: not list(world.state_dir.glob("a.*")))
    await kill_keeper(host)
    await host.start(world.shell("b", "exit 8"))
    await exits.wait_for("b")
    assert [ended.name for ended in exits.taken] == ["a", "b"]


async def test_requests_in_flight_are_asked_again(world: KeeperWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    # One that does not stay up is replaced as soon as one that did.
    monkeypatch.setattr(processes, "_STEADY_SECONDS", -1.0)
    host = await world.connect()
    for number in range(8):
        pid = host.keeper_pid
        assert pid
        starting = asyncio.ensure_future(host.start(world.shell(f"a{number}", "exec sleep 1000")))
        for _ in range(number):
            await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        handle = await starting
        assert psutil.pid_exists(handle.pid)
    running = await host.running()
    assert [handle.name for handle in running] == [f"a{number}" for number in range(8)]
    # Each once, though a keeper may have started one that it had no time to record.
    # (One that becomes another program shows no mark for a moment.)
    expected = sorted(handle.pid for handle in running)

    async def are_those_that_run() -> bool:
        return sorted(stray.pid for stray in await find_strays(world.tag)) == expected

    await wait_until(are_those_that_run)


async def test_a_pid_that_was_used_again_is_neither_adopted_nor_signalled(world: KeeperWorld) -> None:
    host = await world.connect()
    handle = await host.start(world.shell("a", "exec sleep 1000"))
    await host.close(stop=False)
    await kill_keeper(host)
    (record,) = world.state_dir.glob("a.*.json")
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "birth": "of another process"}))
    other = await world.connect()
    assert await other.running() == ()
    assert (await Exits(other.exits()).wait_for("a")).code is None
    assert not await other.signal("a", signal.SIGKILL)
    assert psutil.Process(handle.pid).status() != psutil.STATUS_ZOMBIE


async def test_records_that_cannot_be_read_are_passed_over(world: KeeperWorld) -> None:
    world.state_dir.mkdir(parents=True)
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"name": "c"}')):
        (world.state_dir / f"{name}.0123456789ab.json").write_text(content)
    os.mkfifo(world.state_dir / "d.0123456789ab.stdout")
    host = await world.connect()
    assert await host.running() == ()
    assert [path.name for path in world.state_dir.iterdir()] == ["keeper.lock"]


async def test_a_socket_left_behind_is_replaced(world: KeeperWorld) -> None:
    Path(world.socket).parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(world.socket)
    host = await world.connect()
    assert await host.running() == ()


async def test_control_planes_that_come_at_once_share_one_keeper(world: KeeperWorld) -> None:
    hosts = await asyncio.gather(*(world.connect() for _ in range(4)))
    assert len({host.keeper_pid for host in hosts}) == 1
    handle = await hosts[0].start(world.shell("a", "exec sleep 1000"))
    for host in hosts:
        assert await host.running() == (handle,)


async def test_a_keeper_that_takes_long_to_start_is_asked_all_the_same(
    world: KeeperWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_CONNECT_SECONDS", 0.5)
    launch = KeeperHost._launch

    async def launch_slowly(host: KeeperHost) -> None:
        await launch(host)
        await asyncio.sleep(0.6)

    monkeypatch.setattr(KeeperHost, "_launch", launch_slowly)
    assert await (await world.connect()).running() == ()


async def test_a_keeper_that_cannot_start_says_why(world: KeeperWorld) -> None:
    world.socket = str(world.folder / ("long" * 40) / "keeper.sock")
    with pytest.raises(StartError, match="keeper"):
        await world.connect()


async def test_the_keeper_ignores_signals_to_end(world: KeeperWorld) -> None:
    host = await world.connect()
    pid = host.keeper_pid
    assert pid
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, signum)
    await wait_until(lambda: world.keeper_log.read_text().count("ignores SIG") == 3)
    handle = await host.start(world.shell("a", "exec sleep 1000"))
    assert host.keeper_pid == pid
    # What the keeper ignores, its processes do not.
    assert await host.signal("a", signal.SIGHUP)
    ended = await Exits(host.exits()).wait_for("a")
    assert (ended.pid, ended.code) == (handle.pid, -signal.SIGHUP)


async def test_a_keeper_with_nothing_to_keep_ends(world: KeeperWorld) -> None:
    host = await world.connect(idle=0.05)
    await host.start(world.shell("a", "exec sleep 1000"))
    pid = host.keeper_pid
    assert pid
    await host.close(stop=False)
    other = await world.connect(idle=0.05)
    assert other.keeper_pid == pid
    await other.sweep("a")
    await other.close(stop=False)
    await wait_until(lambda: (birth := read_birth(pid)) is None or birth.zombie)
    assert not Path(world.socket).exists()


async def test_stopping_leaves_no_process_and_no_socket(world: KeeperWorld) -> None:
    host = await world.connect()
    pid = host.keeper_pid
    assert pid
    await host.start(world.shell("a", "env -i setsid sleep 1000 > /dev/null 2>&1 & exit 0"))
    await Exits(host.exits()).wait_for("a")
    # It dropped its mark, its session and its parent; as an orphan it came to the keeper.
    await wait_until(lambda: len(psutil.Process(pid).children()) == 1)
    (orphan,) = psutil.Process(pid).children()
    await host.close(stop=True)
    for ended in (orphan.pid, pid):
        birth = read_birth(ended)
        assert birth is None or birth.zombie
    assert not Path(world.socket).exists()


async def test_what_a_client_sends_harms_nobody(world: KeeperWorld) -> None:
    host = await world.connect()

    async def ask(raw: bytes) -> dict[str, object]:
        reader, writer = await asyncio.open_unix_connection(world.socket)
        for piece in (raw[:3], raw[3:]):
            writer.write(piece)
            await writer.drain()
        answer = await reader.readline()
        writer.close()
        return json.loads(answer) if answer else {}

    for raw in (b"not json\n", b"[]\n", b'{"op": 5}\n', b'{"id": 1, "op": "start"}\n', b"\xff\n", b"{}\n\n"):
        assert "error" in await ask(raw)
    start = {"op": "start", "token": "00000000", "argv": [], "env": {}, "cwd": "/", "log_path": "/x"}
    for name in ("../evil", "", "a/b", ".hidden", "a\n"):
        message = json.dumps({**start, "name": name, "log_max_bytes": 1, "log_keep": 1}) + "\n"
        assert "error" in await ask(message.encode())
    assert await ask(b'{"id": 7, "op": "list"}\n') == {"id": 7, "result": []}
    _, half = await asyncio.open_unix_connection(world.socket)
    half.write(b'{"id": 1, "op": "list"')
    await half.drain()
    assert await host.running() == ()
    half.close()
    await host.start(world.shell("a", "exec sleep 1000"))
    with pytest.raises(MeshctlError, match="cannot read"):
        await host.signal("a", 10_000)


async def test_a_client_that_does_not_read_is_cut_off(world: KeeperWorld) -> None:
    host = await world.connect()
    pid = host.keeper_pid
    assert pid
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(world.socket)
        deaf.settimeout(60)
        request = json.dumps({"id": "x" * 100_000, "op": "list"}).encode() + b"\n"
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            await asyncio.to_thread(deaf.sendall, 200 * request)
    assert await host.running() == ()
    assert host.keeper_pid == pid
