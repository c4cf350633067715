"""Who a process is: its pid together with the moment it was started, because pids are used again.  I/O.

Enters: a pid.  Leaves: its birth, or None when no such process exists.  Standard library only, no pathlib: the
keeper imports this module, and must start in a few milliseconds.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from typing import NamedTuple


class Birth(NamedTuple):
    """The start of a process.

    ``token`` identifies it exactly on this machine and is to be compared as it is; ``started_at`` is for people and
    for psutil, in seconds since the epoch; ``zombie`` is True when it has ended and waits to be reaped.
    """

    token: str
    started_at: float
    zombie: bool


def read_birth(pid: int) -> Birth | None:
    """When the process was started; None when there is none with this pid."""
    if sys.platform == "linux":
        return _read_proc(pid)
    else:  # noqa: RET505 - mypy leaves out the branch of another platform only when it is one
        return _ask_ps(pid)


def is_same(pid: int, token: str) -> bool:
    """True when the process that was started with this pid and token still runs."""
    birth = read_birth(pid)
    return birth is not None and birth.token == token and not birth.zombie


def _read_proc(pid: int) -> Birth | None:
    # Fields of /proc/PID/stat: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html. The command is in brackets
    # and may itself hold brackets and blanks, so that the fields are counted from the last closing one.
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) < 20:  # a process that vanishes while it is read
        return None
    state, ticks = fields[0].decode(), int(fields[19])
    # The ticks are exact, while the time of boot may be corrected by a second as the clock is set: compare the ticks.
    return Birth(f"{_boot_id()}:{ticks}", _boot_time() + ticks / os.sysconf("SC_CLK_TCK"), state in "ZXx")


@functools.cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


@functools.cache
def _boot_time() -> float:
    with open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return float(line.split()[1])
    return 0.0


def _ask_ps(pid: int) -> Birth | None:
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
    state, _, started = answer.stdout.strip().partition(" ")
    if not started:
        return None
    token = " ".join(started.split())
    try:
        return Birth(token, time.mktime(time.strptime(token, "%a %b %d %H:%M:%S %Y")), state.startswith("Z"))
    except ValueError:
        return None
