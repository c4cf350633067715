"""How a run of tests went: which worker ran which files, one after the other, so that a failure can be repeated.

Enters: reports.  Leaves: lines for the end of the output.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What led to the first failure of a worker: ``files`` in their order, and what others had finished last."""

    nodeid: str
    files: tuple[str, ...]
    beside: dict[str, str]


class Course:
    """Takes every report of a run, in the order in which they come."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, None]] = {}
        self._last: dict[str, str] = {}
        self._failures: dict[str, Failure] = {}

    def note(self, worker: str, nodeid: str, *, failed: bool) -> None:
        """A part of a test (its set-up, itself, its end) is over."""
        files = self._files.setdefault(worker, {})
        files[nodeid.partition("::")[0]] = None
        self._last[worker] = nodeid
        if failed and worker not in self._failures:
            beside = {name: last for name, last in sorted(self._last.items()) if name != worker}
            self._failures[worker] = Failure(nodeid=nodeid, files=tuple(files), beside=beside)

    def tell(self, seed: int) -> Iterator[str]:
        """How each worker's first failure is repeated; nothing when none failed."""
        for worker, failure in sorted(self._failures.items()):
            yield f"{failure.nodeid} failed at {worker} after what this command runs once more:"
            yield (
                f"  .venv/bin/python -m pytest --numprocesses 0 --randomly-seed={seed} --files-in-order "
                + " ".join(failure.files)
            )
            for other, nodeid in failure.beside.items():
                yield f"  beside it {other} had just finished {nodeid}"
