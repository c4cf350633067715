"""Texts with a tone, and how wide they are in a terminal.  Pure.

A tone says how a text is meant: whoever draws it chooses a colour for it, and the text says the same without one.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

Tone = Literal["plain", "strong", "dim", "good", "busy", "warn", "bad"]

_TONES: dict[str, Tone] = {
    "ready": "good",
    "completed": "good",
    "registered": "good",
    "healthy": "good",
    "closed": "plain",
    "external": "dim",
    "starting": "busy",
    "pending": "busy",
    "draining": "warn",
    "stopping": "warn",
    "backoff": "warn",
    "degraded": "warn",
    "half-open": "warn",
    "stopped": "dim",
    "unknown": "dim",
    "open": "bad",
    "unhealthy": "bad",
    "failed": "bad",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text and how it is meant."""

    text: str
    tone: Tone = "plain"


Line = tuple[Span, ...]
"""One line of a screen."""


def tone_of(word: str) -> Tone:
    """The tone of a word that names a state."""
    return _TONES.get(word, "plain")


def clean(text: str) -> str:
    """The text without characters that would move the cursor or change the terminal; each becomes ``�``."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "�" for character in text)


def width_of(text: str) -> int:
    """The number of terminal columns that a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns; ``…`` stands for what was cut off."""
    if width_of(text) <= width:
        return text
    if width < 1:
        return ""
    kept, used = "", 0
    for character in text:
        used += _columns(character)
        if used > width - 1:
            break
        kept += character
    return f"{kept}…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly ``width`` columns, at the left or the right of them."""
    shown = cut(text, width)
    space = " " * (width - width_of(shown))
    return space + shown if right else shown + space


def plain_text(line: Line) -> str:
    """The text of a line without tones."""
    return "".join(span.text for span in line)


def cut_line(line: Line, width: int) -> Line:
    """The line in at most ``width`` columns."""
    kept: list[Span] = []
    left = width
    for span in line:
        size = width_of(span.text)
        if size > left:
            kept.append(Span(cut(span.text, left), span.tone))
            break
        kept.append(span)
        left -= size
    return tuple(span for span in kept if span.text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("F", "W") else 1
