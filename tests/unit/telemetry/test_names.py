"""Names of stats: what is read from them, and that what a sidecar makes is what is read."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest

from meshctl.envoy.signals import signal_log
from meshctl.plan.model import HttpListener, SocketAddress
from meshctl.telemetry.names import (
    STATS_PATH,
    Durations,
    Flow,
    OfCluster,
    OfInstance,
    Outcome,
    Requests,
    read_name,
)

FILTER = re.compile(unquote(STATS_PATH.partition("filter=")[2]))

CALLER = Flow("caller", "orders/v1.2", "orders")
CALLEE = Flow("callee", "orders-v1-1", "spiffe://shop.mesh/cart")

KNOWN = [
    ("caller.rq.C.orders/v1.2.S.200.G..F.-.R.orders", Requests(CALLER, Outcome(200, -1, ""))),
    ("caller.rq.C.orders/v1.2.S.503.G.14.F.UF,URX.R.orders", Requests(CALLER, Outcome(503, 14, "UF,URX"))),
    (
        "caller.rq.C.orders/v1.2.S.503.G..F.-.B.circuit_open.R.orders",
        Requests(CALLER, Outcome(503, -1, "circuit_open")),
    ),
    (
        "caller.rq.C.orders/v1.2.S.503.G..F.UT.B.-.R.B.orders",
        Requests(Flow("caller", "orders/v1.2", "B.orders"), Outcome(503, -1, "UT")),
    ),
    ("caller.rq.C.-.S.0.G..F.DC.R.unknown", Requests(Flow("caller", "", "unknown"), Outcome(0, -1, "DC"))),
    ("caller.us.C.orders/v1.2.R.orders", Durations(CALLER)),
    ("callee.rq.I.orders-v1-1.S.200.G..F.-.P.spiffe://shop.mesh/cart", Requests(CALLEE, Outcome(200, -1, ""))),
    ("callee.us.I.orders-v1-1.P.-", Durations(Flow("callee", "orders-v1-1", ""))),
    ("cluster.orders/v1.2.upstream_rq_retry", OfCluster("orders/v1.2", "retries")),
    ("cluster.mirror/v2.upstream_rq_retry", OfCluster("mirror/v2", "retries")),
    ("cluster.orders/v1.outlier_detection.ejections_active", OfCluster("orders/v1", "ejected")),
    ("http.inbound/orders-v1-1.downstream_rq_active", OfInstance("orders-v1-1", "active")),
    ("http.inbound/orders-v1-1.downstream_cx_active", OfInstance("orders-v1-1", "connections")),
]


@pytest.mark.parametrize(("name", "meaning"), KNOWN)
def test_a_name_says_what_it_counts(name: str, meaning: object) -> None:
    assert read_name(name) == meaning
    assert FILTER.search(name), "it is asked for"


@pytest.mark.parametrize(
    "name",
    ["cluster.control-plane.upstream_rq_active", "cluster.local/orders-v1-1.upstream_rq_active",
     "cluster.mirror/orders/v2.upstream_cx_active",
     "cluster.orders/v1.upstream_rq_total", "server.uptime", "caller.rq", ""],
)  # fmt: skip
def test_others_are_of_no_interest(name: str) -> None:
    assert read_name(name) is None


def test_a_route_may_be_named_as_it_likes() -> None:
    name = "caller.rq.C.orders/v1.S.200.G..F.-.R.a.S.500.R.b"
    assert read_name(name) == Requests(Flow("caller", "orders/v1", "a.S.500.R.b"), Outcome(200, -1, ""))


@pytest.mark.parametrize(
    ("role", "name", "values", "expected"),
    [
        (
            "outbound",
            "outbound",
            {"RESPONSE_CODE": "200", "UPSTREAM_CLUSTER_RAW": "orders/v1.2", "ROUTE_NAME": "orders"},
            KNOWN[0][1],
        ),
        (
            "inbound",
            "inbound/orders-v1-1",
            {"RESPONSE_CODE": "200", "DOWNSTREAM_PEER_URI_SAN": "spiffe://shop.mesh/cart"},
            Requests(CALLEE, Outcome(200, -1, "")),
        ),
    ],
)
def test_what_a_sidecar_counts_is_what_is_read(role: str, name: str, values: dict[str, str], expected: object) -> None:
    """The two ends of the contract: the tag of a listener's logger, filled in as Envoy does."""
    plan = HttpListener(name=name, address=SocketAddress("127.0.0.1", 1), role=role, route_table=name)  # type: ignore[arg-type]
    packed = signal_log(plan).typed_config
    from xds.type.v3 import typed_struct_pb2

    struct = typed_struct_pb2.TypedStruct()
    assert packed.Unpack(struct)
    config = struct.value
    stat = config["counters"][0]["stat"]
    (tag,) = stat["tags"]
    filled = re.sub(r"%([^%]*)%", lambda found: values.get(found[1], ""), tag["value_format"])
    assert read_name(".".join([config["stats_scope"]["prefix"], stat["name"], tag["name"], filled])) == expected
    assert int(config["stats_scope"]["max_counters"]) > 0, "no answer of a service fills the memory"
