"""The process keeper: the parent of every service and sidecar of one mesh.  I/O; a program of its own.

``python -m meshctl.adapters.keeper --socket PATH --state-dir DIR --log PATH --tag TAG [--idle SECONDS]``

The control plane may be killed at any time without a service noticing. So it starts nothing itself: this process
does, owns the output of what it started, and learns how it ended. It is small, imports the standard library only, and
is itself safe to kill: the processes write on into FIFOs, and the keeper that follows finds them by its records.

Enters: requests over a unix socket (see keeper_protocol). Leaves: processes, log files, exits. It goes to the
background as soon as clients can connect, so that whoever starts it waits for no more than that. It ends when it is
told to, or when it has had no process and no client for a while; signals that mean "end" are ignored.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from meshctl.adapters.keeper_connection import Connection
from meshctl.adapters.keeper_protocol import ALREADY_LOCKED, PROTOCOL, Refusal, decode_message
from meshctl.adapters.keeper_records import Records, is_name, is_token
from meshctl.adapters.keeper_table import Table
from meshctl.wire.loglines import format_line

_POLL_SECONDS = 0.2
_WANTED_FILES = 8192
_PR_SET_CHILD_SUBREAPER = 36  # https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
_IGNORED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Keeper:
    """The loop that serves clients and watches processes.

    Args:
        listener: the socket that clients connect to.
        idle: seconds without process and client after which it ends.
    """

    def __init__(self, listener: socket.socket, *, state_dir: str, tag: str, idle: float) -> None:
        self._listener = listener
        self._tag = tag
        self._idle = idle
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._stopping = False
        self._table = Table(
            Records(state_dir),
            tag=tag,
            watch=self._watch,
            unwatch=self._unwatch,
            on_exit=self._announce,
            report=report,
        )
        self._operations: dict[str, Callable[[Connection, dict[str, Any]], Any]] = {
            "hello": lambda _connection, _request: {"pid": os.getpid(), "protocol": PROTOCOL, "tag": self._tag},
            "subscribe": self._subscribe,
            "start": self._start,
            "signal": self._signal,
            "hold": self._hold,
            "release": self._release,
            "list": self._list,
            "ack": self._acknowledge,
            "stop": self._stop,
        }

    def run(self) -> None:
        """Serve until there is a reason to end."""
        self._watch_signals()
        self._listener.setblocking(False)
        self._watch(self._listener.fileno(), self._accept)
        self._table.adopt()
        self._table.reap()
        used = time.monotonic()
        while not self._stopping:
            self._turn()
            if self._connections or not self._table.is_idle:
                used = time.monotonic()
            elif time.monotonic() - used >= self._idle:
                report(f"ends after {self._idle:g} s without a process or a client")
                break
        self._table.close()

    def _turn(self) -> None:
        timeout: float | None = None
        if self._table.needs_polling:
            timeout = _POLL_SECONDS
        elif not self._connections and self._table.is_idle:
            timeout = self._idle
        held = self._table.turn_holds()
        if held is not None:
            timeout = held if timeout is None else min(timeout, held)
        for key, events in self._selector.select(timeout):
            # An earlier one of this turn may have closed the descriptor, and its number may be in use again.
            current = self._selector.get_map().get(key.fd)
            if current is None or current.data is not key.data:
                continue
            try:
                key.data(events)
            except Exception:  # noqa: BLE001 - the boundary: one mistake must not end what every service relies on
                report(traceback.format_exc())
        self._table.poll()

    def _watch(self, fd: int, call: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, lambda _events: call())

    def _unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        self._wakeup = (reader, writer)
        # Handled, not ignored: what is ignored would be ignored in the services too, across exec.
        for signum in (*_IGNORED, signal.SIGCHLD):
            signal.signal(signum, lambda _signum, _frame: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._watch(reader.fileno(), self._take_signals)

    def _take_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for signum in set(self._wakeup[0].recv(4096)) - {signal.SIGCHLD}:
                report(f"ignores {signal.Signals(signum).name}; ask over the socket to end it")
        self._table.reap()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # gone again, or no descriptor left: the others go on
            return
        connection = Connection(sock)
        self._connections[sock.fileno()] = connection
        self._selector.register(sock, selectors.EVENT_READ, functools.partial(self._serve, connection))

    def _serve(self, connection: Connection, events: int) -> None:
        if events & selectors.EVENT_READ:
            lines = connection.receive()
            if lines is None:
                self._hang_up(connection)
                return
            for line in lines:
                answer = self._answer(connection, line)
                if not connection.send(answer):
                    self._hang_up(connection)
                    return
        elif not connection.flush():
            self._hang_up(connection)
            return
        self._watch_unsent(connection)

    def _watch_unsent(self, connection: Connection) -> None:
        key = self._selector.get_key(connection.sock)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        if key.events != wanted:
            self._selector.modify(connection.sock, wanted, key.data)

    def _hang_up(self, connection: Connection) -> None:
        if self._connections.pop(connection.sock.fileno(), None):
            self._selector.unregister(connection.sock)
            connection.sock.close()

    def _announce(self, event: dict[str, Any]) -> None:
        report(f"{event['name']}: pid {event['pid']} ended with {event['code']}")
        for connection in list(self._connections.values()):
            if connection.subscribed:
                if connection.send(event):
                    self._watch_unsent(connection)
                else:
                    self._hang_up(connection)

    def _answer(self, connection: Connection, line: bytes) -> dict[str, Any]:
        number = None
        try:
            request = decode_message(line)
            number = request.get("id")
            return {"id": number, "result": self._operations[request["op"]](connection, request)}
        except Refusal as refusal:
            error = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
        except (ValueError, KeyError, TypeError, OSError) as bad:
            error = {"code": "usage", "message": f"the keeper cannot read this request: {bad!r}", "hint": ""}
        return {"id": number, "error": error}

    def _subscribe(self, connection: Connection, _request: dict[str, Any]) -> bool:
        self._table.reap()
        connection.subscribed = True
        for event in self._table.unacked:
            connection.send(event)
        return True

    def _start(self, _connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        name, token, argv = str(request["name"]), str(request["token"]), [str(word) for word in request["argv"]]
        if not is_name(name) or not is_token(token) or not argv:
            raise Refusal("usage", f"not a process that can be started: {name!r}")
        handle = self._table.start(
            name=name,
            token=token,
            argv=argv,
            env={str(key): str(value) for key, value in request["env"].items()},
            cwd=str(request["cwd"]),
            log_path=str(request["log_path"]),
            log_max_bytes=int(request["log_max_bytes"]),
            log_keep=int(request["log_keep"]),
        )
        report(f"{name}: started as pid {handle['pid']}")
        return handle

    def _signal(self, _connection: Connection, request: dict[str, Any]) -> bool:
        return self._table.send_signal(str(request["name"]), int(request["signum"]))

    def _hold(self, _connection: Connection, request: dict[str, Any]) -> bool:
        name, share, until = str(request["name"]), float(request["share"]), float(request["until"])
        if not 0 < share <= 1:
            raise Refusal("usage", f"{share:g} is no share of the time")
        report(f"{name}: {share:.0%} of its time is taken from it")
        return self._table.hold(name, share, until)

    def _release(self, _connection: Connection, request: dict[str, Any]) -> bool:
        return self._table.release(str(request["name"]))

    def _list(self, _connection: Connection, _request: dict[str, Any]) -> list[dict[str, Any]]:
        self._table.reap()
        return self._table.running

    def _acknowledge(self, _connection: Connection, request: dict[str, Any]) -> bool:
        self._table.acknowledge(str(request["name"]), int(request["pid"]))
        return True

    def _stop(self, _connection: Connection, request: dict[str, Any]) -> bool:
        self._table.reap()
        names = ", ".join(handle["name"] for handle in self._table.running)
        if names and not request.get("force"):
            raise Refusal("conflict", f"the process keeper cannot end while processes run: {names}")
        if not names:
            self._table.forget_exits()
        report("ends on request")
        self._stopping = True
        return True


def report(text: str) -> None:
    """Write to the keeper's own log, in the format of all logs."""
    now = time.time()  # noqa: TID251 - lines are stamped with the time of the machine
    for line in text.splitlines():
        sys.stderr.write(format_line(now, "stderr", line))
    sys.stderr.flush()


