"""How tones look: colours of the terminal's own palette, and attributes that work without colour.  Pure, with rich."""

from __future__ import annotations

from collections.abc import Mapping

from rich.style import Style
from rich.text import Text

from meshctl.tui.cells import Line, Tone

STYLES: Mapping[Tone, Style] = {
    "plain": Style(),
    "strong": Style(bold=True),
    "dim": Style(dim=True),
    "good": Style(color="green"),
    "busy": Style(color="cyan"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
}
"""One for each tone."""

CURSOR = Style(reverse=True)
HEAD = Style(bold=True, underline=True)


def to_text(line: Line) -> Text:
    """A line as rich draws it: never as markup, never wrapped."""
    text = Text(no_wrap=True, overflow="crop", end="")
    for span in line:
        text.append(span.text, style=STYLES[span.tone])
    return text


def to_block(lines: list[Line] | tuple[Line, ...]) -> Text:
    """Lines one below the other."""
    return Text("\n").join(to_text(line) for line in lines)
