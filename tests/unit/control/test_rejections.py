"""What sidecars refuse is told once, and once when it is over."""

from __future__ import annotations

from dataclasses import replace

from tests.fakes.clock import FakeClock

from meshctl.ads.status import SyncState, SyncStatus, describe_disconnected
from meshctl.control.events import EventLog
from meshctl.control.rejections import Rejections

TAKEN = "outbound: cannot bind '127.0.0.1:20005': Address already in use"


def status(state: SyncState, error: str = "") -> SyncStatus:
    away = describe_disconnected("web")
    types = tuple(replace(item, error=error) for item in away.types)
    return replace(away, state=state, connected=state != "disconnected", error=error, types=types)


async def tell(*statuses: SyncStatus) -> list[tuple[str, str, str]]:
    log = EventLog(FakeClock())
    rejections = Rejections(log)
    for item in statuses:
        rejections.take("web", item)
    return [(event.kind, event.subject, event.message) async for event in log.read(None, follow=False)]


async def test_a_rejection_is_told_once_and_so_is_its_end() -> None:
    bad = status("rejected", "routes: no such cluster")
    away, good = status("disconnected"), status("synced")
    found = await tell(good, bad, bad, away, bad, status("stale"), good, good, bad)
    refused = ("sidecar.rejected", "web", "web: its sidecar refused routes: no such cluster")
    accepted = ("sidecar.accepted", "web", "web: its sidecar has all of its configuration again")
    assert found == [refused, accepted, refused]


async def test_another_reason_is_told() -> None:
    found = await tell(status("rejected", "clusters: a"), status("rejected", "clusters: b"))
    assert [message for _, _, message in found] == [
        "web: its sidecar refused clusters: a",
        "web: its sidecar refused clusters: b",
    ]


async def test_a_port_that_was_taken_is_told_by_those_who_know_by_whom() -> None:
    assert await tell(status("rejected", TAKEN), status("synced")) == []