def main(words: list[str]) -> int:
    """Start a keeper in the background; 0 as soon as clients can connect, ALREADY_LOCKED when another is at work."""
    options = dict(zip(words[::2], words[1::2], strict=True))
    path, state_dir = options["--socket"], options["--state-dir"]
    _close_inherited()
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    lock = os.open(f"{state_dir}/keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ALREADY_LOCKED
    try:
        listener = _listen(path)
    except OSError as error:
        sys.stderr.write(f"cannot listen at {path}: {error}\n")
        return 1
    if os.fork():
        # The lock and the socket live on in the child.
        os._exit(0)
    _go_to_background(options["--log"])
    keeper = Keeper(listener, state_dir=state_dir, tag=options["--tag"], idle=float(options.get("--idle", "60")))
    report(f"keeps the processes of {options['--tag']} as pid {os.getpid()}")
    keeper.run()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return 0


def _listen(path: str) -> socket.socket:
    # Whoever holds the lock may take the place of a socket that a killed keeper left behind.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(16)
    return listener


def _close_inherited() -> None:
    os.closerange(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _go_to_background(log: str) -> None:
    os.setsid()
    os.chdir("/")
    os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
    null, own = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, target in ((null, 0), (own, 1), (own, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(own)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _WANTED_FILES:  # four descriptors a process; macOS gives 256
        with contextlib.suppress(OSError, ValueError):
            limit = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if sys.platform == "linux":
        # Orphans of the services come here, not to PID 1, which in a container may reap nothing.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
