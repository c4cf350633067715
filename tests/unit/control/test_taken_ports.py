"""Listeners that could not be opened, in Envoy's words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.fakes.port_claims import FakeClaims

from meshctl.ads.status import SyncState, SyncStatus, describe_disconnected
from meshctl.control.taken_ports import TakenPorts, find_bind_errors
from meshctl.control.topology import PortProbe

WORDS = "inbound/web-v1-1: error adding listener 'inbound/web-v1-1': cannot bind '{}': Address already in use"


def status(*errors: str, state: SyncState = "rejected") -> SyncStatus:
    away = describe_disconnected("web")
    types = tuple(replace(item, error=error) for item, error in zip(away.types, errors, strict=False))
    return replace(away, state=state, connected=True, types=types)


@pytest.mark.parametrize(
    ("found", "addresses"),
    [
        (status(), ()),
        (status("web/v1: no such cluster"), ()),
        (status(WORDS.format("127.0.0.1:20001")), (("127.0.0.1", 20001),)),
        (status(WORDS.format("[::1]:20001")), (("::1", 20001),)),
        (status(WORDS.format("0.0.0.0:80"), WORDS.format("127.0.0.1:7")), (("0.0.0.0", 80), ("127.0.0.1", 7))),
        (status(f"{WORDS.format('127.0.0.1:2')}; {WORDS.format('127.0.0.1:1')}"), (("127.0.0.1", 1), ("127.0.0.1", 2))),
        (status(WORDS.format("127.0.0.1:20001"), state="stale"), ()),
    ],
)
def test_the_addresses_are_found_in_what_was_refused(found: SyncStatus, addresses: tuple[object, ...]) -> None:
    assert find_bind_errors(found) == addresses


def test_each_is_told_once_and_tried_again_whenever_one_of_its_ports_is_free() -> None:
    statuses = {"web": status(WORDS.format("127.0.0.1:1")), "api": status(state="synced")}
    taken, told, retried = {1, 2}, list[tuple[str, str]](), list[str]()
    watch = TakenPorts(
        nodes=lambda: statuses,
        sync=statuses.__getitem__,
        probe=PortProbe(
            explain=lambda _, port: f"port {port} is held" if port in taken else "",
            is_free=lambda _, port: port not in taken,
            claims=FakeClaims(),
        ),
        retry=retried.append,
        report=lambda node, message: told.append((node, message)),
    )
    watch.look()
    watch.look()
    assert (told, retried) == ([("web", "the sidecar of web cannot listen: port 1 is held")], [])
    taken.clear()
    watch.look()
    assert (len(told), retried) == (1, ["web"])
    statuses["web"] = status(state="synced")
    watch.look()
    statuses["web"] = status(WORDS.format("127.0.0.1:2"))
    watch.look()
    assert told[1:] == [("web", "the sidecar of web cannot listen: port 2 was taken")]
    assert retried == ["web", "web"]
