"""The session, rule by rule: given what a sidecar says, this is what it is sent."""

from __future__ import annotations

import pytest
from tests.unit.ads.playbook import (
    URLS,
    Playbook,
    cluster,
    endpoints,
    listener,
    routes,
    secret,
    snap,
    synced_playbook,
)

from meshctl.ads.session import RenewLeases, Request, RetryRejected, Session, SnapshotChanged
from meshctl.ads.snapshot import ROUTE, RUNTIME, Resource, resource

BASE = (cluster("a@1"), endpoints("a@1"), secret("s@1"), listener("l@1"), routes("r@1", "a"))


# ------------------------------------------------------------------------------------------------------ first contact


def test_a_new_sidecar_is_served_as_it_asks() -> None:
    (
        Playbook()
        .publish(*BASE)
        .subscribe("clusters", then="clusters +a@1")
        .subscribe("endpoints", "a", then="endpoints +a@1")
        .ack("clusters")
        .subscribe("secrets", "s", then="secrets +s@1")
        .ack("endpoints")
        .ack("secrets")
        .subscribe("listeners", then="listeners +l@1")
        .subscribe("routes", "r", then="routes +r@1")
        .ack("listeners")
        .ack("routes", then="synced")
    )


def test_nothing_is_sent_before_there_is_a_snapshot() -> None:
    (
        Playbook()
        .subscribe("clusters")
        .subscribe("endpoints", "a")
        .publish(cluster("a@1"), endpoints("a@1"), then=["clusters +a@1", "endpoints +a@1"])
    )


def test_a_first_fetch_that_finds_nothing_is_answered_once() -> None:
    (
        Playbook()
        .publish()
        .subscribe("clusters", then="clusters")
        .ack("clusters")
        .subscribe("listeners", then="listeners")
        .ack("listeners", then="synced")
        .publish(cluster("a@1"), then="clusters +a@1")
        .ack("clusters", then="synced")
    )


def test_the_first_fetch_of_endpoints_without_names_asks_for_nothing() -> None:
    Playbook().publish(cluster("a@1"), endpoints("a@1")).subscribe("endpoints")


def test_a_star_asks_for_all_and_asking_again_means_that_all_was_forgotten() -> None:
    (
        Playbook()
        .publish(secret("s@1"), secret("t@1"))
        .subscribe("secrets", "*", then="secrets +s@1 +t@1")
        .ack("secrets")
        .subscribe("secrets", "*", then="secrets +s@1 +t@1")
        .ack("secrets")
        .unsubscribe("secrets", "*")
        .publish(secret("s@2"))
    )


def test_a_star_asked_for_again_while_a_response_is_on_its_way_has_all_sent_again() -> None:
    (
        Playbook()
        .publish(secret("s@1"), secret("t@1"))
        .subscribe("secrets", "*", then="secrets +s@1 +t@1")
        .subscribe("secrets", "*")
        .ack("secrets", then="secrets +s@1 +t@1")
        .ack("secrets")
    )


def test_leaving_a_name_that_a_star_still_covers_is_answered() -> None:
    (
        Playbook()
        .publish(secret("s@1"))
        .subscribe("secrets", "*", "s", then="secrets +s@1")
        .ack("secrets")
        .unsubscribe("secrets", "s", then="secrets +s@1")
        .ack("secrets")
        .unsubscribe("secrets", "never")
    )


def test_a_type_that_is_not_served_is_passed_over() -> None:
    assert Session("n").receive(Request(type_url="type.googleapis.com/envoy.service.runtime.v3.Runtime")) == []


# -------------------------------------------------------------------------------------------------------- coming back


def test_what_a_sidecar_has_is_not_sent_again() -> None:
    (
        Playbook()
        .publish(*BASE)
        .subscribe("clusters", has={"a": "1"})
        .subscribe("endpoints", "a", has={"a": "1"})
        .subscribe("secrets", "s", has={"s": "1"})
        .subscribe("listeners", has={"l": "1"})
        .subscribe("routes", "r", has={"r": "1"}, then="synced")
    )


def test_what_differs_is_sent_and_what_is_gone_is_removed_last() -> None:
    (
        Playbook()
        .publish(*BASE)
        .subscribe("clusters", has={"a": "1", "old": "1"})
        .subscribe("endpoints", "a", "old", has={"a": "1", "old": "1"})
        .subscribe("listeners", has={"l": "1"})
        .subscribe("routes", "r", has={"r": "0"}, then="routes +r@1")
        .ack("routes", then="clusters -old")
        .unsubscribe("endpoints", "old")
        .ack("clusters", then="synced")
    )


