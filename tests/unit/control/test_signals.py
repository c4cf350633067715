"""Windows as rows: by service, version, edge, route, flow and instance."""

from __future__ import annotations

from typing import Any

from meshctl.control.signals import Rows, build_rows
from meshctl.telemetry.buckets import bucket_of
from meshctl.telemetry.names import Flow, Outcome
from meshctl.telemetry.places import Directory
from meshctl.telemetry.rollup import ClusterDelta
from meshctl.telemetry.tally import Tally
from meshctl.telemetry.windows import Gauges, Window
from meshctl.wire.metrics import Row

OK, BAD = Outcome(200, -1, ""), Outcome(503, -1, "UH")
DIRECTORY = Directory(
    trust_domain="shop.mesh",
    versions={"cart": ("v1",), "orders": ("v1", "v2"), "pay": ("v1",)},
    edges=frozenset({("web", "orders"), ("cart", "orders"), ("orders", "pay")}),
    instances={"orders-v1-1": ("orders", "v1"), "orders-v2-1": ("orders", "v2")},
    secured={"cart": True, "orders": True, "pay": False},
)


def tally(good: int, bad: int = 0, seconds: float = 10) -> Tally:
    outcomes = {OK: good} | ({BAD: bad} if bad else {})
    return Tally(outcomes=outcomes, durations={bucket_of(5): good}, rate=(good + bad) / seconds)


def caller(cluster: str, route: str = "orders") -> Flow:
    return Flow("caller", cluster, route)


def window(**changes: Any) -> Window:
    return Window(**{"seconds": 10.0, "age": 0.5, "resets": 0, **changes})


WINDOWS = {
    "web": window(
        flows={caller("orders/v1"): tally(80, 10), caller("orders/v2"): tally(10), caller("", "unknown"): tally(1)},
        clusters={"orders/v1": ClusterDelta(retries=4, sent=1000, received=5000)},
        cluster_gauges={"orders/v1": Gauges(active=2, connections=3, ejected=1)},
    ),
    "cart": window(flows={caller("orders/v1"): tally(20)}),
    "orders": window(
        seconds=0.0,
        age=12.0,
        flows={
            Flow("callee", "orders-v1-1", "spiffe://shop.mesh/web"): tally(84, 14),
            Flow("callee", "orders-v1-1", "spiffe://shop.mesh/cart"): tally(20),
        },
        instance_gauges={"orders-v1-1": Gauges(active=7, connections=8)},
    ),
}


def rows(**more: Any) -> Rows:
    return build_rows(DIRECTORY, WINDOWS, **more)


def find(found: list[Row], **names: str) -> Row:
    (row,) = [row for row in found if all(getattr(row, name) == value for name, value in names.items())]
    return row


def test_a_service_is_all_its_callers_and_versions() -> None:
    row = find(rows().services, destination="orders")
    assert (row.requests, row.failures, row.retries, row.rate) == (120, 10, 4, 12)
    assert row.success == round(110 / 120, 6)
    assert (row.statuses, row.reasons) == ({"200": 110, "503": 10}, {"UH": 10})
    assert (row.active, row.connections, row.ejected, row.sent_rate, row.received_rate) == (2, 3, 1, 100, 500)
    assert row.p50_ms is not None
    assert bucket_of(row.p50_ms) == bucket_of(5)


def test_versions_add_up_to_their_service() -> None:
    found = rows()
    whole = find(found.services, destination="orders")
    parts = [row for row in found.versions if row.destination == "orders"]
    assert [row.version for row in parts] == ["v1", "v2"]
    assert sum(row.requests for row in parts) == whole.requests
    assert sum(row.rate or 0 for row in parts) == whole.rate


def test_an_edge_shows_both_sides() -> None:
    row = find(rows().edges, source="web", destination="orders")
    assert (row.requests, row.failures, row.secured) == (100, 10, True)
    assert row.served is not None
    assert (row.served.requests, row.served.failures) == (98, 14)


def test_what_took_no_route_goes_nowhere() -> None:
    assert find(rows().edges, destination="-").requests == 1
    assert not [row for row in rows().services if row.destination == "-"]


def test_no_traffic_is_no_share_and_nobody_watching_no_rate() -> None:
    idle = find(rows().services, destination="cart")
    assert (idle.requests, idle.success, idle.p99_ms, idle.rate) == (0, None, None, None), "nobody calls it"
    unseen = find(rows().edges, source="orders", destination="pay")
    assert (unseen.rate, unseen.active, unseen.connections) == (None, None, None)
    assert (unseen.stale, unseen.age_s) == (["orders"], 12.0)
    watched = build_rows(DIRECTORY, {"orders": window()})
    assert find(watched.edges, source="orders", destination="pay").rate == 0


def test_instances_are_as_their_own_sidecar_saw_them() -> None:
    row = find(rows().instances, instance="orders-v1-1")
    assert (row.version, row.requests, row.active, row.connections) == ("v1", 118, 7, 8)
    assert find(rows().instances, instance="orders-v2-1").requests == 0


def test_flows_and_routes_are_the_finest() -> None:
    found = rows()
    assert [(f.source, f.destination, f.version, f.route, f.requests) for f in found.flows] == [
        ("cart", "orders", "v1", "orders", 20),
        ("web", "-", "", "unknown", 1),
        ("web", "orders", "v1", "orders", 90),
        ("web", "orders", "v2", "orders", 10),
    ]
    assert find(found.routes, destination="orders", route="orders").requests == 120


def test_circuits_are_told_by_edge_and_the_worst_by_service() -> None:
    found = rows(circuits={("web", "orders"): "open", ("cart", "orders"): "closed"})
    assert find(found.edges, source="cart", destination="orders").circuit == "closed"
    assert find(found.services, destination="orders").circuit == "open"
    assert find(found.services, destination="cart").circuit == ""


def test_histograms_come_when_asked_for() -> None:
    assert find(rows().services, destination="orders").buckets == []
    (bucket,) = find(rows(buckets=True).services, destination="orders").buckets
    assert (bucket.index, bucket.count) == (bucket_of(5), 110)
    assert bucket.le_ms is not None
    assert bucket.le_ms >= 5
