"""The file that a sidecar starts from."""

from __future__ import annotations

import itertools
import json
from typing import Any

from meshctl.envoy.bootstrap import XDS_CLUSTER, build_bootstrap
from meshctl.envoy.tracing import COLLECTOR_CLUSTER


def build(node: str = "orders") -> str:
    return build_bootstrap(
        node=node,
        mesh="shop",
        admin_socket="/run/m/orders.admin",
        ads_socket="/run/m/ads.sock",
        collector_socket="/run/m/spans.sock",
    )


def test_a_sidecar_says_who_it_is_and_finds_its_control_plane() -> None:
    found = json.loads(build())
    assert found["node"] == {"id": "orders", "cluster": "shop"}
    ads = found["dynamic_resources"]["ads_config"]
    assert ads["api_type"] == "DELTA_GRPC"
    assert ads["grpc_services"][0]["envoy_grpc"]["cluster_name"] == XDS_CLUSTER
    assert pipe_of(found, XDS_CLUSTER) == "/run/m/ads.sock"


def pipe_of(found: dict[str, Any], name: str) -> object:
    cluster = next(item for item in found["static_resources"]["clusters"] if item["name"] == name)
    (member,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    return member["endpoint"]["address"]["pipe"]["path"]


def test_a_sidecar_sends_its_spans_to_a_unix_socket_a_few_times_a_second_and_never_by_number() -> None:
    """What comes on top of what may wait is dropped, however many callers ask to be traced."""
    found = json.loads(build())
    assert pipe_of(found, COLLECTOR_CLUSTER) == "/run/m/spans.sock"
    static = found["layered_runtime"]["layers"][0]["static_layer"]
    assert static["tracing.opentelemetry.flush_interval_ms"] == 250
    assert static["tracing.opentelemetry.min_flush_spans"] > 1e6


def test_memory_that_a_burst_took_goes_back_to_the_system() -> None:
    kept = json.loads(build())["memory_allocator_manager"]
    assert int(kept["bytes_to_release"]) >= 2**20
    assert kept["memory_release_interval"] == "1s"


def test_the_admin_interface_is_a_unix_socket() -> None:
    """Invariant 8."""
    pipe = json.loads(build())["admin"]["address"]["pipe"]
    assert (pipe["path"], pipe["mode"]) == ("/run/m/orders.admin", 0o600)


def test_latencies_are_counted_finely_enough_to_be_compared() -> None:
    (setting,) = json.loads(build())["stats_config"]["histogram_bucket_settings"]
    bounds = setting["buckets"]
    assert bounds[0] == 1
    assert bounds[-1] > 60_000
    assert all(high / low < 1.1 for low, high in itertools.pairwise(bounds))


def test_a_sidecar_bounds_its_memory_and_its_connections() -> None:
    heap, connections = json.loads(build())["overload_manager"]["resource_monitors"]
    assert heap["typed_config"]["max_heap_size_bytes"] == str(256 * 2**20)
    # Each may take two file descriptors of the 8,192 that the keeper gives; an Envoy without any crashes.
    assert int(connections["typed_config"]["max_active_downstream_connections"]) * 2 < 8192


def test_the_same_sidecar_gets_the_same_bytes() -> None:
    """Invariant 1."""
    assert build() == build()
    assert build() != build("cart")
