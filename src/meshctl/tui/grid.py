"""The table on the screen: a widget that draws a ``Table``, keeps the cursor on its row, and draws only what changed.

Textual's own DataTable measures and keeps its cells itself; here rows, widths and order are those of ``arrange``, so
that what is shown is what its tests test, and a new set of figures redraws the lines that differ and nothing else.
"""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from meshctl.tui.arrange import Body, Head, Table
from meshctl.tui.cells import pad
from meshctl.tui.fitting import GAP
from meshctl.tui.styles import CURSOR, HEAD, STYLES

EMPTY = Table(heads=(), rows=(), hidden=0, dropped=())


class Grid(ScrollView, can_focus=True):
    """Shows a table below its fixed line of titles."""

    DEFAULT_CSS = """
    Grid { height: 1fr; background: ansi_default; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "end(-1)", show=False),
        Binding("end,G", "end(1)", show=False),
    ]

    class HeadClicked(Message):
        """The title of a column was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Opened(Message):
        """A row that the cursor was on already was clicked."""

    def __init__(self) -> None:
        super().__init__()
        self.table = EMPTY
        self.cursor = 0

    @property
    def cursor_key(self) -> str:
        """What the row under the cursor is known by; empty when there is none."""
        return self.table.rows[self.cursor].key if self.cursor < len(self.table.rows) else ""

    def show(self, table: Table, *, follow: bool = True) -> None:
        """Show another state of the table, or another one.

        The cursor stays on its row wherever that went; with ``follow`` off, or when the row is gone, at its height.
        """
        old, key, was = self.table, self.cursor_key, self.cursor
        self.table = table
        position = {row.key: index for index, row in enumerate(table.rows)}
        self.cursor = position.get(key, was) if follow else was
        self.cursor = max(0, min(self.cursor, len(table.rows) - 1))
        if len(old.rows) != len(table.rows):
            self.virtual_size = Size(0, len(table.rows) + 1)
        if old.heads != table.heads:
            self.refresh()
        else:
            for index in range(max(len(old.rows), len(table.rows))):
                same = index < len(old.rows) and index < len(table.rows) and old.rows[index] == table.rows[index]
                if not same or (index in (was, self.cursor) and was != self.cursor):
                    self._refresh_row(index)
        if self.cursor != was:
            self._keep_in_sight()

    def place_cursor(self, key: str) -> None:
        """Put the cursor on a row, or on the first when there is no such row."""
        found = [index for index, row in enumerate(self.table.rows) if row.key == key]
        self._move_to(found[0] if found else 0)

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        if y == 0:
            return self._draw(self._draw_heads(self.table.heads), HEAD)
        index = y - 1 + self.scroll_offset.y
        if index >= len(self.table.rows):
            return Strip.blank(self.size.width)
        style = CURSOR if index == self.cursor else Style()
        return self._draw(self._draw_row(self.table.heads, self.table.rows[index], style), style)

    def action_move(self, step: int) -> None:
        """Move the cursor by rows."""
        self._move_to(self.cursor + step)

    def action_page(self, step: int) -> None:
        """Move the cursor by what fits the screen."""
        self._move_to(self.cursor + step * max(1, self.size.height - 2))

    def action_end(self, step: int) -> None:
        """Move the cursor to the first or the last row."""
        self._move_to(0 if step < 0 else len(self.table.rows) - 1)

    def on_click(self, event: Click) -> None:
        """A click on a title sorts, one on a row goes there, one more opens it."""
        if event.y == 0:
            left = 0
            for head in self.table.heads:
                if left <= event.x < left + head.width + GAP:
                    self.post_message(self.HeadClicked(head.key))
                    return
                left += head.width + GAP
            return
        index = event.y - 1 + self.scroll_offset.y
        if index >= len(self.table.rows):
            return
        if index == self.cursor:
            self.post_message(self.Opened())
        self._move_to(index)

    def on_resize(self, _event: Resize) -> None:
        """Another size: the cursor stays in sight."""
        self._keep_in_sight()

    def _move_to(self, index: int) -> None:
        old = self.cursor
        self.cursor = max(0, min(index, len(self.table.rows) - 1))
        self._refresh_row(old)
        self._refresh_row(self.cursor)
        self._keep_in_sight()

    def _keep_in_sight(self) -> None:
        height = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True, immediate=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True, immediate=True)

    def _refresh_row(self, index: int) -> None:
        y = index + 1 - self.scroll_offset.y
        if 1 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def _draw(self, segments: list[Segment], style: Style) -> Strip:
        return Strip(segments).adjust_cell_length(self.size.width, style)

    @staticmethod
    def _draw_heads(heads: tuple[Head, ...]) -> list[Segment]:
        segments = []
        for head in heads:
            segments.append(Segment(pad(head.title, head.width, right=head.align == "right"), HEAD))
            segments.append(Segment(" " * GAP, HEAD))
        return segments

    @staticmethod
    def _draw_row(heads: tuple[Head, ...], row: Body, style: Style) -> list[Segment]:
        segments = []
        for head, cell in zip(heads, row.cells, strict=True):
            text = pad(cell.text, head.width, right=head.align == "right")
            segments.append(Segment(text, STYLES[cell.tone] + style))
            segments.append(Segment(" " * GAP, style))
        return segments
