"""What every RolloutStore does: the real one and the fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.state_store import FakeStateStore

from meshctl.adapters.sqlite_store import SqliteStore
from meshctl.ports import KEPT_ENTRIES, KEPT_ROLLOUTS, RolloutStore


@pytest.fixture(params=["sqlite", "fake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RolloutStore]:
    if request.param == "fake":
        yield FakeStateStore()
        return
    real = SqliteStore(str(tmp_path / "state.db"))
    yield real
    real.close()


def test_a_new_store_has_no_rollouts(store: RolloutStore) -> None:
    assert dict(store.rollouts()) == {}
    assert dict(store.rollout_entries(1)) == {}


def test_a_rollout_is_replaced_and_its_entries_add_up(store: RolloutStore) -> None:
    store.put_rollout(1, '{"at": 5}', {1: '"begin"'})
    store.put_rollout(2, '{"at": 0}', {})
    store.put_rollout(1, '{"at": 10}', {2: '"tick"', 3: '"ä"'})
    assert list(store.rollouts().items()) == [(1, '{"at": 10}'), (2, '{"at": 0}')]
    assert list(store.rollout_entries(1).items()) == [(1, '"begin"'), (2, '"tick"'), (3, '"ä"')]
    assert dict(store.rollout_entries(2)) == {}


def test_old_rollouts_are_forgotten_with_their_entries(store: RolloutStore) -> None:
    for number in range(1, KEPT_ROLLOUTS + 3):
        store.put_rollout(number, "{}", {1: "{}"})
    assert list(store.rollouts()) == list(range(3, KEPT_ROLLOUTS + 3))
    assert dict(store.rollout_entries(2)) == {}
    assert dict(store.rollout_entries(3)) == {1: "{}"}


def test_of_a_rollout_without_end_the_newest_is_kept(store: RolloutStore) -> None:
    store.put_rollout(1, "{}", {1: '"begin"', 2: '"old"'})
    store.put_rollout(1, "{}", {KEPT_ENTRIES + 1: '"new"'})
    assert dict(store.rollout_entries(1)) == {2: '"old"', KEPT_ENTRIES + 1: '"new"'}


def test_rollouts_are_there_when_the_database_is_opened_again(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    first = SqliteStore(path)
    first.put_rollout(7, "{}", {1: "{}"})
    first.close()
    again = SqliteStore(path)
    assert (dict(again.rollouts()), dict(again.rollout_entries(7))) == ({7: "{}"}, {1: "{}"})
    again.close()
