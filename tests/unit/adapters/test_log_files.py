"""read_logs: history merged by time, then new lines, across rotation and files that come later."""

import asyncio
import gc
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.adapters.log_files import LogEntry, read_logs
from meshctl.adapters.log_generations import open_generations, read_backward, read_forward
from meshctl.wire.loglines import format_line


def write(path: Path, *lines: tuple[float, str]) -> None:
    with path.open("a") as file:
        file.writelines(format_line(when, "stdout", text) for when, text in lines)


async def read_all(entries: AsyncIterator[LogEntry]) -> list[tuple[str, float, str]]:
    return [(entry.source, entry.line.time, entry.line.text) async for entry in entries]


@pytest.fixture
def two_logs(tmp_path: Path) -> dict[str, str]:
    write(tmp_path / "a.log.2", (1, "a one"), (2, "a two"))
    write(tmp_path / "a.log.1", (4, "a four"))
    write(tmp_path / "a.log", (6, "a six"), (8, "a eight"))
    write(tmp_path / "b.log", (3, "b three"), (5, "b five"), (7, "b seven"))
    return {name: str(tmp_path / f"{name}.log") for name in ("b", "a", "missing")}


def count_descriptors() -> int:
    gc.collect()  # what other tests left open is closed at any time else
    return len(list(Path("/dev/fd").iterdir()))


TEXTS = ["a one", "a two", "b three", "a four", "b five", "a six", "b seven", "a eight"]


@pytest.mark.parametrize(
    ("tail", "since", "until", "grep", "expected"),
    [
        (None, None, None, None, TEXTS),
        (0, None, None, None, []),
        (1, None, None, None, TEXTS[-2:]),
        (3, None, None, None, TEXTS[2:]),
        (100, None, None, None, TEXTS),
        (None, 3, None, None, TEXTS[2:]),
        (None, None, 3, None, TEXTS[:3]),
        (None, 3, 6, None, TEXTS[2:6]),
        (1, 3, 6, None, TEXTS[4:6]),
        (None, None, None, "e$", ["a one", "b three", "b five"]),
        (1, None, None, "e$", ["a one", "b five"]),
        (9, 6.5, None, None, TEXTS[-2:]),
    ],
)
async def test_history_is_merged_by_time_and_filtered(
    two_logs: dict[str, str],
    *,
    tail: int | None,
    since: float | None,
    until: float | None,
    grep: str | None,
    expected: list[str],
) -> None:
    pattern = re.compile(grep) if grep else None
    lines = await read_all(read_logs(two_logs, tail=tail, since=since, until=until, grep=pattern))
    assert [text for _, _, text in lines] == expected
    assert {source for source, _, text in lines} == {text[0] for text in expected}


async def test_lines_that_were_cut_off_or_are_no_log_lines_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(
        b"Traceback of something\n\n2026-01-01T00:00:00Z\n"
        b"2026-01-01T00:00:01Z stdout F \xff ok \x0c\xe2\x80\xa8 one line\n"
        b"2026-01-01T00:00:02Z stdo"
    )
    for tail in (None, 5):
        lines = await read_all(read_logs({"a": str(log)}, tail=tail))
        assert [text for _, _, text in lines] == ["\ufffd ok \x0c\u2028 one line"]


@given(st.lists(st.integers(0, 300_000), max_size=8))
def test_backward_is_forward_reversed(lengths: list[int]) -> None:
    path = Path(f"/tmp/meshctl-test-{os.getpid()}.log")
    try:
        write(path, *((index, "x" * length) for index, length in enumerate(lengths)))
        for generation in open_generations(str(path)):
            forward = list(read_forward(generation))
            assert [len(line.text) for line in forward] == lengths
            assert list(read_backward(generation)) == forward[::-1]
            generation.close()
    finally:
        path.unlink(missing_ok=True)


