"""Reading, and forgetting, what sidecars keep of their circuit breakers."""

from __future__ import annotations

import time
from pathlib import Path

from meshctl.adapters.circuit_files import MappedCircuitFiles


def test_the_beginning_of_a_file_is_read_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "cart.circuits-1"
    path.write_bytes(b"abcdef")
    files = MappedCircuitFiles()
    assert files.read(str(path), 3) == b"abc"
    assert files.read(str(path), 100) == b"abcdef"
    assert files.read(str(tmp_path / "other"), 3) == b""


def test_the_clock_is_the_one_that_sidecars_read() -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert before <= MappedCircuitFiles().clock() <= time.clock_gettime(time.CLOCK_MONOTONIC)


def test_only_these_files_are_forgotten(tmp_path: Path) -> None:
    for name in ("cart.circuits-1", "web.circuits-2", "cart.admin"):
        (tmp_path / name).touch()
    MappedCircuitFiles.clear(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["cart.admin"]
    MappedCircuitFiles.clear(str(tmp_path / "missing"))