def test_versions_of_names_that_are_not_subscribed_count_for_nothing() -> None:
    Playbook().publish(endpoints("a@1")).subscribe("endpoints", has={"a": "1"}).subscribe(
        "endpoints", "a", then="endpoints +a@1"
    )


def test_an_updated_cluster_gets_its_endpoints_although_the_sidecar_comes_back_with_them() -> None:
    (
        Playbook()
        .publish(cluster("a@2"), endpoints("a@1"))
        .subscribe("clusters", has={"a": "1"}, then="clusters +a@2")
        .subscribe("endpoints", "a", has={"a": "1"}, then="endpoints +a@1")
        .ack("endpoints")
        .ack("clusters")
    )


def test_endpoints_asked_for_before_clusters_are_sent_because_clusters_wait_for_them() -> None:
    (
        Playbook()
        .publish(cluster("a@1"), endpoints("a@1"))
        .subscribe("endpoints", "a", has={"a": "1"}, then="endpoints +a@1")
        .subscribe("clusters", has={"a": "1"})
        .ack("endpoints")
    )


# ------------------------------------------------------------------------------------------------------------ changes


@pytest.mark.parametrize(
    ("changed", "sent"),
    [
        (secret("s@2"), "secrets +s@2"),
        (listener("l@2"), "listeners +l@2"),
        (routes("r@2", "a"), "routes +r@2"),
        (endpoints("a@2"), "endpoints +a@2"),
    ],
)
def test_only_what_changed_is_sent(changed: object, sent: str) -> None:
    kept = [item for item in BASE if item.type_url != getattr(changed, "type_url", "")]
    play = synced_playbook(*BASE)
    play.publish(*kept, changed, then=sent)  # type: ignore[arg-type]
    play.ack(sent.split(maxsplit=1)[0], then="synced")


def test_an_equal_snapshot_sends_nothing() -> None:
    synced_playbook(*BASE).publish(*BASE)


def test_new_clusters_go_first_and_routes_wait_for_them_and_their_endpoints() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:4], cluster("b@1"), endpoints("b@1"), routes("r@2", "a", "b"), then="clusters +b@1")
        .subscribe("endpoints", "b", then="endpoints +b@1")
        .ack("endpoints")
        .ack("clusters", then="routes +r@2")
        .ack("routes", then="synced")
    )


def test_routes_wait_for_the_request_for_endpoints_that_follows_a_cluster() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:4], cluster("b@1"), endpoints("b@1"), routes("r@2", "b"), then="clusters +b@1")
        .ack("clusters")
        .subscribe("endpoints", "b", then="endpoints +b@1")
        .ack("endpoints", then="routes +r@2")
    )


def test_routes_that_need_nothing_new_do_not_wait() -> None:
    (
        synced_playbook(*BASE, routes("q@1", "a"))
        .publish(
            *BASE[:4],
            cluster("b@1"),
            endpoints("b@1"),
            routes("r@2", "b"),
            routes("q@2", "a"),
            then=["clusters +b@1", "routes +q@2"],
        )
        .ack("routes")
        .subscribe("endpoints", "b", then="endpoints +b@1")
        .ack("clusters")
        .ack("endpoints", then="routes +r@2")
    )


def test_a_tcp_listener_waits_for_its_cluster() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE, cluster("b@1"), endpoints("b@1"), listener("tcp@1", "b"), then="clusters +b@1")
        .subscribe("endpoints", "b", then="endpoints +b@1")
        .ack("clusters")
        .ack("endpoints", then="listeners +tcp@1")
        .ack("listeners", then="synced")
    )


def test_an_updated_cluster_is_followed_by_its_endpoints_although_they_are_the_same() -> None:
    (
        synced_playbook(*BASE)
        .publish(cluster("a@2"), *BASE[1:], then=["clusters +a@2", "endpoints +a@1"])
        .ack("endpoints")
        .ack("clusters", then="synced")
    )


def test_endpoints_on_their_way_when_a_cluster_changes_are_sent_again() -> None:
    (
        synced_playbook(*BASE)
        .publish(BASE[0], endpoints("a@2"), *BASE[2:], then="endpoints +a@2")
        .publish(cluster("a@2"), endpoints("a@2"), *BASE[2:], then="clusters +a@2")
        .ack("endpoints", then="endpoints +a@2")
        .ack("endpoints")
        .ack("clusters", then="synced")
    )


