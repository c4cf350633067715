"""The machine's clocks.  I/O (reads the clocks); implements ports.Clock."""

from __future__ import annotations

import time

from meshctl.ports import Clock


class SystemClock(Clock):
    """Wall clock and monotonic clock of this machine. The wall clock may jump, in both directions."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()  # noqa: TID251 - this is the Clock that the ban points to

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; it may stand still while the machine sleeps."""
        return time.monotonic()
