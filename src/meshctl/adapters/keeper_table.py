"""The processes that the keeper keeps: started, signalled, reaped, and found again after a restart.  I/O.

Enters: requests that were checked for their shape, and descriptors that became readable. Leaves: handles and exits as
plain dictionaries. Standard library only: the keeper imports this module.

Invariants: a process that is not this keeper's child is signalled only when pid and start both match its record; what
a process wrote before it ended is in its log before its exit is told.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from meshctl.adapters.keeper_capture import Capture, LogFile
from meshctl.adapters.keeper_holds import Holds
from meshctl.adapters.keeper_protocol import MARKER, Refusal
from meshctl.adapters.keeper_records import STREAMS, Record, Records
from meshctl.adapters.keeper_spawn import spawn
from meshctl.adapters.process_identity import is_same, read_birth

MAX_UNACKED = 1000
"""Exits kept for a control plane that never takes note of them; the oldest go first."""


class Process:
    """One process and what belongs to it; ``child`` when this keeper started it and learns its exit code."""

    __slots__ = ("captures", "child", "log", "pidfd", "record")

    def __init__(self, record: Record, log: LogFile | None, captures: list[Capture], *, child: bool) -> None:
        self.record = record
        self.log = log
        self.captures = captures
        self.child = child
        self.pidfd = -1

    def handle(self) -> dict[str, Any]:
        """Who it is, for a client."""
        return {"name": self.record.name, "pid": self.record.pid, "started_at": self.record.started_at}

    def exit(self) -> dict[str, Any]:
        """How it ended, for a client."""
        return {"event": "exit", **self.handle(), "code": self.record.code}


class Table:
    """All processes of one mesh.

    Args:
        watch: calls back whenever a descriptor is readable; ``unwatch`` ends that.
        on_exit: is told of every exit once.
        report: writes a line to the keeper's own log.
    """

    def __init__(
        self,
        records: Records,
        *,
        tag: str,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        on_exit: Callable[[dict[str, Any]], None],
        report: Callable[[str], None],
    ) -> None:
        self._records = records
        self._tag = tag
        self._watch = watch
        self._unwatch = unwatch
        self._on_exit = on_exit
        self._report = report
        self._running: dict[str, Process] = {}
        self._ended: dict[str, Process] = {}
        """By stem: not acknowledged yet, or with a descendant that holds the output open."""
        self._last: dict[str, Record] = {}
        """By name: the process that ended last, whose group may not be empty."""
        self._logs: dict[str, LogFile] = {}
        self._holds = Holds()

    @property
    def running(self) -> list[dict[str, Any]]:
        """The processes that run, by name."""
        return [self._running[name].handle() for name in sorted(self._running)]

    @property
    def unacked(self) -> list[dict[str, Any]]:
        """Exits that no control plane took note of, in their order."""
        return [process.exit() for process in self._ended.values() if not process.record.acked]

    @property
    def is_idle(self) -> bool:
        """True when nothing runs and nothing can write any more."""
        return not self._running and not any(process.captures for process in self._ended.values())

    @property
    def needs_polling(self) -> bool:
        """True when a process runs whose end nothing announces."""
        return any(not process.child and process.pidfd < 0 for process in self._running.values())

    def adopt(self) -> None:
        """Take up the processes of a keeper that was killed, and the exits that it could not hand over."""
        for record in self._records.load():
            log, captures = None, list[Capture]()
            try:
                log = self._use_log(record.log_path, record.log_max_bytes, record.log_keep)
                captures.extend(self._open_captures(record.stem, log))
            except OSError as error:
                self._report(f"{record.name}: its output is lost: {error}")
            process = Process(record, log, captures, child=False)
            self._watch_captures(process)
            if record.exited:
                self._ended[record.stem] = process
                self._last[record.name] = record
                # A FIFO that had no writer when it was opened does not announce that it has none: ask.
                self._drain(process)
                self._settle(process)
                continue
            self._running[record.name] = process
            if self._watch_end(process):
                self._report(f"{record.name}: found again as pid {record.pid}")
                if record.held:
                    self.hold(record.name, record.held, record.held_until)
            else:
                self._finish(process, None)

    def start(
        self,
        *,
        name: str,
        token: str,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        log_path: str,
        log_max_bytes: int,
        log_keep: int,
    ) -> dict[str, Any]:
        """
        Start a process and return its handle; a token that was used already returns the handle made then.

        Raises:
            Refusal: it cannot be started, or another process of this name runs.
        """
        self.reap()
        for process in (*self._running.values(), *self._ended.values()):
            if process.record.token == token and process.record.name == name:
                return process.handle()
        if name in self._running:
            raise Refusal("conflict", f"{name} runs already, as pid {self._running[name].record.pid}")
        stem = f"{name}.{token}"
        log, captures = None, list[Capture]()
        try:
            log = self._use_log(log_path, log_max_bytes, log_keep)
            fifos = self._records.make_fifos(stem)
            captures.extend(self._open_captures(stem, log))
            # Opened for reading too, a FIFO has a reader as long as it has a writer: no SIGPIPE when the keeper dies.
            with contextlib.ExitStack() as stack:
                writers = []
                for fifo in fifos:
                    writers.append(os.open(fifo, os.O_RDWR))
                    stack.callback(os.close, writers[-1])
                marked = {**env, MARKER: f"{self._tag}/{name}"}
                pid = spawn(argv, env=marked, cwd=cwd, stdout=writers[0], stderr=writers[1])
            birth = read_birth(pid)
            record = Record(
                name=name,
                token=token,
                pid=pid,
                birth=birth.token if birth else "",
                started_at=birth.started_at if birth else _now(),
                log_path=log_path,
                log_max_bytes=log_max_bytes,
                log_keep=log_keep,
            )
            self._save_or_kill(record)
        except (OSError, Refusal) as error:
            for capture in captures:
                capture.close()
            self._release_log(log)
            self._records.drop(stem)
            if isinstance(error, Refusal):
                raise
            raise Refusal("start-failed", f"cannot capture the output of {name}: {error}") from None
        process = Process(record, log, captures, child=True)
        self._running[name] = process
        self._watch_captures(process)
        return process.handle()

    def send_signal(self, name: str, signum: int) -> bool:
        """Signal the whole group of the process, or what is left of it; False when that is nothing."""
        self.reap()
        if process := self._running.get(name):
            record = process.record
            if signum:  # what is stopped would not take it
                self.release(name)
            # The pid of a child that was not reaped cannot be given to another process; that of others can.
            if not process.child and not is_same(record.pid, record.birth):
                self._finish(process, None)
                return self._signal_rest(record, signum)
            return _signal_group(record.pid, signum)
        return self._signal_rest(self._last[name], signum) if name in self._last else False

    def hold(self, name: str, share: float, until: float) -> bool:
        """
        Take a share of its time (1: all of it) from the group of a process until a moment, in seconds since the epoch.

        False when it does not run. Raises Refusal when it cannot be made sure that it goes on.
        """
        self.reap()
        process = self._running.get(name)
        if process is None or not is_same(process.record.pid, process.record.birth):
            return False
        record = process.record = process.record._replace(held=share, held_until=until)
        self._save(record)
        try:
            marked = {MARKER: f"{self._tag}/{name}"}
            self._holds.begin(name, pid=record.pid, birth=record.birth, share=share, until=until, env=marked)
        except OSError as error:
            self.release(name)
            raise Refusal("failed", f"{name} is not held: there can be no watchdog for it: {error}") from None
        return True

    def release(self, name: str) -> bool:
        """Let a process that is held go on; False when it is not held."""
        held = self._holds.end(name)
        process = self._running.get(name)
        if process is not None and process.record.held:
            process.record = process.record._replace(held=0.0, held_until=0.0)
            self._save(process.record)
        return held

    def turn_holds(self) -> float | None:
        """Stop and let go what is due; seconds until something is due again, None when nothing is held."""
        for name in self._holds.turn():
            self._report(f"{name}: goes on")
            self.release(name)
        return self._holds.wait

    def acknowledge(self, name: str, pid: int) -> None:
        """Forget an exit, as a control plane has taken note of it."""
        for process in list(self._ended.values()):
            if process.record.name == name and process.record.pid == pid and not process.record.acked:
                process.record = process.record._replace(acked=True)
                self._save(process.record)
                self._settle(process)

    def reap(self) -> None:
        """Take note of every child that ended, and of orphans that came to this process as their reaper."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._holds.forget_watchdog(pid)
            for process in list(self._running.values()):
                if process.record.pid == pid and process.child:
                    self._finish(process, os.waitstatus_to_exitcode(status))

    def poll(self) -> None:
        """Look for ends that nothing announces."""
        for process in list(self._running.values()):
            if not process.child and process.pidfd < 0 and not is_same(process.record.pid, process.record.birth):
                self._finish(process, None)

    def forget_exits(self) -> None:
        """Acknowledge every exit: whoever ends the keeper has been told of all of them."""
        for event in self.unacked:
            self.acknowledge(event["name"], event["pid"])

    def close(self) -> None:
        """Write what was captured; the processes go on."""
        for process in (*self._running.values(), *self._ended.values()):
            for capture in process.captures:
                capture.drain(_now())

    def _finish(self, process: Process, code: int | None) -> None:
        self._drain(process)
        if process.pidfd >= 0:
            self._unwatch(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
        del self._running[process.record.name]
        self._holds.end(process.record.name)
        process.record = process.record._replace(exited=True, code=code, held=0.0, held_until=0.0)
        self._ended[process.record.stem] = process
        self._last[process.record.name] = process.record
        self._save(process.record)
        self._on_exit(process.exit())
        if len(unacked := self.unacked) > MAX_UNACKED:
            self.acknowledge(unacked[0]["name"], unacked[0]["pid"])

    def _drain(self, process: Process) -> None:
        for capture in list(process.captures):
            if capture.drain(_now()):
                self._drop_capture(process, capture)

    def _settle(self, process: Process) -> None:
        if process.record.acked and not process.captures and process.record.stem in self._ended:
            del self._ended[process.record.stem]
            self._records.drop(process.record.stem)
            self._release_log(process.log)
            process.log = None

    def _watch_end(self, process: Process) -> bool:
        """Have the end of a process that is no child announced; False when it has ended."""
        record = process.record
        if sys.platform == "linux":
            try:
                process.pidfd = os.pidfd_open(record.pid)
            except ProcessLookupError:
                return False
            except OSError:  # a kernel before 5.3, or one that forbids it: poll
                process.pidfd = -1
            else:
                self._watch(process.pidfd, functools.partial(self._finish, process, None))
        # Checked after it is held: a pid that was used again in between must not pass.
        return is_same(record.pid, record.birth)

    def _watch_captures(self, process: Process) -> None:
        for capture in process.captures:
            self._watch(capture.fd, functools.partial(self._read_capture, process, capture))

    def _read_capture(self, process: Process, capture: Capture) -> None:
        if capture.read(_now()):
            self._drop_capture(process, capture)
            self._settle(process)

    def _drop_capture(self, process: Process, capture: Capture) -> None:
        self._unwatch(capture.fd)
        capture.close()
        process.captures.remove(capture)

    def _open_captures(self, stem: str, log: LogFile) -> Iterator[Capture]:
        for fifo, stream in zip(self._records.fifos(stem), STREAMS, strict=True):
            yield Capture(fifo, stream, log)

    def _use_log(self, path: str, max_bytes: int, keep: int) -> LogFile:
        log = self._logs.get(path)
        if log is None:
            log = self._logs[path] = LogFile(path, max_bytes=max_bytes, keep=keep)
        log.max_bytes, log.keep = max_bytes, keep
        log.users += 1
        return log

    def _release_log(self, log: LogFile | None) -> None:
        if log is None:
            return
        log.users -= 1
        if not log.users:
            del self._logs[log.path]
            log.close()
            if log.lost:
                self._report(f"{log.path}: {log.lost} lines could not be written")

    def _save(self, record: Record) -> None:
        try:
            self._records.save(record)
        except OSError as error:  # the disk is full: what is in memory still holds
            self._report(f"{record.name}: its record could not be written: {error}")

    def _save_or_kill(self, record: Record) -> None:
        try:
            self._records.save(record)
        except OSError:
            _signal_group(record.pid, signal.SIGKILL)
            raise

    def _signal_rest(self, record: Record, signum: int) -> bool:
        """
        Signal a group whose leader has ended. Its number is not given to another process while it has members, but
        may be once it is empty: members must be in the leader's own session, and no process may bear its number.
        """
        if read_birth(record.pid) is not None or not _has_members(record.pid):
            return False
        return _signal_group(record.pid, signum)


def _has_members(leader: int) -> bool:
    if sys.platform != "linux":
        return True
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.getpgid(int(entry)) == leader == os.getsid(int(entry)):
                return True
    return False


def _signal_group(leader: int, signum: int) -> bool:
    try:
        os.killpg(leader, signum)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS answers so for a group of zombies
        return False
    return True


def _now() -> float:
    return time.time()  # noqa: TID251 - lines are stamped with the time of the machine