def test_an_update_of_endpoints_follows_the_update_of_their_cluster() -> None:
    other = (cluster("b@1"), endpoints("b@1"))
    (
        synced_playbook(*BASE)
        .publish(*BASE, *other, then="clusters +b@1")
        .publish(cluster("a@2"), endpoints("a@2"), *BASE[2:], *other)
        .subscribe("endpoints", "b", then="endpoints +b@1")
        .ack("endpoints")
        .ack("clusters", then=["clusters +a@2", "endpoints +a@2"])
    )


def test_a_newer_snapshot_replaces_what_was_not_sent() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:4], routes("r@2", "a"), then="routes +r@2")
        .publish(*BASE[:4], routes("r@3", "a"))
        .publish(*BASE[:4], routes("r@4", "a"))
        .ack("routes", then="routes +r@4")
        .ack("routes", then="synced")
    )


def test_a_change_that_was_taken_back_before_it_was_acknowledged_is_undone() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:4], routes("r@2", "a"), then="routes +r@2")
        .publish(*BASE)
        .ack("routes", then="routes +r@1")
        .ack("routes", then="synced")
    )


def test_an_answer_to_another_response_is_no_acknowledgement() -> None:
    play = synced_playbook(*BASE).publish(*BASE[:4], routes("r@2", "a"), then="routes +r@2")
    play.event(Request(type_url=ROUTE, nonce="an older one"))
    play.event(Request(type_url=ROUTE, nonce="an older one", error="no"))
    play.ack("routes", then="synced")


# ------------------------------------------------------------------------------------------------------------- asking


def test_a_name_that_is_asked_for_again_is_sent_again() -> None:
    synced_playbook(*BASE).subscribe("endpoints", "a", then="endpoints +a@1").ack("endpoints", then="synced")


def test_a_name_asked_for_while_it_is_on_its_way_is_sent_again() -> None:
    (
        synced_playbook(*BASE)
        .publish(BASE[0], endpoints("a@2"), *BASE[2:], then="endpoints +a@2")
        .subscribe("endpoints", "a")
        .ack("endpoints", then="endpoints +a@2")
        .ack("endpoints", then="synced")
    )


def test_a_request_may_acknowledge_and_ask_at_once() -> None:
    (
        synced_playbook(*BASE)
        .publish(BASE[0], endpoints("a@2"), *BASE[2:], then="endpoints +a@2")
        .ack("endpoints", subscribe=("a",), then="endpoints +a@2")
        .ack("endpoints", then="synced")
    )


def test_a_name_that_does_not_exist_is_said_to_be_removed_once() -> None:
    (
        synced_playbook(*BASE)
        .subscribe("endpoints", "ghost", then="endpoints -ghost")
        .ack("endpoints", then="synced")
        .publish(*BASE[:4], routes("r@2", "a"), then="routes +r@2")
        .ack("routes", then="synced")
        .subscribe("endpoints", "ghost", then="endpoints -ghost")
        .ack("endpoints", then="synced")
        .publish(
            *BASE[:4],
            routes("r@2", "a"),
            cluster("ghost@1"),
            endpoints("ghost@1"),
            then=["clusters +ghost@1", "endpoints +ghost@1"],
        )
    )


def test_routes_that_do_not_exist_are_not_said_to_be_removed() -> None:
    # Envoy 1.40 would stop the timer that ends the listener's wait.
    synced_playbook(*BASE).subscribe("routes", "ghost")


def test_a_name_that_was_left_is_not_sent() -> None:
    (
        synced_playbook(*BASE, secret("t@1"))
        .unsubscribe("secrets", "t", "never-asked-for")
        .publish(*BASE, secret("t@2"), then="synced")
    )


def test_a_name_left_while_it_is_on_its_way_is_forgotten() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:2], secret("s@2"), *BASE[3:], then="secrets +s@2")
        .unsubscribe("secrets", "s")
        .ack("secrets", then="synced")
        .subscribe("secrets", "s", then="secrets +s@2")
    )


# ----------------------------------------------------------------------------------------------------------- removals


def test_users_are_removed_before_what_they_use() -> None:
    (
        synced_playbook(*BASE, cluster("b@1"), endpoints("b@1"), listener("m@1"), routes("q@1", "b"))
        .publish(*BASE, then="listeners -m")
        .ack("listeners", then="routes -q")
        .ack("routes", then="clusters -b")
        .ack("clusters", then="endpoints -b")
        .ack("endpoints", then="synced")
    )


