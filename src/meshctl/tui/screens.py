"""The screens above the tables: a text to read, and logs as they come.  I/O through what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import RichLog, Static

from meshctl.errors import MeshctlError
from meshctl.tui.cells import Line, Span, clean
from meshctl.tui.styles import to_block, to_text
from meshctl.wire.models import LogLine

_LOG_LINES = 5000
_BATCH = 200
_BREATH = 0.05
"""In a flood of lines keys and figures get their turn: so many seconds after so many lines."""


class TextScreen(Screen[None], inherit_bindings=False):
    """A text that is read and left again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,question_mark,d,y", "app.pop_screen", show=False),
        Binding("q", "app.leave", show=False),
    ]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        """Title, text, keys."""
        yield Static(to_text((Span(self._title, "strong"),)), classes="bar")
        with VerticalScroll(id="text"):
            yield Static(self._text)
        yield Static(_draw_keys(("Esc", "back"), ("↑ ↓", "scroll"), ("q", "quit")), classes="bar")

    def on_mount(self) -> None:
        """Keys scroll the text."""
        self.query_one("#text").focus()


def make_text_screen(title: str, lines: list[Line]) -> TextScreen:
    """A screen of lines with tones."""
    return TextScreen(title, to_block(lines))


class LogScreen(Screen[None], inherit_bindings=False):
    """The logs of something, as they come.

    Args:
        title: whose.
        read: opens the stream of lines; with True those of the sidecars too.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,l", "app.pop_screen", show=False),
        Binding("q", "app.leave", show=False),
        Binding("p,space", "hold", show=False),
        Binding("s", "sidecars", show=False),
    ]

    def __init__(self, title: str, read: Callable[[bool], AsyncIterator[LogLine]]) -> None:
        super().__init__()
        self._title = title
        self._read = read
        self._sidecars = False
        self._held = False

    def compose(self) -> ComposeResult:
        """Title, lines, keys."""
        yield Static(classes="bar", id="log-title")
        yield RichLog(
            id="log", max_lines=_LOG_LINES, wrap=True, markup=False, highlight=False, auto_scroll=True, min_width=0
        )
        keys = (("Esc", "back"), ("p", "stay here"), ("s", "sidecars"), ("↑ ↓", "scroll"), ("q", "quit"))
        yield Static(_draw_keys(*keys), classes="bar")

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one("#log").focus()
        self._start()

    def action_hold(self) -> None:
        """Stay where one is, or go along with what comes."""
        self._held = not self._held
        log = self.query_one("#log", RichLog)
        log.auto_scroll = not self._held
        if not self._held:
            log.scroll_end(animate=False)
        self._show_title()

    def action_sidecars(self) -> None:
        """With the lines of sidecars, or without."""
        self._sidecars = not self._sidecars
        self.query_one("#log", RichLog).clear()
        self._start()

    def _start(self) -> None:
        self._show_title()
        self.run_worker(self._follow(), exclusive=True, group="log")

    def _show_title(self) -> None:
        words = [Span(f"logs of {self._title}", "strong")]
        if self._sidecars:
            words.append(Span("  with sidecars", "dim"))
        if self._held:
            words.append(Span("  STAYING HERE", "warn"))
        self.query_one("#log-title", Static).update(to_text(tuple(words)))

    async def _follow(self) -> None:
        log = self.query_one("#log", RichLog)
        count = 0
        try:
            async for line in self._read(self._sidecars):
                log.write(_draw_line(line))
                count += 1
                if count % _BATCH == 0:
                    await asyncio.sleep(_BREATH)
            end = "the control plane ended"
        except MeshctlError as error:
            end = error.message
        log.write(to_text((Span(f"no more lines: {end}", "warn"),)))


def _draw_line(line: LogLine) -> Text:
    text = Text(f"{line.source} | ", style="bold")
    said = Text.from_ansi(line.text)
    said.plain = clean(said.plain)
    return text.append_text(said)


def _draw_keys(*keys: tuple[str, str]) -> Text:
    return to_text(tuple(span for key, word in keys for span in (Span(key, "strong"), Span(f" {word}  ", "dim"))))
