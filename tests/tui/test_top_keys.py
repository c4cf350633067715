"""What every key does, and that ``top`` outlives the control plane, a resize and its own bugs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.fakes.mesh_reader import FakeMesh, make_row
from tests.fakes.taps import make_summary
from tests.support.top_screen import open_top, read_screen, shows, top_of, until
from textual.pilot import Pilot
from textual.widgets import RichLog

from meshctl.errors import NotRunningError
from meshctl.tui import live_requests
from meshctl.tui.app import INTERRUPTED
from meshctl.tui.grid import Grid
from meshctl.tui.requests import TapRow
from meshctl.tui.screens import LogScreen, TextScreen
from meshctl.tui.subjects import Subject
from meshctl.tui.view import KEYS, View
from meshctl.wire.requests import TapSummary

CHECKOUT = Subject(kind="service", service="checkout")


def names(pilot: Pilot[int]) -> list[str]:
    return [row.cells[0].text for row in top_of(pilot)._grid.table.rows]


def cursor_name(pilot: Pilot[int]) -> str:
    cursor = top_of(pilot)._grid.cursor
    return names(pilot)[cursor] if cursor < len(names(pilot)) else ""


async def on_tab(pilot: Pilot[int], tab: str) -> None:
    await until(pilot, lambda: top_of(pilot).view.tab == tab)


async def test_tabs_by_number_and_around_by_tab() -> None:
    async with open_top(FakeMesh()) as pilot:
        for key, tab in (
            ("2", "edges"),
            ("3", "versions"),
            ("1", "services"),
            ("tab", "edges"),
            ("shift+tab", "services"),
        ):
            await pilot.press(key)
            await on_tab(pilot, tab)
        await pilot.press("shift+tab")
        await on_tab(pilot, "versions")


async def test_enter_goes_in_and_escape_comes_back_to_the_same_row() -> None:
    async with open_top(FakeMesh()) as pilot:
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: top_of(pilot).view.path == (Subject(kind="service", service="payment"),))
        await shows(pilot, "services \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} payment")
        await pilot.press("escape")
        await until(pilot, lambda: top_of(pilot).view.path == ())
        await until(pilot, lambda: cursor_name(pilot) == "payment")


@pytest.mark.parametrize(("key", "step"), [("down", 1), ("j", 1), ("end", 2), ("pagedown", 2), ("up", 0), ("k", 0)])
async def test_keys_move_the_cursor_within_the_table(key: str, step: int) -> None:
    async with open_top(FakeMesh()) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: top_of(pilot)._grid.cursor == step)
        await pilot.press("home")
        await until(pilot, lambda: top_of(pilot)._grid.cursor == 0)


async def test_arrows_choose_the_sorted_column_and_r_turns_it_round() -> None:
    async with open_top(FakeMesh(), size=(200, 50)) as pilot:
        await pilot.press(*["right"] * 4)
        await until(pilot, lambda: top_of(pilot).view.sort.key == "rps")
        await until(pilot, lambda: names(pilot) == ["checkout", "payment", "frontend"])
        await shows(pilot, "RPS▼")
        await pilot.press("r")
        await until(pilot, lambda: names(pilot) == ["frontend", "payment", "checkout"])
        await shows(pilot, "RPS▲")
        await pilot.press("left")
        await until(pilot, lambda: top_of(pilot).view.sort.key == "health")


async def test_a_click_on_a_title_sorts_and_again_turns_round() -> None:
    async with open_top(FakeMesh(), size=(200, 50)) as pilot:
        heads = top_of(pilot)._grid.table.heads
        left = sum(head.width + 2 for head in heads[: [head.key for head in heads].index("p99")])
        await pilot.click(Grid, offset=(left + 1, 0))
        await until(pilot, lambda: top_of(pilot).view.sort.key == "p99")
        await until(pilot, lambda: top_of(pilot).view.sort.descending)
        await pilot.click(Grid, offset=(left + 1, 0))
        await until(pilot, lambda: not top_of(pilot).view.sort.descending)


async def test_a_click_goes_to_a_row_and_one_more_opens_it() -> None:
    async with open_top(FakeMesh()) as pilot:
        await pilot.click(Grid, offset=(2, 3))
        await until(pilot, lambda: top_of(pilot)._grid.cursor == 2)
        await pilot.click(Grid, offset=(2, 3))
        await until(pilot, lambda: top_of(pilot).view.path == (Subject(kind="service", service="payment"),))


async def test_the_cursor_stays_on_its_row_when_figures_change_the_order() -> None:
    mesh = FakeMesh()
    async with open_top(mesh, size=(200, 50)) as pilot:
        await pilot.press(*["right"] * 4)
        await until(pilot, lambda: cursor_name(pilot) == "checkout")
        mesh.publish(services=[make_row(destination="payment", rate=900.0), make_row(destination="checkout", rate=1.0)])
        await until(pilot, lambda: names(pilot)[0] == "payment")
        await until(pilot, lambda: cursor_name(pilot) == "checkout")


async def test_a_filter_is_typed_kept_and_dropped() -> None:
    async with open_top(FakeMesh()) as pilot:
        await pilot.press("slash", *"pay")
        await until(pilot, lambda: names(pilot) == ["payment"])
        await pilot.press("enter")
        await until(pilot, lambda: names(pilot) == ["payment"])
        await shows(pilot, "hidden by the filter 'pay'")
        await pilot.press("escape")
        await until(pilot, lambda: len(names(pilot)) == 3)
        await pilot.press("slash", *"q", "escape")
        await until(pilot, lambda: len(names(pilot)) == 3)
        assert top_of(pilot).is_running


@pytest.mark.parametrize("key", ["p", "space"])
async def test_pause_holds_figures_still_and_says_so(key: str) -> None:
    mesh = FakeMesh()
    async with open_top(mesh) as pilot:
        await pilot.press(key)
        await shows(pilot, "PAUSED")
        before = top_of(pilot).snapshot
        mesh.publish(services=[make_row(destination="checkout", rate=777.0)])
        await until(pilot, lambda: top_of(pilot).feed.metrics is mesh.metrics)
        assert top_of(pilot).snapshot is before
        await pilot.press(key)
        await shows(pilot, "777")


async def test_logs_are_those_of_the_row_and_of_sidecars_on_demand() -> None:
    mesh = FakeMesh()
    async with open_top(mesh) as pilot:
        await pilot.press("l")
        await shows(pilot, "checkout-v1-1 | listening")
        await until(pilot, lambda: isinstance(pilot.app.screen, LogScreen))
        await pilot.press("p")
        await until(pilot, lambda: not pilot.app.screen.query_one(RichLog).auto_scroll)
        await pilot.press("space", "s")
        await until(pilot, lambda: ("logs", "checkout", "True") in mesh.asked)
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)
    assert mesh.asked[0] == ("logs", "checkout", "False")


@pytest.mark.parametrize(
    ("key", "shown"),
    [("d", "policies in force, revision 4"), ("y", "# state and figures"), ("question_mark", "Keys"), ("f1", "Keys")],
)
async def test_texts_open_and_escape_closes_them(key: str, shown: str) -> None:
    async with open_top(FakeMesh(), size=(120, 60)) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, TextScreen))
        await shows(pilot, shown)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(pilot.app.screen, TextScreen))


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("ctrl+c", INTERRUPTED)])
@pytest.mark.parametrize("above", [(), ("question_mark",), ("l",), ("enter",)])
async def test_it_is_left_from_everywhere(key: str, code: int, above: tuple[str, ...]) -> None:
    async with open_top(FakeMesh()) as pilot:
        await pilot.press(*above, key)
        await until(pilot, lambda: not top_of(pilot).is_running or top_of(pilot)._exit)
        assert top_of(pilot).return_value == code


def test_every_key_has_its_test() -> None:
    tested = "tab next_tab previous_tab open go_back filter sort_left sort_right reverse pause"
    tested += " logs describe yaml help leave interrupt"
    assert {key.action for key in KEYS} == set(tested.split())


async def test_it_outlives_a_control_plane_that_is_killed() -> None:
    mesh = FakeMesh()
    async with open_top(mesh, orphans=lambda: True) as pilot:
        mesh.kill()
        await until(pilot, lambda: top_of(pilot).feed.link == "reconnecting")
        await shows(pilot, "RECONNECTING")
        await shows(pilot, "checkout")
        mesh.start()
        await until(pilot, lambda: top_of(pilot).feed.link == "live")
        await shows(pilot, without="RECONNECTING")


async def test_it_tells_of_a_mesh_that_went_down_and_goes_on_with_the_next() -> None:
    mesh = FakeMesh()
    async with open_top(mesh) as pilot:
        mesh.stop()
        await until(pilot, lambda: top_of(pilot).feed.link == "down")
        await shows(pilot, "the mesh is down")
        mesh.start()
        await until(pilot, lambda: top_of(pilot).feed.link == "live")


async def test_a_control_plane_that_hangs_is_left_and_tried_again() -> None:
    mesh = FakeMesh()
    async with open_top(mesh) as pilot:
        feed = top_of(pilot).feed
        links, changed = list[str](), feed._changed

        def note() -> None:
            links.append(feed.link)
            changed()

        feed._changed, feed._patience = note, 0.05
        mesh.publish()
        await until(pilot, lambda: mesh.connects > 1 and "reconnecting" in links)


async def test_another_size_shows_other_columns() -> None:
    async with open_top(FakeMesh(), size=(80, 24)) as pilot:
        assert "MEM" not in read_screen(pilot).splitlines()[2]
        await pilot.resize_terminal(200, 50)
        await until(pilot, lambda: "MEM" in read_screen(pilot).splitlines()[2])
        await pilot.resize_terminal(20, 6)
        await pilot.pause()
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "MEM" not in read_screen(pilot).splitlines()[2] and "SERVICE" in read_screen(pilot))


async def test_a_sidecar_that_hangs_is_named_with_the_age_of_its_figures() -> None:
    async with open_top(FakeMesh(), size=(200, 50)) as pilot:
        await shows(pilot, "sidecar payment has not answered for 14s: did not answer within 2 s")
        await pilot.press("end", "enter")
        await shows(pilot, "14s old")


async def test_a_bug_is_raised_and_not_drawn() -> None:
    class OddError(RuntimeError):
        pass

    with pytest.raises(OddError):  # noqa: PT012
        async with open_top(FakeMesh()) as pilot:
            top_of(pilot).call_later(_fail, OddError("odd"))
            await until(pilot, lambda: top_of(pilot)._exception is not None)
            assert top_of(pilot)._exit_renderables == []


def _fail(error: Exception) -> None:
    raise error


async def test_a_tap_runs_only_while_its_tab_is_shown() -> None:
    taps: list[str] = []

    async def tap() -> AsyncIterator[TapRow]:
        taps.append("begun")
        try:
            await asyncio.Event().wait()
            yield TapRow(time=0.0, source="", destination="", method="", path="", status=0, duration_ms=0.0)
        finally:
            taps.append("ended")

    async with open_top(FakeMesh(), tap=tap) as pilot:
        assert taps == []
        await pilot.press("4")
        await until(pilot, lambda: taps == ["begun"])
        await shows(pilot, "waiting for requests")
        await pilot.press("1")
        await until(pilot, lambda: taps == ["begun", "ended"])


async def test_what_was_left_out_and_who_is_silent_is_told() -> None:
    async def tap() -> AsyncIterator[TapRow | TapSummary]:
        yield make_summary(passed=1240, reported=40, silent=["cart"])
        await asyncio.Event().wait()

    async with open_top(FakeMesh(), tap=tap, start=View(tab="requests")) as pilot:
        await shows(pilot, "1,200 more passed: a sidecar reports at most 100 a second")
        await shows(pilot, "no reports yet of: cart")


async def test_the_bar_beside_many_rows_hides_nothing_of_the_last_column() -> None:
    async def tap() -> AsyncIterator[TapRow]:
        for number in range(50):
            yield TapRow(
                time=float(number),
                source="recommendations",
                destination="recommendations",
                method="GET",
                path="/a/long/path/that/takes/room",
                status=200,
                duration_ms=12.0,
            )
        await asyncio.Event().wait()

    async with open_top(FakeMesh(), size=(80, 24), tap=tap, start=View(tab="requests")) as pilot:
        await shows(pilot, "12ms")
        await shows(pilot, "DURATION")


async def test_a_tap_goes_on_with_the_next_control_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_requests, "_REST", 0.0)
    begun = 0

    async def tap() -> AsyncIterator[TapRow]:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise NotRunningError("the control plane ended")
        yield TapRow(time=0.0, source="a", destination="b", method="GET", path="/on", status=200, duration_ms=1.0)
        await asyncio.Event().wait()

    async with open_top(FakeMesh(), tap=tap, start=View(tab="requests")) as pilot:
        await shows(pilot, "/on")
        await shows(pilot, without="no live requests")


async def test_a_tap_that_fails_is_told_of() -> None:
    taps: list[TapRow] = []

    async def tap() -> AsyncIterator[TapRow]:
        if taps:
            yield taps[0]
        raise NotRunningError("no mesh runs in /mesh")

    async with open_top(FakeMesh(), tap=tap, start=View(tab="requests")) as pilot:
        await shows(pilot, "no live requests: no mesh runs in /mesh")
