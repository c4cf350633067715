"""The application ``meshctl top``: it holds the view and the newest figures, and shows what pure code makes of them.

Enters: figures from a ``Feed``, live requests from a ``Tap``, keys.  Leaves: a screen.  I/O through both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.filter import NoColor
from textual.screen import Screen
from textual.widgets import Input, Static

from meshctl.errors import MeshctlError
from meshctl.tui import frame, view
from meshctl.tui.arrange import Table, arrange, step_sort, toggle_sort
from meshctl.tui.cells import Span
from meshctl.tui.columns import TABLES, Column, Item
from meshctl.tui.feed import Feed
from meshctl.tui.grid import Grid
from meshctl.tui.live_requests import LiveRequests
from meshctl.tui.main_screen import FilterInput, MainScreen
from meshctl.tui.pages import can_open, list_items, row_of, subject_of
from meshctl.tui.reader import Connect
from meshctl.tui.requests import COLUMNS as REQUEST_COLUMNS
from meshctl.tui.requests import Numbered, Tap, describe_request
from meshctl.tui.rows import build_snapshot
from meshctl.tui.screens import LogScreen, TextScreen, make_text_screen
from meshctl.tui.styles import to_block, to_text
from meshctl.tui.subjects import Subject
from meshctl.tui.texts import describe, explain_keys, write_yaml
from meshctl.tui.trends import read_trend
from meshctl.tui.view import TABS, Tab, View
from meshctl.wire.metrics import History
from meshctl.wire.models import LogLine, MeshStatus
from meshctl.wire.policies import PolicyList
from meshctl.wire.top import TopSnapshot

INTERRUPTED = 130
"""The exit code after Ctrl+C and after a signal, as of every command."""

_REQUESTS_SECONDS = 0.25
_TICK_SECONDS = 1.0
_NARROWEST, _LOWEST = 40, 8


class TopApp(App[int], inherit_bindings=False):
    """Shows a mesh until it is left; ``run_async`` returns the exit code.

    Args:
        connect: how to reach the control plane.
        orphans: whether services may go on without a control plane; asked when there is none.
        window: seconds that figures are of.
        start: where to begin.
        tap: how to get live requests; None when there is no way, and then there is no tab of them.
        no_color: whether to draw without colour.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; layers: base; }
    .bar { height: 1; background: ansi_default; }
    #trends { height: auto; margin: 0 0 1 0; display: none; }
    #notes { height: auto; background: ansi_default; }
    #filter { display: none; border: none; height: 1; background: ansi_default; }
    #text, #log { height: 1fr; background: ansi_default; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "interrupt", show=False, priority=True)]

    def __init__(
        self,
        *,
        connect: Connect,
        orphans: Callable[[], bool],
        window: float,
        start: View | None = None,
        tap: Tap | None = None,
        no_color: bool = False,
    ) -> None:
        super().__init__(ansi_color=True)
        self._set_colors(off=no_color)
        self.view = start or View()
        self.feed = Feed(connect, changed=self._take, orphans=orphans, window=window)
        self.snapshot: TopSnapshot | None = None
        self.history: History | None = None
        self.requests = LiveRequests(tap)
        self.bug: BaseException | None = None
        self._begun = False
        self._table: Table | None = None
        self._scrolls = False
        self._drawn: dict[str, object] = {}

    @property
    def tabs(self) -> tuple[Tab, ...]:
        """The tabs that there are."""
        return tuple(tab for tab in TABS if tab != "requests" or self.requests.can_be_tapped)

    def get_default_screen(self) -> Screen[Any]:
        """The tables."""
        return MainScreen(self.begin)

    def begin(self) -> None:
        """Begin to read figures; the main screen calls it when its parts are there."""
        self._begun = True
        self.run_worker(self.feed.run(), name="feed", group="feed")
        self.set_interval(_TICK_SECONDS, self._tick)
        self.set_interval(_REQUESTS_SECONDS, self._tick_requests)
        self._main.query_one(Grid).focus()
        self._draw()

    def on_resize(self, _event: Resize) -> None:
        """Another size: other columns fit."""
        self.call_after_refresh(self._draw)

    # What keys do.

    def action_tab(self, number: int) -> None:
        """Another tab, by its number."""
        tab = TABS[number - 1]
        if tab in self.tabs:
            self._go(view.show_tab(self.view, tab))
        else:
            self._say("live requests cannot be tapped here yet")

    def action_next_tab(self) -> None:
        """The next tab."""
        self._go(view.step_tab(self.view, self.tabs, 1))

    def action_previous_tab(self) -> None:
        """The tab before."""
        self._go(view.step_tab(self.view, self.tabs, -1))

    def action_open(self) -> None:
        """The page of the row; of a request everything known."""
        if self.view.table == "requests":
            request = self._request()
            if request is not None:
                lines = [(Span(f"{label:<10}", "dim"), Span(text)) for label, text in describe_request(request.row)]
                self.push_screen(make_text_screen("request", list(lines)))
            return
        subject = self._subject()
        if subject is None:
            return
        if can_open(subject):
            self._go(view.open_subject(self.view, subject))
        else:
            self.action_describe()

    def action_go_back(self) -> None:
        """Away with the filter, else one page back, with the cursor where it was."""
        left = self.view.subject
        before = self.view
        self._go(view.go_back(self.view))
        if left is not None and self.view.path != before.path:
            for item in self._items():
                if subject_of(item) == left:
                    self._grid.place_cursor(item.key)
                    break

    def action_filter(self) -> None:
        """Type a filter."""
        line = self._filter
        line.display = True
        line.value = self.view.filter_text
        line.focus()

    def action_filter_keep(self) -> None:
        """Back to the table, filtered."""
        self._filter.display = False
        self._grid.focus()

    def action_filter_drop(self) -> None:
        """Back to the whole table."""
        self._filter.value = ""
        self.view = view.set_filter(self.view, "")
        self.action_filter_keep()
        self._draw()

    def action_sort_left(self) -> None:
        """Sort by the column before."""
        self._step_sort(-1)

    def action_sort_right(self) -> None:
        """Sort by the next column."""
        self._step_sort(1)

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self.view = view.reverse_sort(self.view)
        self._draw()

    def action_pause(self) -> None:
        """Hold the figures still, or go on."""
        self.view = view.toggle_pause(self.view)
        self.requests.hold(held=self.view.paused)
        if not self.view.paused:
            self._take()
        self._draw()

    def action_logs(self) -> None:
        """The logs of the row."""
        sources = self._log_sources()
        if sources:
            self.push_screen(LogScreen(", ".join(sources), lambda sidecars: self._read_logs(sources, sidecars)))

    def action_describe(self) -> None:
        """Everything about the row, in words."""
        self._with_policies(
            lambda subject, status, policies: make_text_screen(
                f"describe {subject.label}",
                describe(subject, self._row_of(subject), status, policies, window_s=self._window_s()),
            )
        )

    def action_yaml(self) -> None:
        """The row as YAML."""
        self._with_policies(
            lambda subject, status, policies: TextScreen(
                f"yaml {subject.label}", Text(write_yaml(subject, self._row_of(subject), status, policies))
            )
        )

    def action_help(self) -> None:
        """What the keys do."""
        self.push_screen(make_text_screen("meshctl top", explain_keys()))

    def action_leave(self) -> None:
        """Quit."""
        self.exit(0)

    def action_interrupt(self) -> None:
        """Quit as after Ctrl+C."""
        self.exit(INTERRUPTED)

    # What widgets tell.

    def on_grid_head_clicked(self, event: Grid.HeadClicked) -> None:
        """Sort by the column whose title was clicked."""
        self.view = view.set_sort(self.view, toggle_sort(self._columns(), self.view.sort, event.key))
        self._draw()

    def on_grid_opened(self, _event: Grid.Opened) -> None:
        """Open the row that was clicked twice."""
        self.action_open()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        if self._filter.display:
            self.view = view.set_filter(self.view, event.value)
            self._draw()

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """The filter is as wanted."""
        self.action_filter_keep()

    # What comes in.

    def _take(self) -> None:
        """New figures, or another state of the link."""
        if not self.view.paused and self.feed.metrics is not None and self.feed.status is not None:
            self.snapshot = build_snapshot(self.feed.status, self.feed.metrics)
            self.history = self.feed.history
        self._draw()

    def _tick(self) -> None:
        if self.feed.link != "live" or self.feed.silence > frame.OLD:
            self._draw()

    def _tick_requests(self) -> None:
        wanted = self.requests.can_be_tapped and self.view.table == "requests"
        if wanted and not self.requests.running and self.feed.link == "live":
            self.run_worker(self.requests.read(), name="tap", group="tap", exclusive=True)
        elif not wanted and self.requests.running:
            # A tap costs nothing while nobody looks.
            self.workers.cancel_group(self, "tap")
        if wanted and self.requests.has_news:
            self._draw()

    def _read_logs(self, sources: tuple[str, ...], sidecars: bool) -> AsyncIterator[LogLine]:  # noqa: FBT001 - a switch
        return self.feed.reader.logs(sources, sidecars=sidecars)

    # What is shown.

    def _draw(self) -> None:
        if not self._begun or not self.is_running:
            return
        width = self.size.width
        connection = frame.Connection(link=self.feed.link, message=self.feed.message, silence=self.feed.silence)
        table = self._arrange(width - self._scrolls)
        self._put("header", to_text(frame.draw_header(self.snapshot, connection, self.view, width)))
        self._put("place", to_text(frame.draw_place(self.view, self.tabs, width)))
        self._draw_trends(width)
        notes = list(
            frame.draw_notes(
                self.snapshot, connection, self.view, hidden=table.hidden, dropped=table.dropped, width=width
            )
        )
        if self.view.table == "requests":
            notes = [(Span(text, "dim"),) for text in self.requests.notes()] + notes
        self._put("notes", to_block(tuple(notes)), hide=not notes)
        self._put("keys", to_text(frame.draw_keys(self.view, width)))
        newest_first = self.view.table == "requests" and self._grid.cursor == 0
        self._grid.show(table, follow=not newest_first)
        self._table = table
        scrolls = len(table.rows) + 1 > self._grid.size.height > 0
        if scrolls != self._scrolls:
            # The bar beside rows that do not all fit takes a column.
            self._scrolls = scrolls
            self.call_after_refresh(self._draw)

    def _draw_trends(self, width: int) -> None:
        subject = self.view.subject
        if subject is None or self.size.height < 16:
            self._put("trends", Text(""), hide=True)
            return
        lines = frame.draw_trends(read_trend(self.history, subject), self._row_of(subject), width)
        self._put("trends", to_block(lines))

    def _arrange(self, width: int) -> Table:
        if self.view.table == "requests":
            return self.requests.arrange(self.view.sort, self.view.filter_text, width)
        return arrange(
            TABLES[self.view.table],
            self._items(),
            key=lambda item: item.key,
            sort=self.view.sort,
            filter_text=self.view.filter_text,
            width=width,
        )

    def _put(self, name: str, text: Text, *, hide: bool = False) -> None:
        """Update a part when it differs from what it shows."""
        drawn = (text, hide)
        if self._drawn.get(name) == drawn:
            return
        self._drawn[name] = drawn
        part = self._main.query_one(f"#{name}", Static)
        part.display = not hide
        part.update(text)

    # What the view is about.

    @property
    def _main(self) -> Screen[Any]:
        return self.screen_stack[0]

    @property
    def _grid(self) -> Grid:
        return self._main.query_one(Grid)

    @property
    def _filter(self) -> FilterInput:
        return self._main.query_one(FilterInput)

    def _go(self, there: View) -> None:
        moved = there.table != self.view.table or there.path != self.view.path
        self.view = there
        self._draw()
        if moved:
            self._grid.place_cursor("")

    def _items(self) -> list[Item]:
        return [] if self.snapshot is None else list_items(self.snapshot, self.history, self.view)

    def _columns(self) -> tuple[Column[Any], ...]:
        return REQUEST_COLUMNS if self.view.table == "requests" else TABLES[self.view.table]

    def _step_sort(self, step: int) -> None:
        shown = [head.key for head in self._table.heads] if self._table is not None else []
        self.view = view.set_sort(self.view, step_sort(self._columns(), shown, self.view.sort, step))
        self._draw()

    def _subject(self) -> Subject | None:
        """What the row under the cursor is about; of an empty page the page's own."""
        key = self._grid.cursor_key
        found = next((item for item in self._items() if item.key == key), None)
        return self.view.subject if found is None else subject_of(found)

    def _request(self) -> Numbered | None:
        return self.requests.find(self._grid.cursor_key)

    def _log_sources(self) -> tuple[str, ...]:
        if self.view.table == "requests":
            request = self._request()
            return () if request is None else (request.row.source, request.row.destination)
        subject = self._subject()
        return () if subject is None else subject.log_sources

    def _row_of(self, subject: Subject) -> Any:
        return None if self.snapshot is None else row_of(self.snapshot, subject)

    def _window_s(self) -> float:
        return 0.0 if self.snapshot is None else self.snapshot.window_s

    def _with_policies(self, make: Callable[[Subject, MeshStatus, PolicyList | None], Screen[None]]) -> None:
        subject = self._request_subject() if self.view.table == "requests" else self._subject()
        status = self.feed.status
        if subject is None or status is None:
            return

        async def show() -> None:
            try:
                policies = await self.feed.reader.policies(subject.service)
            except MeshctlError:
                policies = None  # an external service has none, and what is known is shown without them too
            self.push_screen(make(subject, status, policies))

        self.run_worker(show(), group="text", exclusive=True)

    def _request_subject(self) -> Subject | None:
        request = self._request()
        return None if request is None else Subject(kind="service", service=request.row.destination)

    def _say(self, message: str) -> None:
        self.notify(message, timeout=3)

    # Where Textual would decide otherwise.

    def _fatal_error(self) -> None:
        """End without a traceback over the screen: whoever runs the application raises the error again."""
        self._close_messages_no_wait()

    def _set_colors(self, *, off: bool) -> None:
        """Textual takes an empty NO_COLOR for one that is set, and knows no ``--no-color``."""
        self.no_color = off
        self._filters = [each for each in self._filters if not isinstance(each, NoColor)]
        if off:
            self._filters.append(NoColor())
