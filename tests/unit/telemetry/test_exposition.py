"""Metrics as text for Prometheus."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from meshctl.telemetry.buckets import OVERFLOW
from meshctl.telemetry.exposition import BOUNDS, write_exposition
from meshctl.telemetry.places import Directory, caller_of, destination_of
from meshctl.telemetry.rollup import Rollup, Sample, reduce
from meshctl.telemetry.stats import Stats

T0 = 1_000_000.0
DIRECTORY = Directory(
    trust_domain="shop.mesh",
    versions={"orders": ("v1",), "cart": ("v1",)},
    edges=frozenset({("cart", "orders")}),
    instances={"orders-v1-1": ("orders", "v1")},
    secured={"orders": True, "cart": True},
)
NUMBERS = {
    "caller.rq.C.orders/v1.S.200.G..F.-.R.orders": 90,
    "caller.rq.C.orders/v1.S.200.G.14.F.UF,URX.R.orders": 1,
    'caller.rq.C.-.S.404.G..F.-.R.a"b\\c': 2,
    "callee.rq.I.orders-v1-1.S.200.G..F.-.P.spiffe://shop.mesh/cart": 91,
    "cluster.orders/v1.upstream_rq_retry": 3,
    "cluster.orders/v1.upstream_cx_active": 2,
    "http.inbound/orders-v1-1.downstream_rq_active": 1,
}
HISTOGRAMS = {"caller.us.C.orders/v1.R.orders": {0: 50, 40: 30, OVERFLOW: 11}}


def rollup() -> Rollup:
    stats = Stats(numbers=NUMBERS, histograms=HISTOGRAMS)
    return reduce(Rollup(), {"cart": Sample(time=T0, started_at=0.0, incarnation="a", stats=stats)}, T0)


def lines(*, openmetrics: bool = True) -> list[str]:
    return write_exposition(rollup(), DIRECTORY, now=T0 + 2, openmetrics=openmetrics).splitlines()


def test_requests_have_the_labels_of_the_topology() -> None:
    found = lines()
    where = 'source="cart",destination="orders",version="v1"'
    assert f'meshctl_requests_total{{{where},route="orders",status="200"}} 90' in found
    status = 'status="200",grpc_status="UNAVAILABLE",reason="UF,URX"'
    assert f'meshctl_requests_total{{{where},route="orders",{status}}} 1' in found
    assert f'meshctl_served_requests_total{{{where},instance_id="orders-v1-1",status="200"}} 91' in found
    assert f"meshctl_retries_total{{{where}}} 3" in found
    assert f"meshctl_open_connections{{{where}}} 2" in found
    assert 'meshctl_sidecar_age_seconds{sidecar="cart"} 2' in found


def test_what_has_the_same_labels_is_added() -> None:
    """Calls to an external service that it answered, and those that an open circuit did."""
    stats = Stats(
        numbers={
            "caller.rq.C.external/bank.S.200.G..F.-.R.bank": 4,
            "caller.rq.C.-.S.503.G..F.-.B.open.R.bank": 3,
        },
        histograms={"caller.us.C.external/bank.R.bank": {0: 1, 40: 3}, "caller.us.C.-.R.bank": {0: 3}},
    )
    sample = Sample(time=T0, started_at=0.0, incarnation="a", stats=stats)
    directory = replace(DIRECTORY, versions={**DIRECTORY.versions, "bank": ()})
    text = write_exposition(reduce(Rollup(), {"cart": sample}, T0), directory, now=T0, openmetrics=True)
    labels = '{source="cart",destination="bank",route="bank"}'
    assert f"meshctl_request_duration_seconds_count{labels} 7" in text.splitlines()


def test_labels_are_escaped() -> None:
    assert any(r'route="a\"b\\c"' in line and 'destination="-"' in line for line in lines())


def test_a_histogram_is_cumulative_and_whole() -> None:
    found = [line for line in lines() if line.startswith("meshctl_request_duration_seconds")]
    counts = [int(line.rsplit(" ", 1)[1]) for line in found if "_bucket" in line]
    assert counts == sorted(counts)
    assert len(counts) == len(BOUNDS) + 1
    assert counts[-2:] == [80, 91], "what is longer than the last bound is in the last bucket"
    assert found[-1].endswith(" 91")
    bounds = [float(match[1]) for line in found if (match := re.search(r'le="([^"+]+)"', line))]
    assert bounds == sorted(set(bounds))
    assert bounds[0] < 0.0001
    assert bounds[-1] > 30


@pytest.mark.parametrize(("openmetrics", "name"), [(True, "meshctl_requests"), (False, "meshctl_requests_total")])
def test_the_formats_name_counters_differently(openmetrics: bool, name: str) -> None:
    found = lines(openmetrics=openmetrics)
    assert f"# TYPE {name} counter" in found
    assert (found[-1] == "# EOF") is openmetrics


def test_every_family_is_told_once_and_together() -> None:
    names = [line.split()[2] for line in lines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert write_exposition(Rollup(), DIRECTORY, now=T0, openmetrics=True) == "# EOF\n"


@pytest.mark.parametrize(
    ("cluster", "route", "found"),
    [
        ("orders/v1", "x", ("orders", "v1")),
        ("external/bank", "bank", ("bank", "")),
        ("passthrough", "outside", ("passthrough", "")),
        ("", "orders", ("orders", "")),
        ("", "unknown", ("-", "")),
    ],
)
def test_a_cluster_stands_for_a_service(cluster: str, route: str, found: tuple[str, str]) -> None:
    assert destination_of(cluster, route, DIRECTORY.versions) == found


@pytest.mark.parametrize(
    ("peer", "caller"),
    [("spiffe://shop.mesh/cart", "cart"), ("spiffe://other.mesh/cart", "-"), ("", "-"), ("nonsense", "-")],
)
def test_an_identity_names_a_caller(peer: str, caller: str) -> None:
    assert caller_of(peer, "shop.mesh") == caller
