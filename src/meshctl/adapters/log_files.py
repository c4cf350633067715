"""The captured output of a mesh's processes, as one stream of lines.  I/O.

Enters: the log files by source, and what is wanted of them.  Leaves: lines, the history merged by time, then new ones
as they come. Files may be rotated, emptied and created meanwhile; sources may come and go while following. Memory is
bounded by ``tail`` lines of each source, or by a block of each.
"""

from __future__ import annotations

import asyncio
import heapq
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, islice
from operator import attrgetter
from typing import NamedTuple

from meshctl.adapters.log_generations import Generation, Tail, open_generations, read_backward, read_forward
from meshctl.wire.loglines import Line

_POLL_SECONDS = 0.05
_BATCH = 2000
_STAMP_SLACK = 1.0
"""Seconds by which a file's time of change may lag behind the clock."""

Paths = Mapping[str, str] | Callable[[], Mapping[str, str]]


class LogEntry(NamedTuple):
    """One line and the source (process) that wrote it."""

    source: str
    line: Line


class _Wanted(NamedTuple):
    since: float | None
    until: float | None
    grep: re.Pattern[str] | None

    def match(self, line: Line) -> bool:
        return (
            (self.since is None or line.time >= self.since)
            and (self.until is None or line.time <= self.until)
            and (self.grep is None or self.grep.search(line.text) is not None)
        )


async def read_logs(
    paths: Paths,
    *,
    tail: int | None = None,
    since: float | None = None,
    until: float | None = None,
    grep: re.Pattern[str] | None = None,
    follow: bool = False,
) -> AsyncIterator[LogEntry]:
    """
    The lines of several processes: history in the order of time, then, when following, new ones as they come.

    Args:
        paths: the log file of each source, or a function that gives them, asked again and again while following. A
            source that joins then is read from that moment on.
        tail: at most so many of the last lines of each source's history that match the other conditions; all when
            None.
        since: leaves out lines before this time, in seconds since the epoch.
        until: leaves out lines after this time.
        grep: leaves out lines in whose text it finds nothing.
        follow: goes on until the caller stops reading.
    """
    wanted = _Wanted(since, until, grep)
    begun = time.time()  # noqa: TID251 - compared with the stamps of lines and files, which this machine made
    with ExitStack() as stack:
        sources = dict(sorted(_current(paths).items()))
        opened: dict[str, list[Generation]] = {}
        for source, path in sources.items():
            opened[source] = open_generations(path)
            for generation in opened[source]:
                stack.callback(generation.close)
        history = _read_history(opened, wanted) if tail is None else _read_tail(opened, wanted, tail)
        while batch := await _take(history):
            for entry in batch:
                yield entry
        if not follow:
            return
        tails = {
            source: Tail(path, held=opened[source].pop() if opened[source] else None)
            for source, path in sources.items()
        }
        stack.pop_all()
        for generation in chain.from_iterable(opened.values()):
            generation.close()
    try:
        async for entry in _follow(paths, tails, begun):
            if wanted.match(entry.line):
                yield entry
    finally:
        for held in tails.values():
            held.close()


async def _follow(paths: Paths, tails: dict[str, Tail], begun: float) -> AsyncIterator[LogEntry]:
    joined: set[str] = set()
    while True:
        current = _current(paths)
        for source in current.keys() - tails.keys():
            tails[source] = Tail(current[source], changed_after=begun - _STAMP_SLACK)
            joined.add(source)
        entries = [
            LogEntry(source, line)
            for source, held in tails.items()
            for line in held.read()
            if source not in joined or line.time >= begun
        ]
        for entry in sorted(entries, key=attrgetter("line.time")):
            yield entry
        for source in tails.keys() - current.keys():
            tails.pop(source).close()
            joined.discard(source)
        if not entries:
            await asyncio.sleep(_POLL_SECONDS)


def _current(paths: Paths) -> Mapping[str, str]:
    return paths() if callable(paths) else paths


async def _take(entries: Iterator[LogEntry]) -> list[LogEntry]:
    def take() -> list[LogEntry]:
        return list(islice(entries, _BATCH))

    reading = asyncio.get_running_loop().run_in_executor(None, take)
    try:
        return await asyncio.shield(reading)
    finally:
        if not reading.done():  # cancelled: the files must not be closed under the thread that reads them
            await asyncio.wait([reading])


def _read_history(opened: Mapping[str, list[Generation]], wanted: _Wanted) -> Iterator[LogEntry]:
    def read(source: str, generations: Iterable[Generation]) -> Iterator[LogEntry]:
        for generation in generations:
            if wanted.since is not None and generation.changed < wanted.since - _STAMP_SLACK:
                continue
            yield from (LogEntry(source, line) for line in read_forward(generation) if wanted.match(line))

    return heapq.merge(*(read(*item) for item in opened.items()), key=attrgetter("line.time"))


def _read_tail(opened: Mapping[str, list[Generation]], wanted: _Wanted, tail: int) -> Iterator[LogEntry]:
    def read(source: str, generations: list[Generation]) -> list[LogEntry]:
        lines = chain.from_iterable(read_backward(generation) for generation in reversed(generations))
        found: list[LogEntry] = []
        for line in lines:
            if len(found) == tail or (wanted.since is not None and line.time < wanted.since):
                break
            if wanted.match(line):
                found.append(LogEntry(source, line))
        return found[::-1]

    yield from heapq.merge(*(read(*item) for item in opened.items()), key=attrgetter("line.time"))
