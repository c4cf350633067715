"""Lines of many sources on one stream: ``checkout-v1-1 | text``, aligned, each source in its own colour.

Enters: log lines and messages.  Leaves: text on stdout.  Written past rich, which is far too slow for floods of lines.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from meshctl.cli.render import format_time
from meshctl.wire.models import LogLine

_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""SGR foreground codes: cyan, yellow, green, magenta, blue and their bright forms; red is left to errors."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Control sequences of ECMA-48: CSI, OSC and two-character ones."""

MESHCTL = "meshctl"
"""The source of messages about the mesh itself."""


@dataclass(slots=True, kw_only=True)
class LineWriter:
    """Writes lines to stdout; the prefix grows with the longest name seen.

    ``instances`` are those behind each `host:port` of an inbound listener, for lines of access logs.
    ``colored`` passes colour on, that of prefixes and that in the text; without it the text's escapes are taken out.
    """

    colored: bool
    prefix: bool = True
    timestamps: bool = False
    flush: bool = False
    width: int = 0
    instances: dict[str, str] = field(default_factory=dict)
    _colors: dict[str, str] = field(default_factory=dict)

    def align(self, names: Iterable[str]) -> None:
        """Make room for the names that are going to come."""
        self.width = max([self.width, *(len(name) for name in names)])

    def write(self, line: LogLine) -> None:
        """Write one captured line."""
        text = line.text if self.colored else _ESCAPES.sub("", line.text)
        stamp = f"{format_time(line.time)} " if self.timestamps else ""
        self._put(f"{self._prefix(line.source)}{stamp}{text}{self._reset(text)}\n")

    def say(self, message: str) -> None:
        """Write a message of meshctl's own among the lines."""
        self._put(f"{self._prefix(MESHCTL)}{message}\n")

    def _prefix(self, source: str) -> str:
        if not self.prefix:
            return ""
        self.width = max(self.width, len(source))
        label = f"{source:<{self.width}} | "
        if not self.colored:
            return label
        code = 1 if source == MESHCTL else _COLORS[zlib.crc32(source.encode()) % len(_COLORS)]
        return f"\x1b[{code}m{label}\x1b[0m"

    def _reset(self, text: str) -> str:
        # A service that leaves its colour on would colour the lines of all others.
        return "\x1b[0m" if self.colored and "\x1b[" in text else ""

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        if self.flush:
            sys.stdout.flush()
