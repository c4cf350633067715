"""What people are shown of a session."""

from __future__ import annotations

from tests.unit.ads.playbook import NODE, cluster, endpoints, listener, routes, snap, synced_playbook

from meshctl.ads.session import Session
from meshctl.ads.status import TYPE_NAMES, SyncStatus, describe, describe_disconnected

BASE = (cluster("a@1"), endpoints("a@1"), listener("l@1"), routes("r@1", "a"))


def states(status: SyncStatus) -> dict[str, str]:
    return {item.type: item.state for item in status.types}


def test_a_sidecar_without_stream_is_disconnected() -> None:
    status = describe_disconnected(NODE, "abc")
    assert (status.node, status.state, status.connected, status.version) == (NODE, "disconnected", False, "abc")
    assert states(status) == dict.fromkeys(TYPE_NAMES.values(), "disconnected")


def test_a_sidecar_without_snapshot_is_stale() -> None:
    status = describe(Session(NODE))
    assert (status.state, status.version) == ("stale", "")
    assert set(states(status).values()) == {"stale"}


def test_a_sidecar_that_acknowledged_everything_is_synced() -> None:
    status = describe(synced_playbook(*BASE).session)
    assert (status.state, status.connected, status.error) == ("synced", True, "")
    assert status.version == snap(*BASE).version
    assert set(states(status).values()) == {"synced"}
    assert {item.type: item.resources for item in status.types} == {
        "clusters": 1,
        "endpoints": 1,
        "secrets": 0,
        "listeners": 1,
        "routes": 1,
        "runtime": 0,
        "rates": 0,
    }


def test_only_the_type_with_a_change_on_its_way_is_stale() -> None:
    play = synced_playbook(*BASE).publish(*BASE[:3], routes("r@2", "a"), then="routes +r@2")
    status = describe(play.session)
    assert status.state == "stale"
    assert [(item.type, item.pending) for item in status.types if item.state == "stale"] == [("routes", 1)]


def test_what_waits_to_be_removed_counts_as_pending() -> None:
    play = synced_playbook(*BASE, cluster("b@1")).publish(*BASE, then="clusters -b")
    assert [(item.type, item.pending) for item in describe(play.session).types if item.pending] == [("clusters", 1)]


def test_what_was_rejected_is_shown_with_its_name_and_the_words() -> None:
    play = synced_playbook(*BASE).publish(*BASE, cluster("b@x"), cluster("c@x"), then="clusters +b@x +c@x")
    play.nack(
        "clusters",
        "Error adding/updating cluster(s) b: no such type, c: no such type\n",
        then="nack clusters b c",
    )
    status = describe(play.session)
    words = "Error adding/updating cluster(s) b: no such type, c: no such type"
    assert (status.state, status.error) == ("rejected", f"b: {words}")
    assert status.types[0].state == "rejected"
    assert status.types[0].rejected == 2
    assert status.types[0].error == f"b: {words}; c: {words}"
    assert [item.state for item in status.types[1:]] == ["synced"] * 6


def test_the_digest_changes_with_what_the_sidecar_has() -> None:
    play = synced_playbook(*BASE)
    before = describe(play.session).types
    play.publish(*BASE[:3], routes("r@2", "a"), then="routes +r@2")
    assert [item.version for item in describe(play.session).types] == [item.version for item in before]
    play.ack("routes", then="synced")
    after = describe(play.session).types
    assert [item.version for item in after[:4]] == [item.version for item in before[:4]]
    assert after[4].version != before[4].version
    assert before[2].version == ""
