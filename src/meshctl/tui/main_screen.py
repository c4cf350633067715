"""The screen of tables: which parts it has, and which keys lead to which action of the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input, Static

from meshctl.tui.grid import Grid
from meshctl.tui.view import KEYS


class FilterInput(Input):
    """The line in which a filter is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.filter_drop", show=False),
        Binding("down,up", "app.filter_keep", show=False),
    ]


class MainScreen(Screen[None], inherit_bindings=False):
    """Tabs and pages: a line at the top, where one is, sparklines, the table, notes, keys.

    Args:
        begin: called when the parts are there.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, f"app.tab({key})" if entry.action == "tab" else f"app.{entry.action}", show=False)
        for entry in KEYS
        for key in entry.keys
        if entry.action != "interrupt"
    ]

    def __init__(self, begin: Callable[[], None]) -> None:
        super().__init__()
        self._begin = begin

    def compose(self) -> ComposeResult:
        """The parts, from top to bottom."""
        yield Static(id="header", classes="bar")
        yield Static(id="place", classes="bar")
        yield Static(id="trends")
        yield Grid()
        yield Static(id="notes")
        yield FilterInput(id="filter", placeholder="words that a row must have; !word: must not", compact=True)
        yield Static(id="keys", classes="bar")

    def on_mount(self) -> None:
        """The parts are there: figures may come."""
        self._begin()
