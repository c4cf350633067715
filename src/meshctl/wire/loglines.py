"""Captured output as text lines: ``<RFC 3339 time> <stdout|stderr> F <text>``.  Pure, standard library only.

The format is Kubernetes' CRI log format, so that people and tools can read the files as they are. Source:
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, NamedTuple

Stream = Literal["stdout", "stderr"]


class Line(NamedTuple):
    """One captured line: ``time`` in seconds since the epoch, ``text`` without its newline."""

    time: float
    stream: Stream
    text: str


def format_line(time: float, stream: Stream, text: str) -> str:
    """A line for the file, newline included. ``text`` holds no newline."""
    stamp = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return f"{stamp} {stream} F {text}\n"


def parse_line(raw: str) -> Line | None:
    """The line a file holds, or None when it is not one (cut off by a crash, say)."""
    parts = raw.rstrip("\n").split(" ", 3)
    if len(parts) != 4 or parts[1] not in ("stdout", "stderr"):
        return None
    try:
        time = datetime.fromisoformat(parts[0]).timestamp()
    except ValueError:
        return None
    return Line(time, "stdout" if parts[1] == "stdout" else "stderr", parts[3])
