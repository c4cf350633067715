"""What commands that show traffic say while faults are on, so that nobody takes one for a failure.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from meshctl.cli.render import format_age
from meshctl.wire.models import FaultShape

_SHOWN = 5
_WARNING = "bold yellow"
NONE = "-"


def draw_banner(faults: Sequence[FaultShape], now: float) -> Iterator[Text]:
    """A line for each fault that is on, and how to end them; ``now`` in seconds since the epoch."""
    for fault in faults[:_SHOWN]:
        line = Text(f"FAULT {fault.id}", style=_WARNING)
        line.append(f" on {fault.subject}: {fault.summary}; ")
        line.append("is being undone" if fault.state == "ending" else f"ends in {format_age(fault.ends_at - now)}")
        yield line
    if len(faults) > _SHOWN:
        yield Text(f"FAULTS: {len(faults) - _SHOWN} more are on (meshctl inject list)", style=_WARNING)
    if faults:
        yield Text("end them: meshctl inject clear --all")


def fault_cell(faults: Iterable[FaultShape], service: str, source: str = "") -> Text:
    """The cell of a service: which faults its users notice, or one of them (``source``)."""
    ids = [fault.id for fault in faults if fault.is_met(source, service)]
    return Text(",".join(ids), style=_WARNING) if ids else Text(NONE)
