"""Lets one stopped process go on at its moment, should everybody else be dead.  I/O; a program of its own.

``python -m meshctl.adapters.keeper_watchdog PID BIRTH SECONDS``

Enters: a process, by its pid and its start, and how long to wait.  Leaves: SIGCONT to its group. It ends as soon as the
process has ended. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from meshctl.adapters.process_identity import is_same

_LOOK = 0.5
"""Seconds from one look at the process to the next."""


def main(words: list[str]) -> int:
    """Wait, then let it go on."""
    pid, birth, end = int(words[0]), words[1], time.monotonic() + float(words[2])
    while (left := end - time.monotonic()) > 0:
        if not is_same(pid, birth):
            return 0
        time.sleep(min(_LOOK, left))
    if is_same(pid, birth):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGCONT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
