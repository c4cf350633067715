"""The output of processes: read from their FIFOs, cut into lines, stamped, written to log files that rotate.  I/O.

Enters: bytes from FIFOs.  Leaves: files in the format of wire.loglines, ``path`` the newest and ``path.1`` ... the
older ones.  Standard library only: the keeper imports this module.

Invariants: only whole lines are written, and a rotation never falls within a line; a disk that is full loses lines but
stops nobody; no more than one line and one read are held in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import termios
from collections.abc import Iterable

from meshctl.wire.loglines import Stream, format_line

MAX_LINE = 64 * 1024
"""Bytes of text after which a line is cut, as the output of a process may hold no newline at all."""

READ_SIZE = 128 * 1024
READS_PER_TURN = 4
"""One process that talks without end must not keep the others waiting."""

_PIPE_SIZE = 128 * 1024
"""Linux gives a user 64 MiB of pipes in all by default, and those beyond it next to nothing (pipe(7))."""
_CLOCK_JITTER = 1.0
"""Seconds by which the clock may be set back without the order of lines suffering from it."""


class LogFile:
    """One log file, rotated to ``path.1`` ... ``path.<keep>`` before it would grow past ``max_bytes``.

    Raises:
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: str, *, max_bytes: int, keep: int) -> None:
        self.path = path
        self.users = 0
        self.lost = 0
        self.max_bytes = max_bytes
        self.keep = keep
        self._last = 0.0
        self._fd = -1
        self._size = 0
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._open()

    def write_lines(self, now: float, stream: Stream, lines: Iterable[bytes]) -> None:
        """Append lines (no newlines in them) with one time stamp; ``lost`` counts those the disk did not take."""
        if 0 < self._last - now < _CLOCK_JITTER:
            now = self._last
        self._last = now
        prefix = format_line(now, stream, "")[:-1].encode()
        batch = [prefix + line + b"\n" for line in lines]
        block = b"".join(batch)
        if self._size + len(block) <= self.max_bytes:
            self._append(block, len(batch))
            return
        pending: list[bytes] = []
        size = self._size
        for line in batch:
            if size and size + len(line) > self.max_bytes:
                self._append(b"".join(pending), len(pending))
                self._rotate()
                pending, size = [], 0
            pending.append(line)
            size += len(line)
        self._append(b"".join(pending), len(pending))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _append(self, block: bytes, lines: int) -> None:
        if not block:
            return
        self._reopen_if_deleted()
        written = 0
        try:
            while written < len(block):
                written += os.write(self._fd, block[written:])
        except OSError:  # no room, most likely
            self.lost += lines
            with contextlib.suppress(OSError):  # half a line would spoil the next one
                os.ftruncate(self._fd, self._size)
        else:
            self._size += written

    def _reopen_if_deleted(self) -> None:
        # People delete logs, or empty them with `> file`; both must leave a file that goes on.
        status = os.fstat(self._fd)
        self._size = status.st_size
        if status.st_nlink:
            return
        with contextlib.suppress(OSError):
            old = self._fd
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            self._open()
            os.close(old)

    def _rotate(self) -> None:
        try:
            for generation in range(self.keep, 0, -1):
                older = f"{self.path}.{generation}"
                newer = f"{self.path}.{generation - 1}" if generation > 1 else self.path
                with contextlib.suppress(FileNotFoundError):
                    os.replace(newer, older)
            if not self.keep:
                os.unlink(self.path)
            old = self._fd
            self._open()
            os.close(old)
        except OSError:  # a folder that became read-only: go on in the file that is open
            return


class Capture:
    """Reads one output stream of a process from its FIFO into a log file.

    Raises:
        OSError: the FIFO cannot be opened.
    """

    def __init__(self, fifo: str, stream: Stream, log: LogFile) -> None:
        self._stream = stream
        self._log = log
        self._partial = bytearray()
        self.fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        # A larger pipe lets a process write on while the keeper is being replaced. Linux only, and limited per user.
        if set_size := getattr(fcntl, "F_SETPIPE_SZ", None):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.fd, set_size, _PIPE_SIZE)

    def read(self, now: float, *, reads: int = READS_PER_TURN) -> bool:
        """Take what is there, in at most ``reads`` reads; True when no writer is left and all was taken."""
        for _ in range(reads):
            try:
                chunk = os.read(self.fd, READ_SIZE)
            except BlockingIOError:
                return False
            if not chunk:
                self.flush(now)
                return True
            self._take(chunk, now)
        return False

    def drain(self, now: float) -> bool:
        """
        Take what was written until now, and flush; True when no writer is left. What a descendant writes meanwhile is
        left for later, or one that never stops would keep the reader here.
        """
        waiting = int.from_bytes(fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        while waiting > 0:
            try:
                chunk = os.read(self.fd, min(READ_SIZE, waiting))
            except BlockingIOError:
                break
            if not chunk:
                break
            waiting -= len(chunk)
            self._take(chunk, now)
        ended = self.read(now, reads=1)
        self.flush(now)
        return ended

    def flush(self, now: float) -> None:
        """Write the line that has begun, as nothing will complete it."""
        if self._partial:
            self._write([bytes(self._partial)], now)
            self._partial = bytearray()

    def close(self) -> None:
        """Close the FIFO; the log file stays open."""
        os.close(self.fd)

    def _take(self, chunk: bytes, now: float) -> None:
        end = chunk.rfind(b"\n")
        if end < 0:
            self._partial += chunk
            if len(self._partial) > MAX_LINE:
                *whole, rest = cut_line(bytes(self._partial))
                self._write(whole, now)
                self._partial = bytearray(rest)
            return
        block = bytes(self._partial) + chunk[:end]
        self._partial = bytearray(chunk[end + 1 :])
        lines = block.split(b"\n")
        if len(block) > MAX_LINE:
            lines = [piece for line in lines for piece in cut_line(line)]
        self._write(lines, now)

    def _write(self, lines: list[bytes], now: float) -> None:
        # "replace" never swallows a newline, so that all lines are cleaned at once.
        text = b"\n".join(line.removesuffix(b"\r") for line in lines).decode("utf-8", "replace")
        self._log.write_lines(now, self._stream, text.encode().split(b"\n"))


def cut_line(line: bytes) -> list[bytes]:
    """Pieces of at most MAX_LINE bytes, never cut within a UTF-8 character; at least one."""
    pieces = []
    start = 0
    while len(line) - start > MAX_LINE:
        end = start + MAX_LINE
        # Bytes 10xxxxxx continue a character; four bytes hold any: https://datatracker.ietf.org/doc/html/rfc3629
        while end > start + MAX_LINE - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(line[start:end])
        start = end
    pieces.append(line[start:])
    return pieces
