"""What follows the mesh goes on with the next control plane, without loss or repetition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.backend import make_line

from meshctl.cli import following
from meshctl.cli.following import SeenLines, follow
from meshctl.client.errors import DisconnectedError
from meshctl.errors import NotRunningError

GONE = NotRunningError("no mesh runs here")
DIED = DisconnectedError("the control plane ended")


class FakeScreen:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


class FakeProject:
    """A project whose mesh has processes left, or none."""

    paths = None


class Planes:
    """Control planes in turn: each gives some items and then ends, or is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *turns: tuple[list[int], Exception | None], left: bool = True):
        self._turns = list(turns)
        monkeypatch.setattr(following, "connect", self._connect)
        monkeypatch.setattr(following, "has_leftovers", lambda _paths: left)
        monkeypatch.setattr(following, "_RETRY", 0.0)

    @asynccontextmanager
    async def _connect(self, _project: object) -> AsyncIterator[None]:
        yield

    async def read(self, _client: object) -> AsyncIterator[int]:
        items, error = self._turns.pop(0)
        for item in items:
            yield item
        if error is not None:
            raise error

    async def collect(self, *, met: bool = False) -> tuple[list[int], list[str]]:
        screen, found = FakeScreen(), list[int]()
        project: Any = FakeProject()
        async for item in follow(project, screen, self.read, met=met):
            found.append(item)
        return found, screen.said


async def test_a_stream_that_ends_by_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Planes(monkeypatch, ([1, 2], None)).collect() == ([1, 2], [])


async def test_the_next_control_plane_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    away: tuple[list[int], Exception | None] = ([], GONE)
    planes = Planes(monkeypatch, ([1, 2], DIED), away, away, ([3], DIED), away, ([4], None))
    found, said = await planes.collect()
    assert found == [1, 2, 3, 4]
    assert said == ["the control plane ended; waiting for the next one (`meshctl up`)"] * 2


async def test_where_none_ever_answered_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotRunningError, match="no mesh runs here"):
        await Planes(monkeypatch, ([], GONE)).collect()
    assert await Planes(monkeypatch, ([], GONE), ([5], None)).collect(met=True) == (
        [5],
        ["the control plane ended; waiting for the next one (`meshctl up`)"],
    )


async def test_where_nothing_of_the_mesh_is_left_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DisconnectedError):
        await Planes(monkeypatch, ([1], DIED), left=False).collect()


def test_lines_that_are_read_again_are_shown_once() -> None:
    seen = SeenLines()
    first = [make_line("a", "1", time=1.0), make_line("b", "2", time=2.0), make_line("a", "3", time=2.0)]
    assert [line.text for line in first if seen.is_new(line)] == ["1", "2", "3"]
    seen.read_again()
    again = [
        *first,
        make_line("a", "4", time=2.0),
        make_line("c", "5", time=1.5),
        make_line("b", "6", time=3.0),
        make_line("a", "7", time=4.0),
    ]
    assert [line.text for line in again if seen.is_new(line)] == ["4", "5", "6", "7"]
    seen.read_again()
    assert [line.text for line in again[1:] if seen.is_new(line)] == []


@pytest.mark.parametrize("times", [[1.0, 1.0, 1.0], [3.0, 2.0, 1.0]])
def test_a_clock_that_is_set_back_hides_nothing_of_a_first_reading(times: list[float], tmp_path: Path) -> None:
    seen = SeenLines()
    assert all(seen.is_new(make_line("a", "x", time=time)) for time in times)
