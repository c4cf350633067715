"""How requests look, one a line: columns that grow with what they hold, and what fits of them.

Enters: SeenRequests.  Leaves: text. Whatever a request holds is shown as printable characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.text import Text

from meshctl.cli.render import format_time
from meshctl.figures import format_ms
from meshctl.wire.requests import SeenRequest

_NARROW = 110
"""Columns of a terminal under which instance and time of day are left out."""

_SHORTEST_PATH = 12
_PATH = 32

_STYLES = {2: "green", 3: "cyan", 4: "yellow", 5: "red", 0: "red"}


@dataclass(slots=True, kw_only=True)
class RequestLines:
    """Makes lines of requests for a console of so many columns; a column never becomes narrower again."""

    width: int
    wide: bool = False
    _widths: dict[int, int] = field(default_factory=dict)

    def make(self, request: SeenRequest) -> Text:
        """The line of one request."""
        roomy = self.wide or self.width >= _NARROW
        where = f"{request.source or '?'} -> {request.destination or '?'}"
        version = request.instance if roomy and request.instance else request.version
        line = Text()
        if roomy:
            line.append(f"{format_time(request.time)}  ", style="bright_black")
        line.append(self._pad(0, clean(where)) + "  ")
        line.append(self._pad(1, clean(version) or "-") + "  ")
        style = "yellow" if request.grpc_status not in ("", "0") else _STYLES.get(request.status // 100, "")
        line.append(f"{request.status or '---'}", style=style)
        line.append(f"{format_ms(request.duration_ms):>8}  {self._pad(2, clean(request.method))} ")
        tail = Text()
        if why := request.describe():
            tail.append(f"  {why}", style="red" if request.status >= 500 or not request.status else "yellow")
        if self.wide:
            tail.append(f"  {request.trace_id or '-'}  {clean(request.detail)}", style="bright_black")
        # What happened stands behind the path, which gives way to it in a narrow terminal.
        room = max(_SHORTEST_PATH, self.width - len(line) - len(tail))
        path = clean(request.path)
        if len(path) > room:
            path = path[: room - 1] + "…"
        line.append(self._pad(3, path, limit=min(room, _PATH)) if tail else path)
        line.append_text(tail)
        return line

    def _pad(self, column: int, text: str, *, limit: int = 60) -> str:
        width = self._widths[column] = max(self._widths.get(column, 0), min(limit, len(text)))
        return text.ljust(min(limit, width))


def clean(text: str) -> str:
    """The text with what a terminal would act on written out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def count_requests(number: int) -> str:
    """``1 request``, ``1,240 requests``."""
    return f"{number:,} request{'' if number == 1 else 's'}"