def test_removals_wait_until_everything_else_is_acknowledged() -> None:
    (
        synced_playbook(*BASE, cluster("b@1"), endpoints("b@1"))
        .publish(*BASE[:2], secret("s@2"), BASE[3], routes("r@2", "a"), then=["secrets +s@2", "routes +r@2"])
        .ack("routes")
        .ack("secrets", then="clusters -b")
        .unsubscribe("endpoints", "b")
        .ack("clusters", then="synced")
    )


def test_a_cluster_that_rejected_routes_may_still_use_is_kept() -> None:
    (
        synced_playbook(*BASE)
        .publish(cluster("b@1"), endpoints("b@1"), *BASE[2:4], routes("r@2", "b"), then="clusters +b@1")
        .subscribe("endpoints", "b", then="endpoints +b@1")
        .ack("clusters")
        .ack("endpoints", then="routes +r@2")
        .nack("routes", "no", then="nack routes r")
        .publish(cluster("b@1"), endpoints("b@1"), *BASE[2:4], routes("r@3", "b"), then="routes +r@3")
        .ack("routes", then="clusters -a")
        .unsubscribe("endpoints", "a")
        .ack("clusters", then="synced")
    )


def test_a_removed_resource_that_comes_back_is_sent() -> None:
    (
        synced_playbook(*BASE, cluster("b@1"))
        .publish(*BASE, then="clusters -b")
        .publish(*BASE, cluster("b@1"))
        .ack("clusters", then="clusters +b@1")
        .ack("clusters", then="synced")
    )


# --------------------------------------------------------------------------------------------------------- rejections


def test_a_rejected_version_is_not_sent_again_until_its_content_changes() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:4], routes("r@bad", "a"), then="routes +r@bad")
        .nack("routes", "no", then="nack routes r")
        .publish(*BASE[:2], secret("s@2"), BASE[3], routes("r@bad", "a"), then="secrets +s@2")
        .ack("secrets")
        .subscribe("routes", "r")
        .publish(*BASE[:2], secret("s@2"), BASE[3], routes("r@3", "a"), then="routes +r@3")
        .ack("routes", then="synced")
        .publish(*BASE[:2], secret("s@2"), BASE[3], routes("r@bad", "a"))
    )


def test_a_rejected_version_is_tried_once_more_when_told_so() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:3], listener("l@taken"), BASE[4], then="listeners +l@taken")
        .nack("listeners", "Error adding/updating listener(s) l: Address already in use", then="nack listeners l")
        .event(RetryRejected(), then="listeners +l@taken")
        .ack("listeners", then="synced")
    )


def test_of_a_response_that_names_its_faults_the_others_are_sent_again() -> None:
    # Envoy has them already, but remembers no version of them.
    (
        synced_playbook(*BASE)
        .publish(*BASE, cluster("b@1"), cluster("c@1"), cluster("d@1"), then="clusters +b@1 +c@1 +d@1")
        .nack(
            "clusters",
            "Error adding/updating cluster(s) b: no b, d: no d, c is fine",
            then=["nack clusters b d", "clusters +c@1"],
        )
        .ack("clusters")
    )


def test_of_a_response_that_names_no_fault_each_is_tried_alone() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE, cluster("b@1"), cluster("c@1"), cluster("d@1"), then="clusters +b@1 +c@1 +d@1")
        .nack("clusters", "Invalid duration", then=["nack clusters", "clusters +b@1"])
        .ack("clusters", then="clusters +c@1")
        .nack("clusters", "Invalid duration", then=["nack clusters c", "clusters +d@1"])
        .ack("clusters")
    )


def test_rejected_clusters_do_not_hold_up_the_routes_that_need_them() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:4], cluster("b@1"), endpoints("b@1"), routes("r@2", "a", "b"), then="clusters +b@1")
        .nack("clusters", "no", then=["nack clusters b", "routes +r@2"])
        .ack("routes")
    )


def test_rejected_endpoints_do_not_hold_up_the_routes_that_need_them() -> None:
    (
        synced_playbook(*BASE)
        .publish(*BASE[:4], cluster("b@1"), endpoints("b@1"), routes("r@2", "b"), then="clusters +b@1")
        .subscribe("endpoints", "b", then="endpoints +b@1")
        .nack("endpoints", "no", then="nack endpoints b")
        .ack("clusters", then="routes +r@2")
        .ack("routes")
    )


