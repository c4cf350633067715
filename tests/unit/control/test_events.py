"""The log of what happened: numbered, bounded, followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.fakes.clock import FakeClock
from tests.fakes.event_store import FakeEventStore

from meshctl.control.events import EventLog
from meshctl.ports import KEPT_EVENTS
from meshctl.wire.models import Event


@pytest.fixture
def log() -> EventLog:
    return EventLog(FakeClock())


def fill(log: EventLog, count: int) -> None:
    for number in range(count):
        log.add("instance.ready", f"web-v1-{number}", "ready")


async def collect(items: AsyncIterator[Event]) -> list[int]:
    return [event.seq async for event in items]


async def test_events_are_numbered_and_read_from_any_number_on(log: EventLog) -> None:
    assert log.last == 0
    fill(log, 3)
    assert log.last == 3
    assert await collect(log.read(None, follow=False)) == [1, 2, 3]
    assert await collect(log.read(2, follow=False)) == [3]
    assert await collect(log.read(3, follow=False)) == []


async def test_an_event_says_what_when_about_whom_and_how_bad(log: EventLog) -> None:
    event = log.add("instance.dead", "web-v1-1", "its liveness check failed", "error")
    assert (event.seq, event.time, event.kind) == (1, 1_700_000_000.0, "instance.dead")
    assert (event.subject, event.message, event.level) == ("web-v1-1", "its liveness check failed", "error")


async def test_the_oldest_go_first(log: EventLog) -> None:
    fill(log, KEPT_EVENTS + 10)
    kept = await collect(log.read(None, follow=False))
    assert kept == list(range(11, KEPT_EVENTS + 11))


async def test_followers_see_every_event_once_and_in_order(log: EventLog) -> None:
    fill(log, 2)
    followers = [asyncio.ensure_future(collect(log.read(since, follow=True))) for since in (None, 1, 2)]
    for _ in range(5):
        await asyncio.sleep(0)
        fill(log, 2)
    log.close()
    assert await asyncio.gather(*followers) == [list(range(1, 13)), list(range(2, 13)), list(range(3, 13))]


async def test_a_follower_gets_what_it_has_not_seen_before_the_end(log: EventLog) -> None:
    fill(log, 2)
    log.close()
    assert await collect(log.read(None, follow=True)) == [1, 2]
    assert await collect(log.read(2, follow=True)) == []


async def test_a_follower_that_goes_away_leaves_nothing(log: EventLog) -> None:
    follower = asyncio.ensure_future(collect(log.read(None, follow=True)))
    await asyncio.sleep(0)
    assert len(log._waiters) == 1
    follower.cancel()
    await asyncio.wait([follower])
    assert log._waiters == set()


async def test_a_number_beyond_the_last_waits_for_what_comes_after_it(log: EventLog) -> None:
    """Another control plane counted further."""
    follower = asyncio.ensure_future(collect(log.read(2, follow=True)))
    for _ in range(4):
        fill(log, 1)
        await asyncio.sleep(0)
    log.close()
    assert await follower == [3, 4]


async def test_numbers_go_on_where_an_earlier_control_plane_stopped() -> None:
    kept = FakeEventStore()
    fill(EventLog(FakeClock(), kept), 3)
    after = EventLog(FakeClock(), kept)
    assert after.begun == 3
    fill(after, 2)
    assert await collect(after.read(None, follow=False)) == [1, 2, 3, 4, 5]
    assert await collect(after.read(3, follow=False)) == [4, 5]


async def test_a_full_disk_stops_nothing_and_damage_hides_nothing_else() -> None:
    kept = FakeEventStore()
    kept.bodies[0] = b"not an event"
    log = EventLog(FakeClock(), kept)
    kept.full = True
    fill(log, 2)
    assert await collect(log.read(None, follow=False)) == [1, 2]
