"""The application ``meshctl top`` in tests: run without a terminal, what it shows as plain text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.fakes.mesh_reader import FakeMesh
from textual.pilot import Pilot

from meshctl.tui.app import TopApp
from meshctl.tui.requests import Tap
from meshctl.tui.view import View


@asynccontextmanager
async def open_top(
    mesh: FakeMesh,
    *,
    size: tuple[int, int] = (80, 24),
    start: View | None = None,
    tap: Tap | None = None,
    orphans: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Pilot[int]]:
    """The application with the figures of a mesh on its screen."""
    app = TopApp(connect=mesh.connect, orphans=orphans, window=10.0, start=start, tap=tap)
    app.feed._retry = 0.01
    # Figures do not become old, and nobody loses patience, however long a test has to wait for its turn.
    app.feed._clock = lambda: 0.0
    app.feed._patience = 3600.0
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.snapshot is not None or not mesh.running)
        yield pilot


async def until(pilot: Pilot[int], condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for something, with the application going on meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it does not come to that; the screen:\n{read_screen(pilot)}") from None


async def shows(pilot: Pilot[int], *texts: str, without: str = "") -> None:
    """Wait until the screen shows texts, and what it is to be ``without`` no more."""

    def is_shown() -> bool:
        screen = read_screen(pilot)
        return all(text in screen for text in texts) and (not without or without not in screen)

    await until(pilot, is_shown)


def read_screen(pilot: Pilot[int]) -> str:
    """What the screen shows, without colours and without spaces at the ends of lines."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips).rstrip() + "\n"


def top_of(pilot: Pilot[int]) -> TopApp:
    """The application itself."""
    assert isinstance(pilot.app, TopApp)
    return pilot.app