def test_a_removal_is_not_blamed_for_what_was_sent_with_it() -> None:
    (
        synced_playbook(*BASE)
        .publish(BASE[0], endpoints("a@bad"), *BASE[2:], then="endpoints +a@bad")
        .subscribe("endpoints", "ghost")
        .publish(BASE[0], endpoints("a@worse"), *BASE[2:])
        .nack("endpoints", "no", then=["nack endpoints a", "endpoints +a@worse -ghost"])
        .nack("endpoints", "no", then=["nack endpoints a", "endpoints -ghost"])
        .ack("endpoints")
    )


def test_a_removal_that_is_refused_is_not_repeated() -> None:
    play = synced_playbook(*BASE, cluster("b@1")).publish(*BASE, then="clusters -b")
    play.nack("clusters", "in use", then="nack clusters b").publish(*BASE)
    assert play.session.find_rejections() == [(URLS["clusters"], "b", "in use")]
    assert (play.session.is_settled, play.session.is_synced) == (True, False)


def test_a_sidecar_whose_listener_was_refused_does_not_have_to_ask_for_its_routes() -> None:
    play = (
        Playbook()
        .publish(listener("l@1"), routes("r@1"))
        .subscribe("clusters", then="clusters")
        .ack("clusters")
        .subscribe("listeners", then="listeners +l@1")
        .nack("listeners", "no", then="nack listeners l")
    )
    assert play.session.is_settled


# ------------------------------------------------------------------------------------------------------------- synced


def test_a_sidecar_is_not_synced_before_it_asked_for_what_it_will_need() -> None:
    play = (
        Playbook()
        .publish(cluster("a@1"), endpoints("a@1"), listener("l@1"), routes("r@1", "a"))
        .subscribe("clusters", then="clusters +a@1")
        .ack("clusters")
    )
    assert not play.session.is_synced
    play.subscribe("endpoints", "a", then="endpoints +a@1").ack("endpoints")
    assert not play.session.is_synced
    play.subscribe("listeners", then="listeners +l@1").ack("listeners")
    assert not play.session.is_synced
    play.subscribe("routes", "r", then="routes +r@1").ack("routes", then="synced")
    assert play.session.is_synced


def test_secrets_that_nobody_uses_are_not_waited_for() -> None:
    used = (*BASE[:2], *BASE[3:])
    synced_playbook(*used).publish(*used, secret("unused@1"), then="synced")


def test_a_session_without_snapshot_has_nothing_to_report() -> None:
    session = Session("n")
    assert session.receive(Request(type_url=URLS["clusters"])) == []
    assert session.find_rejections() == []
    assert session.count_pending(URLS["clusters"]) == 0
    assert (session.is_settled, session.is_synced, session.snapshot) == (False, False, None)


def test_nonces_are_never_used_twice() -> None:
    play = synced_playbook(*BASE)
    nonces = [
        command.nonce
        for content in ("2", "3", "4")
        for command in play.session.receive(SnapshotChanged(snap(*BASE[:2], secret(f"s@{content}"), *BASE[3:])))
        + play.session.receive(Request(type_url=URLS["secrets"], subscribe=("s",)))
        if hasattr(command, "nonce")
    ]
    assert len(nonces) == len(set(nonces))


# ------------------------------------------------------------------------------------------------------------- leases


def leased(text: str) -> Resource:
    name, content = text.split("@")
    return resource(RUNTIME, name, content.encode(), leased=True)


def test_what_is_leased_is_sent_again_whole_and_nobody_waits_for_the_answer() -> None:
    play = (
        Playbook()
        .publish(leased("faults@1"), listener("l@1"))
        .subscribe("clusters", then="clusters")
        .ack("clusters")
        .subscribe("listeners", then="listeners +l@1")
        .ack("listeners", then="synced")
        .subscribe("runtime", "faults", then="runtime +faults@1")
        .ack("runtime", then="synced")
        .event(RenewLeases(), then="runtime +faults@1")
    )
    assert play.session.is_synced
    play.event(Request(type_url=RUNTIME, nonce="4")).event(RenewLeases(), then="runtime +faults@1")
    assert play.session.is_synced


def test_what_is_not_leased_or_not_taken_yet_is_not_renewed() -> None:
    (
        Playbook()
        .publish(leased("faults@1"), listener("l@1"))
        .event(RenewLeases())
        .subscribe("clusters", then="clusters")
        .subscribe("listeners", then="listeners +l@1")
        .ack("listeners")
        .subscribe("runtime", "faults", then="runtime +faults@1")
        .event(RenewLeases())
        .publish(leased("faults@2"), listener("l@1"))
        .ack("runtime", then="runtime +faults@2")
        .event(RenewLeases())
        .nack("runtime", "no", then="nack runtime faults")
        .event(RenewLeases())
    )
