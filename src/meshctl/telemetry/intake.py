"""How much a collector takes: a bucket of bytes that fills up with time.  Pure: time is an argument."""

from __future__ import annotations


class Intake:
    """Takes up to ``rate`` bytes a second, and ``burst`` at once."""

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, size: int, now: float) -> bool:
        """Whether so many bytes are taken at ``now`` (seconds of a clock that never goes back)."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        if size > self._left:
            return False
        self._left -= size
        return True
