"""How golden signals are written: shares, rates, durations, and what is not known.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.text import Text

from meshctl.cli.render import format_age
from meshctl.wire.metrics import Metrics, Row

UNKNOWN = "–"  # noqa: RUF001 - a dash, so that it is not taken for the minus of a number
"""For a share, a rate or a duration that nobody knows: there was no request, or nobody who counted."""

_BAD = 0.95
_GOOD = 0.999


def format_share(share: float | None) -> Text:
    """A share as a percentage, rounded down so that only all is 100%."""
    if share is None:
        return Text(UNKNOWN)
    style = "red" if share < _BAD else "yellow" if share < _GOOD else "green"
    if share == 1:
        return Text("100%", style=style)
    return Text(f"{math.floor(share * 10_000) / 100:.2f}%", style=style)


def format_rate(rate: float | None) -> str:
    """Something per second."""
    if rate is None:
        return UNKNOWN
    return f"{rate:.1f}" if rate < 1000 else f"{rate:.0f}"


def format_ms(milliseconds: float | None) -> str:
    """A duration: ``0.8ms``, ``42ms``, ``1.35s``."""
    if milliseconds is None:
        return UNKNOWN
    if milliseconds < 9.95:
        return f"{milliseconds:.1f}ms"
    return f"{milliseconds:.0f}ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.2f}s"


def format_bytes(rate: float | None) -> str:
    """Bytes a second."""
    if rate is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB"):
        if rate < 999.5:
            return f"{rate:.0f}{unit}/s"
        rate /= 1000
    return f"{rate:.1f}GB/s"


def format_count(count: int | None) -> str:
    """A number of things."""
    return UNKNOWN if count is None else str(count)


def format_counts(counts: dict[str, int]) -> str:
    """Counts by name: ``200:95,503:5``."""
    return ",".join(f"{name}:{count}" for name, count in sorted(counts.items())) or UNKNOWN


def format_secured(secured: bool | None) -> Text:  # noqa: FBT001 - the value to write
    """Whether a way is mTLS."""
    if secured is None:
        return Text(UNKNOWN)
    return Text("yes", style="green") if secured else Text("no", style="yellow")


def format_note(row: Row) -> Text:
    """How old the figures of a row are, when they are old."""
    if not row.stale or row.age_s is None:
        return Text("")
    return Text(f"{format_age(row.age_s)} old", style="yellow")


def list_notes(metrics: Metrics) -> Iterator[str]:
    """Which sidecars' figures are old or missing, one line each."""
    for sidecar in metrics.sidecars:
        if sidecar.age_s is None:
            yield f"{sidecar.sidecar}: no figures yet" + (f": {sidecar.error}" if sidecar.error else "")
        elif sidecar.stale:
            reason = f": {sidecar.error}" if sidecar.error else ""
            yield f"{sidecar.sidecar}: its sidecar's figures are {format_age(sidecar.age_s)} old{reason}"
