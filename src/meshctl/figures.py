"""Numbers as people read them: rates, shares, durations, sizes, ages, sparklines.  Pure; a leaf.

Commands and ``top`` write them alike.
Enters: a number, or None for one that nobody knows.  Leaves: a short text, a dash for None.  A share is never rounded
into a statement: below 1 it is not ``100%``, above 0 not ``0%``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

NOTHING = "\N{EN DASH}"
"""What stands where there is no number: nothing happened, or nobody knows."""

_LEVELS = "▁▂▃▄▅▆▇█"
_GAP = " "


def format_rate(value: float | None) -> str:
    """Something per second: ``0``, ``0.05``, ``4.2``, ``123``, ``1.5k``, ``2.0M``."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    if value < 0.1:
        return f"{value:.2f}"
    return _scale(value, (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)), step=1e3)


def format_share(value: float | None) -> str:
    """A share between 0 and 1 in percent: ``100%``, ``99.98%``, ``0%``; cut rather than rounded."""
    if value is None:
        return NOTHING
    if value >= 1:
        return "100%"
    if value <= 0:
        return "0%"
    hundredths = math.floor(value * 10_000 + 1e-9)
    return "<0.01%" if hundredths == 0 else f"{min(hundredths, 9_999) / 100:.2f}%"


def format_ms(value: float | None) -> str:
    """Milliseconds: ``0.8ms``, ``12ms``, ``1.23s``, ``34s``, ``3m``, ``2h``."""
    if value is None:
        return NOTHING
    if value < 9.95:
        return f"{value:.1f}ms"
    if value < 999.5:
        return f"{value:.0f}ms"
    seconds = value / 1000
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 99.5:
        return f"{seconds:.0f}s"
    minutes = seconds / 60
    return f"{minutes:.0f}m" if minutes < 99.5 else f"{minutes / 60:.0f}h"


def format_count(value: int | None) -> str:
    """A count: ``0``, ``123``, ``12k``."""
    if value is None:
        return NOTHING
    return (
        str(value)
        if value < 10_000
        else _scale(float(value), (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)), step=1e3)
    )


def format_cpu(value: float | None) -> str:
    """Cores in percent of one core: ``0.3%``, ``12%``, ``250%``."""
    if value is None:
        return NOTHING
    percent = value * 100
    return f"{percent:.1f}%" if percent < 9.95 else f"{percent:.0f}%"


def format_bytes(value: int | None) -> str:
    """Bytes: ``512B``, ``48M``, ``1.2G``."""
    if value is None:
        return NOTHING
    if value < 1000:
        return f"{value}B"
    return _scale(float(value), (("K", 1024.0), ("M", 1024.0**2), ("G", 1024.0**3), ("T", 1024.0**4)), step=1024.0)


def format_byte_rate(value: float | None) -> str:
    """Bytes a second: ``5B/s``, ``1.5kB/s``, ``2.0MB/s``."""
    if value is None:
        return NOTHING
    if value < 999.5:
        return f"{value:.0f}B/s"
    return f"{_scale(value, (('k', 1e3), ('M', 1e6), ('G', 1e9), ('T', 1e12)), step=1e3)}B/s"


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts by name: ``200:95,503:5``."""
    return ",".join(f"{name}:{count}" for name, count in sorted(counts.items())) or NOTHING


def format_age(seconds: float | None) -> str:
    """How long ago: ``3s``, ``2m``, ``4h``, ``5d``; ``never`` for None."""
    if seconds is None:
        return "never"
    left = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * size:
            return f"{left // size}{unit}"
    return f"{left}s"


def draw_sparkline(values: Sequence[float | None], width: int, *, top: float | None = None) -> str:
    """The last ``width`` values as blocks of eight heights, oldest first; a value that nobody knows is a blank.

    The scale goes from 0 to ``top``, or to the largest value; a value above 0 is always higher than 0 is.
    """
    shown = list(values)[-width:] if width > 0 else []
    known = [value for value in shown if value is not None]
    highest = max(known, default=0.0) if top is None else top
    drawn = "".join(_GAP if value is None else _LEVELS[_level(value, highest)] for value in shown)
    return drawn.rjust(width, _GAP)


def _level(value: float, highest: float) -> int:
    last = len(_LEVELS) - 1
    if value <= 0 or highest <= 0:
        return 0
    return max(1, min(last, round(value / highest * last)))


def _scale(value: float, units: Sequence[tuple[str, float]], *, step: float) -> str:
    """The number in the largest unit that leaves at least one digit before the point."""
    unit, size = units[0]
    for next_unit, next_size in units[1:]:
        if value / size < step - 0.5:
            break
        unit, size = next_unit, next_size
    scaled = value / size
    return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
