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
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.snapshot is not None or not mesh.running)
        yield pilot


async def until(pilot: Pilot[int], condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for something, with the application going on meanwhile."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
    await pilot.pause()


def read_screen(pilot: Pilot[int]) -> str:
    """What the screen shows, without colours and without spaces at the ends of lines."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips).rstrip() + "\n"


def top_of(pilot: Pilot[int]) -> TopApp:
    """The application itself."""
    assert isinstance(pilot.app, TopApp)
    return pilot.app
