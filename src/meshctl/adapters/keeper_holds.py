"""Processes that are held for a while: stopped altogether, or for a part of every tenth of a second.  I/O.

Enters: groups of processes, each with the share of the time that is taken from it and the moment at which that ends.
Leaves: SIGSTOP and SIGCONT. Standard library only: the keeper imports this module.

Invariant: whatever is stopped here goes on at its moment. The keeper sees to it, whoever asked for it may be dead; and
a watchdog beside each held process, which only waits and sends SIGCONT, sees to it when the keeper is dead too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from meshctl.adapters.process_identity import is_same

_PERIOD = 0.1
"""Seconds in which a share is taken; a service answers late by at most as much."""

_AGAIN = 1.0
"""Seconds after which what is stopped altogether is stopped again, should somebody have let it go on."""

_LATE = 0.5
"""Seconds after its moment that a watchdog waits, so that it acts only where the keeper does not."""


class Hold:
    """One group that is held; ``until`` is on the monotonic clock."""

    __slots__ = ("birth", "next", "pid", "share", "stopped", "until", "watchdog")

    def __init__(self, *, pid: int, birth: str, share: float, until: float) -> None:
        self.pid = pid
        self.birth = birth
        self.share = share
        self.until = until
        self.next = 0.0
        self.stopped = False
        self.watchdog: int | None = None


class Holds:
    """All that is held, by name."""

    def __init__(self) -> None:
        self._held: dict[str, Hold] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def begin(self, name: str, *, pid: int, birth: str, share: float, until: float, env: Mapping[str, str]) -> None:
        """Hold a group until a moment of the wall clock; what held it before gives way.

        Raises OSError when there can be no watchdog: nothing is held then.
        """
        self.end(name)
        left = max(0.0, until - time.time())  # noqa: TID251 - the moment was told by another process
        hold = Hold(pid=pid, birth=birth, share=share, until=time.monotonic() + left)
        hold.watchdog = _start_watchdog(pid, birth, left + _LATE, env)
        self._held[name] = hold
        self.turn()

    def end(self, name: str) -> bool:
        """Let a group go on; False when it was not held."""
        hold = self._held.pop(name, None)
        if hold is None:
            return False
        _signal(hold, signal.SIGCONT)
        if hold.watchdog is not None:
            # A child that was not reaped yet keeps its number; one that ended by itself was reaped, and forgot here.
            _kill_watchdog(hold.watchdog)
        return True

    def forget_watchdog(self, pid: int) -> None:
        """A watchdog has ended: its number may be given to another process."""
        for hold in self._held.values():
            if hold.watchdog == pid:
                hold.watchdog = None

    def turn(self) -> tuple[str, ...]:
        """Stop and let go what is due; the names of those whose time is over."""
        now = time.monotonic()
        over = [name for name, hold in self._held.items() if now >= hold.until or not is_same(hold.pid, hold.birth)]
        for name in over:
            self.end(name)
        for hold in self._held.values():
            if now < hold.next:
                continue
            if hold.share >= 1:
                _signal(hold, signal.SIGSTOP)
                hold.next = now + _AGAIN
            else:
                hold.stopped = not hold.stopped
                _signal(hold, signal.SIGSTOP if hold.stopped else signal.SIGCONT)
                hold.next = now + _PERIOD * (hold.share if hold.stopped else 1 - hold.share)
        return tuple(over)

    @property
    def wait(self) -> float | None:
        """Seconds until something is due; None when nothing is held."""
        if not self._held:
            return None
        return max(0.0, min(min(hold.next, hold.until) for hold in self._held.values()) - time.monotonic())


def _signal(hold: Hold, signum: int) -> None:
    try:
        if is_same(hold.pid, hold.birth):
            os.killpg(hold.pid, signum)
    except (ProcessLookupError, PermissionError):
        return


def _start_watchdog(pid: int, birth: str, seconds: float, env: Mapping[str, str]) -> int:
    command = [sys.executable, "-S", "-P", "-m", "meshctl.adapters.keeper_watchdog", str(pid), birth, f"{seconds:.3f}"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **env},
        start_new_session=True,
        cwd="/",
    )
    process.returncode = 0  # the keeper reaps its children itself
    return process.pid


def _kill_watchdog(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
