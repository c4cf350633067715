"""Every tab and page as it stands on the screen, narrow and wide: ``tests/golden/tui/*.txt``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.fakes.backend import T0
from tests.fakes.mesh_reader import FakeMesh
from tests.support.top_screen import open_top, read_screen, shows, top_of, until

from meshctl.tui.requests import TapRow
from meshctl.tui.view import View

GOLDEN = Path(__file__).parents[1] / "golden" / "tui"
SIZES = {"narrow": (80, 24), "wide": (200, 50)}

STEPS: dict[str, tuple[str, ...]] = {
    "services": (),
    "edges": ("2",),
    "versions": ("3",),
    "requests": ("4",),
    "service": ("enter",),
    "version": ("enter", "enter"),
    "edge": ("2", "enter"),
    "filtered": ("slash", *"pay"),
    "sorted": ("right", "right", "right", "right"),
    "help": ("question_mark",),
    "logs": ("l",),
    "describe": ("d",),
    "yaml": ("y",),
}
"""Which keys lead to each screen."""


async def tap() -> AsyncIterator[TapRow]:
    """Two requests: one in order, one that was answered by the sidecar, with a path that would move the cursor."""
    good = TapRow(
        time=T0, source="frontend", destination="checkout", version="v1", method="GET", path="/cart", status=200,
        duration_ms=12.5,
    )  # fmt: skip
    yield good
    yield TapRow(
        time=T0 + 1, source="checkout", destination="payment", method="POST", path="/pay\x1b[2J", status=503,
        duration_ms=0.4, reason="circuit open",
    )  # fmt: skip
    # One that ended would be opened again, and tell of the same requests once more.
    await asyncio.Event().wait()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STEPS)
async def test_a_screen_shows_what_it_showed(name: str, size: str, update_golden: bool) -> None:
    async with open_top(FakeMesh(), size=SIZES[size], tap=tap) as pilot:
        path = GOLDEN / f"{name}-{size}.txt"
        await pilot.press(*STEPS[name])
        if name == "requests":
            await until(pilot, lambda: top_of(pilot).requests.seen == 2 and not top_of(pilot).requests.has_news)
        if not update_golden:
            # How long it takes until all is drawn says how busy the machine is.
            with suppress(AssertionError):
                await until(pilot, lambda: read_screen(pilot) == path.read_text(), seconds=20)
        await pilot.pause()
        found = read_screen(pilot)
    if update_golden:
        path.write_text(found)
    assert found == path.read_text()


@pytest.mark.parametrize("name", STEPS)
def test_no_line_is_wider_than_the_terminal(name: str) -> None:
    for size, (width, height) in SIZES.items():
        lines = (GOLDEN / f"{name}-{size}.txt").read_text().splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= height


async def test_figures_that_nobody_knows_are_dashes() -> None:
    async with open_top(FakeMesh()) as pilot:
        await shows(pilot, "\nfrontend")
        row = next(line for line in read_screen(pilot).splitlines() if line.startswith("frontend"))
    assert "0%" not in row
    assert "\N{EN DASH}" in row


async def test_without_a_tap_there_is_no_tab_of_requests() -> None:
    async with open_top(FakeMesh(), start=View()) as pilot:
        await pilot.press("4")
        assert top_of(pilot).view.tab == "services"
        assert "requests" not in read_screen(pilot).splitlines()[1]