class Follower:
    """Reads in the background what read_logs gives; waits for lines."""

    def __init__(self, entries: AsyncIterator[LogEntry]) -> None:
        self.texts: list[str] = []
        self._grown = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._read(entries))

    async def _read(self, entries: AsyncIterator[LogEntry]) -> None:
        async for entry in entries:
            self.texts.append(f"{entry.source}:{entry.line.text}")
            self._grown.set()

    async def wait_until(self, condition: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition(self.texts):
                self._grown.clear()
                await self._grown.wait()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def test_following_gives_history_then_new_lines_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    write(log, (1, "old"), (2, "older"))
    follower = Follower(read_logs({"a": str(log)}, tail=1, follow=True))
    await follower.wait_until(lambda texts: len(texts) == 1)
    write(log, (3, "new"))
    await follower.wait_until(lambda texts: len(texts) == 2)
    write(log, (4, "newer"))
    await follower.wait_until(lambda texts: len(texts) == 3)
    await follower.stop()
    assert follower.texts == ["a:older", "a:new", "a:newer"]


async def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    line = format_line(1, "stdout", "whole")
    log.write_text(line[:20])
    follower = Follower(read_logs({"a": str(log)}, follow=True))
    with log.open("a") as file:
        file.write(line[20:])
    await follower.wait_until(bool)
    await follower.stop()
    assert follower.texts == ["a:whole"]


async def test_following_passes_over_no_rotation(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    write(log, (0, "0"))
    follower = Follower(read_logs({"a": str(log)}, follow=True))
    await follower.wait_until(lambda texts: len(texts) == 1)
    # Two rotations at once, within one turn of the event loop.
    write(log, (1, "1"))
    log.rename(tmp_path / "a.log.1")
    write(log, (2, "2"))
    (tmp_path / "a.log.1").rename(tmp_path / "a.log.2")
    log.rename(tmp_path / "a.log.1")
    write(log, (3, "3"))
    await follower.wait_until(lambda texts: len(texts) == 4)
    # Somebody deletes the file that is read, while older ones are there.
    write(log, (4, "4"))
    for older in ("a.log.1", "a.log.2"):
        os.utime(tmp_path / older, (1, 1))
    log.unlink()
    write(log, (5, "5"))
    await follower.wait_until(lambda texts: len(texts) == 6)
    await follower.stop()
    assert follower.texts == [f"a:{number}" for number in range(6)]


async def test_following_goes_on_after_a_log_was_emptied(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    write(log, (1, "before, and longer than what follows"))
    follower = Follower(read_logs({"a": str(log)}, follow=True))
    await follower.wait_until(lambda texts: len(texts) == 1)
    os.truncate(log, 0)
    write(log, (2, "after"))
    await follower.wait_until(lambda texts: len(texts) == 2)
    await follower.stop()
    assert follower.texts[1] == "a:after"


async def test_a_file_that_appears_later_is_read_from_its_start(tmp_path: Path) -> None:
    write(tmp_path / "a.log", (1, "here"))
    follower = Follower(read_logs({name: str(tmp_path / f"{name}.log") for name in "ab"}, follow=True))
    await follower.wait_until(lambda texts: len(texts) == 1)
    write(tmp_path / "b.log", (1, "later"))
    await follower.wait_until(lambda texts: len(texts) == 2)
    await follower.stop()
    assert follower.texts == ["a:here", "b:later"]


async def test_a_source_that_joins_gives_what_it_wrote_since_following_began(tmp_path: Path) -> None:
    paths = {"a": str(tmp_path / "a.log")}
    write(tmp_path / "a.log", (1, "here"))
    write(tmp_path / "b.log", (1, "of another day"))
    follower = Follower(read_logs(lambda: dict(paths), follow=True))
    await follower.wait_until(lambda texts: len(texts) == 1)
    write(tmp_path / "b.log", (time.time(), "new"))
    paths["b"] = str(tmp_path / "b.log")
    await follower.wait_until(lambda texts: len(texts) == 2)
    del paths["b"]
    write(tmp_path / "a.log", (time.time(), "still here"))
    await follower.wait_until(lambda texts: len(texts) == 3)
    await follower.stop()
    assert follower.texts == ["a:here", "b:new", "a:still here"]


async def test_filters_hold_while_following(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    follower = Follower(read_logs({"a": str(log)}, since=5, until=8, grep=re.compile("yes"), follow=True))
    write(log, (4, "yes, too early"), (5, "yes 5"), (6, "no"), (9, "yes, too late"), (7, "yes 7"))
    await follower.wait_until(lambda texts: len(texts) == 2)
    await follower.stop()
    assert follower.texts == ["a:yes 5", "a:yes 7"]


@pytest.mark.parametrize("follow", [False, True])
async def test_no_descriptor_stays_open(two_logs: dict[str, str], follow: bool) -> None:
    before = count_descriptors()
    entries = read_logs(two_logs, follow=follow)
    async for entry in entries:
        if entry.line.text == TEXTS[-1]:
            break
    await entries.aclose()  # type: ignore[attr-defined]
    assert count_descriptors() == before
