"""The generations of one log file, ``path`` the newest and ``path.1`` ... the older ones, read both ways.  I/O.

Enters: a path that a writer may rotate at any moment (keeper_capture).  Leaves: lines of wire.loglines. Files are held
open, so that a rotation moves names and loses nothing; lines that were cut off, or are no log lines, are left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from meshctl.wire.loglines import Line, parse_line

_BLOCK = 128 * 1024


class Generation:
    """One open file. ``end`` is where its last whole line ended when it was opened; ``changed`` its time of change."""

    __slots__ = ("changed", "end", "fd", "identity")

    def __init__(self, fd: int) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.identity = (status.st_dev, status.st_ino)
        self.changed = status.st_mtime
        last = os.pread(fd, _BLOCK, max(0, status.st_size - _BLOCK))
        self.end = status.st_size - len(last) + last.rfind(b"\n") + 1

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def open_generations(path: str, *, newer_than: tuple[int, int] | None = None) -> list[Generation]:
    """
    The generations that exist, oldest first; with ``newer_than``, those that came after the one of this identity.

    They are opened from the newest on. A rotation meanwhile moves files towards the older names, so that one may be
    met twice, and is taken once, but none is passed over.
    """
    found: list[Generation] = []
    missing = index = 0
    while missing < 2:  # between two renames of a rotation one name is missing
        try:
            generation = Generation(os.open(f"{path}.{index}" if index else path, os.O_RDONLY))
        except FileNotFoundError:
            missing += 1
        else:
            missing = 0
            if generation.identity == newer_than:
                generation.close()
                break
            if any(generation.identity == other.identity for other in found):
                generation.close()
            else:
                found.append(generation)
        index += 1
    return found[::-1]


def read_forward(generation: Generation) -> Iterator[Line]:
    """The lines up to ``end``, oldest first."""
    offset, rest = 0, b""
    while offset < generation.end:
        block = os.pread(generation.fd, min(_BLOCK, generation.end - offset), offset)
        if not block:  # somebody emptied the file
            return
        offset += len(block)
        *whole, rest = (rest + block).split(b"\n")
        yield from parse_lines(whole)


def read_backward(generation: Generation) -> Iterator[Line]:
    """The lines up to ``end``, newest first, reading no more of the file than is asked for."""
    offset, rest = generation.end, b""
    while offset > 0:
        start = max(0, offset - _BLOCK)
        block = os.pread(generation.fd, offset - start, start)
        offset = start
        rest, *whole = (block + rest).split(b"\n")
        yield from reversed(list(parse_lines(whole)))
    yield from parse_lines([rest])


def parse_lines(raw: list[bytes]) -> Iterator[Line]:
    """The lines among what a file holds."""
    for text in raw:
        if (line := parse_line(text.decode("utf-8", "replace"))) is not None:
            yield line


class Tail:
    """Reads what is appended to one log, across rotations.

    Args:
        path: the log, which need not exist yet.
        held: its newest generation, when what it holds so far was read; else reading starts at the oldest one.
        changed_after: generations that did not change since then (seconds since the epoch) are left out.
    """

    def __init__(self, path: str, *, held: Generation | None = None, changed_after: float = 0.0) -> None:
        self._path = path
        self._generation = held
        self._offset = held.end if held else 0
        self._changed_after = changed_after
        self._rest = b""
        self._later: list[Generation] = []

    def read(self) -> list[Line]:
        """What has come since the last call, in bounded amounts: an empty answer means nothing for now."""
        if self._generation is None:
            self._advance()
            if self._generation is None:
                return []
        lines = self._read_block()
        if not lines and (self._later or self._is_rotated()):
            # Its writer never returns to a file that it renamed; but it may have written between read and rename.
            lines = self._read_block()
            if not lines:
                self._advance()
                lines = self._read_block() if self._generation else []
        return lines

    def close(self) -> None:
        """Close the files."""
        for generation in (self._generation, *self._later):
            if generation:
                generation.close()
        self._generation, self._later = None, []

    def _read_block(self) -> list[Line]:
        assert self._generation is not None
        if os.fstat(self._generation.fd).st_size < self._offset:  # emptied by somebody
            self._offset, self._rest = 0, b""
        lines: list[Line] = []
        while not lines and (block := os.pread(self._generation.fd, _BLOCK, self._offset)):
            self._offset += len(block)
            *whole, self._rest = (self._rest + block).split(b"\n")
            lines.extend(parse_lines(whole))
        return lines

    def _is_rotated(self) -> bool:
        assert self._generation is not None
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self._path)  # noqa: PTH116 - called many times a second
            return (status.st_dev, status.st_ino) != self._generation.identity
        return False

    def _advance(self) -> None:
        """Go on to the next generation, if there is one."""
        if not self._later:
            held = self._generation
            self._later = open_generations(self._path, newer_than=held.identity if held else None)
            if held and not os.fstat(held.fd).st_nlink:  # it was deleted; older ones may still be there
                self._changed_after = max(self._changed_after, os.fstat(held.fd).st_mtime)
        while self._later:
            following = self._later.pop(0)
            if following.changed < self._changed_after:
                following.close()
                continue
            if self._generation:
                self._generation.close()
            self._generation, self._offset, self._rest = following, 0, b""
            return
