"""What golden signals look like in tables: colours of shares and of what is secured, notes about old figures.  Pure.

The numbers themselves are written by ``meshctl.figures``.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from meshctl.cli.render import format_age
from meshctl.figures import NOTHING, format_share
from meshctl.wire.metrics import Metrics, Row

_BAD = 0.95
_GOOD = 0.999


def color_share(share: float | None) -> Text:
    """A share as a percentage, in the colour of how good it is."""
    if share is None:
        return Text(NOTHING)
    return Text(format_share(share), style="red" if share < _BAD else "yellow" if share < _GOOD else "green")


def format_secured(secured: bool | None) -> Text:  # noqa: FBT001 - the value to write
    """Whether a way is mTLS."""
    if secured is None:
        return Text(NOTHING)
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
