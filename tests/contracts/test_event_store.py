"""What every EventStore does: the real one and the fake; and what is read of the real one while nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.event_store import FakeEventStore

from meshctl.adapters.event_files import read_events
from meshctl.adapters.sqlite_store import SqliteStore
from meshctl.ports import KEPT_EVENTS, EventStore


@pytest.fixture(params=["sqlite", "fake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    if request.param == "fake":
        yield FakeEventStore()
        return
    real = SqliteStore(str(tmp_path / "state.db"))
    yield real
    real.close()


def test_a_new_store_is_empty(store: EventStore) -> None:
    assert store.events() == ()


def test_events_come_back_as_they_were_in_the_order_of_their_numbers(store: EventStore) -> None:
    for number in (2, 1, 10, 3):
        store.put_event(number, f"number {number} ä".encode())
    assert [body.decode() for body in store.events()] == [f"number {number} ä" for number in (1, 2, 3, 10)]


def test_a_number_that_is_put_again_is_replaced(store: EventStore) -> None:
    store.put_event(1, b"one")
    store.put_event(1, b"another")
    assert store.events() == (b"another",)


def test_the_oldest_are_forgotten(store: EventStore) -> None:
    for number in range(1, KEPT_EVENTS + 3):
        store.put_event(number, str(number).encode())
    kept = store.events()
    assert (len(kept), kept[0], kept[-1]) == (KEPT_EVENTS, b"3", str(KEPT_EVENTS + 2).encode())


def test_what_was_kept_is_read_without_a_control_plane(tmp_path: Path) -> None:
    path = tmp_path / "a folder?" / "state.db"
    assert read_events(str(path)) == ()
    path.parent.mkdir()
    store = SqliteStore(str(path))
    store.put_event(1, b"one")
    assert read_events(str(path)) == (b"one",), "while one runs, too"
    store.close()
    assert read_events(str(path)) == (b"one",)
    path.write_bytes(b"not a database")
    assert read_events(str(path)) == ()
