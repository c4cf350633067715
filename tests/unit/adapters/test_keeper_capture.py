"""Cutting output into lines, and log files on a disk that does not take them."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshctl.adapters.keeper_capture import MAX_LINE, Capture, LogFile, cut_line
from meshctl.wire.loglines import parse_line


@contextlib.contextmanager
def limit_files(size: int) -> Iterator[None]:
    """Let no file grow past so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read_texts(path: Path) -> list[str]:
    lines = [parse_line(raw) for raw in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert None not in lines
    return [line.text for line in lines if line]


def test_a_full_disk_loses_whole_lines_and_the_log_goes_on(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "a.log"), max_bytes=100_000, keep=1)
    log.write_lines(1.0, "stdout", [b"first"])
    with limit_files(100):
        log.write_lines(2.0, "stdout", [b"lost " * 10, b"too"])
    log.write_lines(3.0, "stdout", [b"last"])
    log.close()
    assert log.lost == 2
    assert read_texts(tmp_path / "a.log") == ["first", "last"]


def test_a_small_step_back_of_the_clock_does_not_show(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "a.log"), max_bytes=100_000, keep=1)
    for now in (100.0, 99.5, 101.0, 50.0):
        log.write_lines(now, "stdout", [b"x"])
    log.close()
    lines = [parse_line(raw) for raw in (tmp_path / "a.log").read_text().splitlines()]
    assert [line.time for line in lines if line] == [100.0, 100.0, 101.0, 50.0]


def test_without_older_generations_a_full_log_starts_anew(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "a.log"), max_bytes=100, keep=0)
    for text in (b"one", b"two", b"three"):
        log.write_lines(1.0, "stdout", [text * 10])
    log.close()
    assert read_texts(tmp_path / "a.log") == ["three" * 10]
    assert os.listdir(tmp_path) == ["a.log"]  # noqa: PTH208


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 8))
def test_a_cut_never_falls_within_a_character(text: str, shift: int) -> None:
    line = ("x" * (MAX_LINE - shift) + text + "ä€😀" * 5000).encode()
    pieces = cut_line(line)
    assert b"".join(pieces) == line
    assert all(0 < len(piece) <= MAX_LINE for piece in pieces)
    for piece in pieces:
        piece.decode()


@given(st.lists(st.binary(min_size=1, max_size=50).map(lambda raw: raw.replace(b"\r", b"\n")), max_size=30))
def test_lines_do_not_depend_on_how_they_arrive(pieces: list[bytes]) -> None:
    folder = Path(f"/tmp/meshctl-capture-{os.getpid()}")
    folder.mkdir(exist_ok=True)
    fifo, path = folder / "fifo", folder / "a.log"
    for file in (fifo, path):
        file.unlink(missing_ok=True)
    os.mkfifo(fifo)
    log = LogFile(str(path), max_bytes=10_000_000, keep=1)
    capture = Capture(str(fifo), "stderr", log)
    writer = os.open(fifo, os.O_RDWR)
    for piece in pieces:
        os.write(writer, piece)
        assert not capture.read(1.0)
    os.close(writer)
    assert capture.read(2.0)
    capture.close()
    log.close()
    whole = b"".join(pieces).decode("utf-8", "replace")
    expected = whole.removesuffix("\n").split("\n") if whole else []
    assert read_texts(path) == expected
    for file in (fifo, path):
        file.unlink(missing_ok=True)
    folder.rmdir()
