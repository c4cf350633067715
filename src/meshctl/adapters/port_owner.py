"""Is a TCP port free, and if not, which process holds it?  I/O: binds sockets, reads the process table.

A host and port enter; a bool, a PortOwner or a sentence for people leaves.
"""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class PortOwner:
    """The process that listens on a port: ``command`` is its command line, or its bare name when that is hidden."""

    pid: int
    command: str

    @property
    def program(self) -> str:
        """The last part of the program's path, such as ``python3``."""
        words = self.command.split()
        return words[0].rsplit("/", 1)[-1] if words else "a process"


def port_is_free(host: str, port: int) -> bool:
    """Whether a listener could be bound there now. False too when the host is not one of this machine's addresses.

    Like a server's, the test socket has SO_REUSEADDR, so that connections still closing do not count.
    """
    return _bind_error(host, port) is None


def port_owner(port: int) -> PortOwner | None:
    """The process that listens on a TCP port at any address; None when nobody does or the system hides who does."""
    for pid in _listeners(port):
        try:
            process = psutil.Process(pid)
            command = " ".join(process.cmdline()) or process.name()
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            command = "a process of another user"
        return PortOwner(pid, command)
    return None


def describe(port: int, owner: PortOwner | None) -> str:
    """One line for people: which port is held, and by whom when that is known."""
    if owner is None:
        return f"port {port} is held by another process"
    return f"port {port} is held by {owner.program} (pid {owner.pid}): {_shorten(owner.command)}"


def explain_port(host: str, port: int) -> str:
    """Why nothing can listen on ``host:port`` now, in one line; empty when it is free."""
    error = _bind_error(host, port)
    if error is None:
        return ""
    if error.errno == errno.EACCES:
        return f"port {port} may only be opened with more rights (ports below 1024 usually are reserved)"
    if error.errno == errno.EADDRINUSE:
        return describe(port, port_owner(port))
    return f"nothing can listen on {host}:{port}: {error.strerror or error}"


def _bind_error(host: str, port: int) -> OSError | None:
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        return error
    addresses = [(info[0], info[4]) for info in infos]
    if sys.platform == "darwin" and any(family == socket.AF_INET for family, _ in addresses):
        # BSD lets a specific address be bound beside a listener on all of them; a server there would get no calls.
        addresses.append((socket.AF_INET, ("0.0.0.0", port)))  # noqa: S104 - bound and closed, never listened on
    for family, address in addresses:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                return error
    return None


def _listeners(port: int) -> list[int]:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS without root: each of one's own processes may still be asked
        return [pid for pid in psutil.pids() if _listens(pid, port)]
    return sorted(
        {entry.pid for entry in connections if entry.pid is not None and _is_listener(entry.status, entry.laddr, port)}
    )


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(_is_listener(entry.status, entry.laddr, port) for entry in connections)


def _is_listener(status: str, address: tuple[object, ...], port: int) -> bool:
    return status == psutil.CONN_LISTEN and len(address) == 2 and address[1] == port


def _shorten(command: str, limit: int = 120) -> str:
    line = " ".join(command.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
