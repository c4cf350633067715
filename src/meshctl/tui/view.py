"""Where the user is, and what keys make of it: tabs, pages, sorting, filters, pause.  Pure.

A ``View`` is a value; every function returns the next one.  What the keys are is written in ``KEYS``, from which the
help, the line at the bottom and the bindings of the application are made.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from meshctl.tui.arrange import Sort
from meshctl.tui.subjects import Subject

Tab = Literal["services", "edges", "versions", "requests"]

TABS: tuple[Tab, ...] = ("services", "edges", "versions", "requests")

_FIRST_SORT: dict[str, Sort] = {
    "services": Sort("service"),
    "edges": Sort("source"),
    "versions": Sort("service"),
    "requests": Sort("time", descending=True),
    "parts": Sort("part"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key: the names that Textual has for it, the action it causes, what it is called, what it does."""

    keys: tuple[str, ...]
    action: str
    label: str
    text: str
    short: str = ""
    """A word for the line at the bottom; empty for keys that only the help shows."""


KEYS: tuple[Key, ...] = (
    Key(keys=("1", "2", "3", "4"), action="tab", label="1 2 3 4", text="services, edges, versions, requests"),
    Key(keys=("tab",), action="next_tab", label="Tab", text="the next tab; Shift+Tab the one before"),
    Key(keys=("shift+tab",), action="previous_tab", label="", text=""),
    Key(
        keys=("enter",),
        action="open",
        label="Enter",
        text="what the row is made of: versions, instances, callers",
        short="open",
    ),
    Key(keys=("escape",), action="go_back", label="Esc", text="back; takes a filter away first", short="back"),
    Key(
        keys=("slash",),
        action="filter",
        label="/",
        text="show rows that have all these words; !word: that have not",
        short="filter",
    ),
    Key(
        keys=("left",),
        action="sort_left",
        label="← →",
        text="sort by the column before, or the next one; or click its title",
        short="sort",
    ),
    Key(keys=("right",), action="sort_right", label="", text=""),
    Key(keys=("r",), action="reverse", label="r", text="sort the other way round", short="reverse"),
    Key(
        keys=("p", "space"),
        action="pause",
        label="p Space",
        text="hold the figures still; again to go on",
        short="pause",
    ),
    Key(keys=("l",), action="logs", label="l", text="the logs of the row, as they come", short="logs"),
    Key(keys=("d",), action="describe", label="d", text="everything about the row, in words", short="describe"),
    Key(
        keys=("y",),
        action="yaml",
        label="y",
        text="its policies in force, its state and its figures as YAML",
        short="yaml",
    ),
    Key(keys=("question_mark", "f1"), action="help", label="?", text="this help", short="help"),
    Key(keys=("q",), action="leave", label="q", text="quit", short="quit"),
    Key(keys=("ctrl+c",), action="interrupt", label="Ctrl+C", text="quit, with exit code 130"),
)
"""Every key of the tables. ↑ ↓ j k, PageUp, PageDown, Home and End move the cursor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where the user is. ``path`` are the things opened one within another; sorts and filters are kept by table."""

    tab: Tab = "services"
    path: tuple[Subject, ...] = ()
    sorts: dict[str, Sort] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    paused: bool = False

    @property
    def table(self) -> str:
        """Which table of ``columns.TABLES`` is shown, or ``requests``."""
        return "parts" if self.path else self.tab

    @property
    def subject(self) -> Subject | None:
        """The thing whose page is shown; None for a tab."""
        return self.path[-1] if self.path else None

    @property
    def sort(self) -> Sort:
        """How the table is sorted."""
        return self.sorts.get(self.table, _FIRST_SORT[self.table])

    @property
    def filter_text(self) -> str:
        """Its filter."""
        return self.filters.get(self.table, "")


def show_tab(view: View, tab: Tab) -> View:
    """Another tab, with nothing opened."""
    return replace(view, tab=tab, path=())


def step_tab(view: View, tabs: tuple[Tab, ...], step: int) -> View:
    """The tab that is ``step`` further among those that there are."""
    here = tabs.index(view.tab) if view.tab in tabs else 0
    return show_tab(view, tabs[(here + step) % len(tabs)])


def open_subject(view: View, subject: Subject) -> View:
    """Go into a thing; what is open already is gone back to, so that a path never goes in circles."""
    if subject in view.path:
        return replace(view, path=view.path[: view.path.index(subject) + 1])
    return _without_filter(replace(view, path=(*view.path, subject)))


def go_back(view: View) -> View:
    """Take the filter away; without one go back by one page; on a tab nothing."""
    if view.filter_text:
        return set_filter(view, "")
    return replace(view, path=view.path[:-1]) if view.path else view


def set_filter(view: View, text: str) -> View:
    """Filter the table that is shown."""
    return replace(view, filters={**view.filters, view.table: text})


def set_sort(view: View, sort: Sort) -> View:
    """Sort the table that is shown."""
    return replace(view, sorts={**view.sorts, view.table: sort})


def reverse_sort(view: View) -> View:
    """The other direction."""
    return set_sort(view, Sort(view.sort.key, not view.sort.descending))


def toggle_pause(view: View) -> View:
    """Hold still, or go on."""
    return replace(view, paused=not view.paused)


def _without_filter(view: View) -> View:
    return set_filter(view, "")
