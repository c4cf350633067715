"""What processes write is captured whole and in order, whatever they write and however much."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.support.keeper import Exits, KeeperWorld, open_world, wait_until

from meshctl.adapters.log_files import read_logs
from meshctl.adapters.processes import KeeperHost
from meshctl.errors import StartError


@pytest.fixture
async def world() -> AsyncIterator[KeeperWorld]:
    async with open_world() as keeper:
        yield keeper


async def run(host: KeeperHost, world: KeeperWorld, *argv: str, **changes: object) -> int | None:
    """Run a process ``a`` to its end; its exit code."""
    exits = Exits(host.exits())
    await host.start(world.spec("a", *argv, **changes))  # type: ignore[arg-type]
    return (await exits.wait_for("a")).code


def write_lines(count: int, size: int) -> tuple[str, str, str]:
    """A command that prints numbered lines of so many bytes."""
    return sys.executable, "-c", f"for n in range({count}): print(str(n).ljust({size - 1}, '.'))"


async def test_twenty_megabytes_lose_no_line_over_rotations(world: KeeperWorld) -> None:
    host = await world.connect()
    # Stamps make every line 38 bytes longer.
    assert await run(host, world, *write_lines(200_000, 100), log_max_bytes=5_000_000, log_keep=9) == 0
    files = sorted(world.log("a").parent.glob("a.log*"))
    assert [path.name for path in files] == ["a.log", *(f"a.log.{number}" for number in range(1, 6))]
    assert all(path.stat().st_size <= 5_000_000 for path in files)
    numbers = [int(entry.line.text.rstrip(".")) async for entry in read_logs({"a": str(world.log("a"))})]
    assert numbers == list(range(200_000))


async def test_only_the_oldest_files_are_given_up(world: KeeperWorld) -> None:
    host = await world.connect()
    assert await run(host, world, *write_lines(20_000, 100), log_max_bytes=200_000, log_keep=2) == 0
    files = list(world.log("a").parent.glob("a.log*"))
    assert len(files) == 3
    assert all(path.stat().st_size <= 200_000 for path in files)
    numbers = [int(entry.line.text.rstrip(".")) async for entry in read_logs({"a": str(world.log("a"))})]
    assert numbers == list(range(numbers[0], 20_000))
    assert len(numbers) > 3000


async def test_one_loud_process_does_not_silence_another(world: KeeperWorld) -> None:
    host = await world.connect()
    await host.start(world.shell("loud", "exec yes", log_max_bytes=1_000_000, log_keep=0))
    await host.start(world.shell("quiet", "echo hello; exec sleep 1000"))
    await world.wait_for_text("quiet", "hello")
    assert await host.signal("loud", signal.SIGTERM)


async def test_text_that_is_no_text_is_made_readable(world: KeeperWorld) -> None:
    host = await world.connect()
    script = r"printf 'a\377b\r\n\n'; printf '\303\244'; printf '\000|\n'; printf 'no newline at the end'"
    assert await run(host, world, "sh", "-c", script) == 0
    assert world.texts("a") == ["a\ufffdb", "", "ä\0|", "no newline at the end"]


async def test_a_line_without_end_is_cut(world: KeeperWorld) -> None:
    host = await world.connect()
    assert await run(host, world, sys.executable, "-c", "print('x' + 'ä' * 100_000); print('next')") == 0
    *pieces, last = world.texts("a")
    assert "".join(pieces) == "x" + "ä" * 100_000
    assert all(len(piece.encode()) <= 64 * 1024 for piece in pieces)
    assert (len(pieces), last) == (4, "next")


async def test_times_never_go_back_within_a_log(world: KeeperWorld) -> None:
    host = await world.connect()
    assert await run(host, world, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo $i >&2; done") == 0
    times = [line.time for line in world.lines("a")]
    assert times == sorted(times)
    assert len(times) == 18


async def test_an_exit_does_not_wait_for_a_descendant_that_holds_the_output(world: KeeperWorld) -> None:
    host = await world.connect()
    go = world.folder / "go"
    late = f"(until [ -e {go} ]; do sleep 0.01; done; echo late) & printf early"
    assert await run(host, world, "sh", "-c", late) == 0
    assert world.texts("a") == ["early"]
    go.touch()
    await world.wait_for_text("a", "late")
    # With its last writer, what was kept of the process goes.
    await wait_until(lambda: not list(world.state_dir.glob("a.*")))


async def test_a_log_that_was_deleted_or_emptied_goes_on(world: KeeperWorld) -> None:
    host = await world.connect()
    first, second = world.folder / "first", world.folder / "second"
    wait = "until [ -e {0} ]; do sleep 0.01; done; echo {1};"
    script = f"echo one; {wait.format(first, 'two')} {wait.format(second, 'three')} exec sleep 1000"
    await host.start(world.shell("a", script))
    await world.wait_for_text("a", "one")
    world.log("a").unlink()
    first.touch()
    await world.wait_for_text("a", "two")
    os.truncate(world.log("a"), 0)
    second.touch()
    await world.wait_for_text("a", "three")
    assert world.texts("a") == ["three"]


async def test_a_process_gets_its_environment_and_nothing_else(world: KeeperWorld) -> None:
    host = await world.connect()
    script = (
        "import os, signal; print(sorted(set(os.environ.items()) - {('PATH', os.environ['PATH'])}));"
        "print(os.listdir('/dev/fd'), os.read(0, 9));"
        "print(os.getsid(0) == os.getpgid(0) == os.getpid(), os.getcwd(), signal.pthread_sigmask(0, ()));"
        "print([s.name for s in signal.valid_signals() if isinstance(s, signal.Signals)"
        " and signal.getsignal(s) == signal.SIG_IGN])"
    )
    assert (
        await run(host, world, sys.executable, "-I", "-c", script, env={"ODD": "\udcff=\n", "LC_ALL": "C.UTF-8"}) == 0
    )
    seen, descriptors, session, ignored = world.texts("a")
    assert re.fullmatch(
        rf"\[\('LC_ALL', 'C.UTF-8'\), \('MESHCTL_PROCESS', '{world.tag}/a'\), \('ODD', '\\udcff=\\n'\)\]", seen
    )
    assert descriptors == "['0', '1', '2', '3'] b''"  # the third is the listing itself
    assert session == f"True {world.folder.resolve()} set()"
    assert ignored == "['SIGPIPE', 'SIGXFSZ']"  # by Python itself


REFUSALS = {
    "no such file: ./none": ("./none",),
    "not executable: ./plain": ("./plain",),
    "not executable: plain": ("plain",),
    r"not executable: ./bin is a folder": ("./bin",),
    r"not executable: /.*/bin/noheader is neither a script nor a binary": ("noheader",),
    r"cannot run /.*/bin/nointerpreter: its interpreter does not exist": ("nointerpreter",),
    r"cannot run sh: embedded null byte": ("sh", "-c", "a\0b"),
    r"cannot run /.*/sh: arguments and environment are too long": ("sh", "x" * 3_000_000),
}


@pytest.mark.parametrize("message", REFUSALS)
async def test_a_command_that_cannot_run_is_explained(world: KeeperWorld, message: str) -> None:
    host = await world.connect()
    (world.folder / "bin").mkdir()
    files = {"plain": (0o600, "x"), "bin/plain": (0o600, "x"), "bin/noheader": (0o700, "x")}
    for name, (mode, text) in {**files, "bin/nointerpreter": (0o700, "#!/none\n")}.items():
        (world.folder / name).write_text(text)
        (world.folder / name).chmod(mode)
    with pytest.raises(StartError, match=f"^{message}$"):
        await host.start(world.spec("a", *REFUSALS[message], env={"PATH": f"bin:{os.environ['PATH']}"}))
    assert not list(world.state_dir.glob("a.*"))


async def test_a_log_that_cannot_be_written_is_explained(world: KeeperWorld) -> None:
    host = await world.connect()
    world.log("a").mkdir(parents=True)
    with pytest.raises(StartError, match=r"cannot capture the output of a: .*a\.log"):
        await host.start(world.shell("a", "exit 0"))


async def test_names_are_relative_to_the_folder_that_the_command_runs_in(world: KeeperWorld) -> None:
    host = await world.connect()
    (world.folder / "tool").write_text("#!/bin/sh\npwd\n")
    (world.folder / "tool").chmod(0o700)
    assert await run(host, world, "./tool", "word") == 0
    assert world.texts("a") == [str(Path(world.folder).resolve())]


async def test_the_keeper_stays_small_and_loads_the_standard_library_only(world: KeeperWorld) -> None:
    host = await world.connect()
    await host.start(world.shell("a", "exec sleep 1000"))
    keeper = psutil.Process(host.keeper_pid)
    assert "meshctl.adapters.keeper" in keeper.cmdline()
    assert keeper.memory_full_info().uss < 12_000_000
    if sys.platform == "linux":
        assert "site-packages" not in Path(f"/proc/{host.keeper_pid}/maps").read_text()
