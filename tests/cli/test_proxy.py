"""`meshctl proxy` shows the sync state of every sidecar and what each one has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cli.conftest import RunCli, ServedMesh

from meshctl.cli.proxy import TYPES, Kind
from meshctl.cli.proxy_tables import TABLES, rows_of
from meshctl.wire.models import ProxyConfig


def test_status_has_a_column_for_each_type_and_envoys_words(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("proxy", "status").shown == (
        "--- exit 0\n--- stdout\n"
        "SIDECAR   CDS       EDS     SDS     LDS     RDS     STATE\n"
        "checkout  synced    synced  synced  synced  synced  synced\n"
        "payment   rejected  -       -       -       -       rejected\n"
        "payment: clusters rejected: bad port\n"
        "--- stderr\n"
    )


def test_a_narrow_terminal_keeps_sidecar_and_state(served: ServedMesh, run_cli: RunCli) -> None:
    out = run_cli("proxy", "status", width=30).stdout.splitlines()
    assert out[0].split()[0] == "SIDECAR"
    assert out[0].split()[-1] == "STATE"
    assert all(len(line) <= 30 for line in out[:3])


def test_wide_adds_counts_and_versions(served: ServedMesh, run_cli: RunCli) -> None:
    assert "synced 2 (a1)" in run_cli("proxy", "status", "-o", "wide").stdout


def test_status_as_json_is_the_shape(served: ServedMesh, run_cli: RunCli) -> None:
    found = json.loads(run_cli("proxy", "status", "-o", "json").stdout)
    assert [proxy["state"] for proxy in found["proxies"]] == ["synced", "rejected"]


def test_config_shows_one_kind(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("proxy", "config", "checkout", "secrets").stdout == "NAME     HOLDS\npayment  -\n"
    assert served.backend.asked == [("proxy_config", ("checkout", "secrets"))]


def test_config_shows_all_kinds_when_none_is_named(served: ServedMesh, run_cli: RunCli) -> None:
    out = run_cli("proxy", "config", "checkout").stdout
    assert [line for line in out.splitlines() if line.isupper() and " " not in line] == [kind.upper() for kind in Kind]


def test_config_as_json_is_one_document(served: ServedMesh, run_cli: RunCli) -> None:
    one = json.loads(run_cli("proxy", "config", "checkout", "routes", "-o", "json").stdout)
    assert (one["sidecar"], one["kind"], one["resources"]) == ("checkout", "routes", [{"name": "payment"}])
    many = json.loads(run_cli("proxy", "config", "checkout", "-o", "json").stdout)
    assert [document["kind"] for document in many] == [kind.value for kind in Kind]


def test_an_unknown_sidecar_or_kind_is_an_error(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("proxy", "config", "nobody").code == 1
    assert run_cli("proxy", "config", "checkout", "everything").code == 2


def test_there_is_a_table_for_every_kind() -> None:
    assert set(TABLES) == {kind.value for kind in Kind} == {name for _, name in TYPES}


DUMPS: list[tuple[str, list[dict[str, Any]], list[list[str]]]] = [
    (
        "clusters",
        [
            {
                "version_info": "1",
                "cluster": {"name": "payment|v1", "type": "EDS", "connect_timeout": "1s", "transport_socket": {}},
            },
            {"cluster": {"name": "app", "cluster_type": {"name": "dns"}, "lb_policy": "LEAST_REQUEST"}},
        ],
        [["app", "dns", "LEAST_REQUEST", "plain", "-"], ["payment|v1", "EDS", "ROUND_ROBIN", "mTLS", "1s"]],
    ),
    (
        "endpoints",
        [
            {
                "endpoint_config": {
                    "cluster_name": "payment|v1",
                    "endpoints": [
                        {
                            "lb_endpoints": [
                                {
                                    "endpoint": {
                                        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 20002}}
                                    },
                                    "health_status": "HEALTHY",
                                    "load_balancing_weight": 1,
                                }
                            ]
                        }
                    ],
                }
            },
            {"endpoint_config": {"cluster_name": "empty"}},
        ],
        [["empty", "none", "-", "-"], ["payment|v1", "127.0.0.1:20002", "HEALTHY", "1"]],
    ),
    (
        "secrets",
        [
            {"name": "identity", "secret": {"name": "identity", "tls_certificate": {}}},
            {"name": "roots", "secret": {"name": "roots", "validation_context": {}}},
        ],
        [["identity", "certificate and key"], ["roots", "trusted roots"]],
    ),
    (
        "listeners",
        [
            {
                "name": "inbound",
                "active_state": {
                    "listener": {
                        "name": "inbound",
                        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 20010}},
                        "traffic_direction": "INBOUND",
                        "filter_chains": [{"transport_socket": {}}],
                    }
                },
            },
            {"listener": {"name": "pipe", "address": {"pipe": {"path": "/run/x.sock"}}, "filter_chains": [{}]}},
        ],
        [["inbound", "127.0.0.1:20010", "INBOUND", "mTLS"], ["pipe", "/run/x.sock", "-", "plain"]],
    ),
    (
        "routes",
        [
            {
                "route_config": {
                    "name": "outbound",
                    "virtual_hosts": [
                        {
                            "domains": ["checkout"],
                            "routes": [
                                {
                                    "match": {
                                        "prefix": "/",
                                        "headers": [
                                            {
                                                "name": ":method",
                                                "string_match": {"safe_regex": {"regex": "GET|PUT"}},
                                            },
                                            {"name": "x-a", "present_match": True, "invert_match": True},
                                            {"name": "x-b", "string_match": {"exact": "1"}},
                                            {"name": "x-c", "range_match": {"start": "1", "end": "500"}},
                                            {"name": "accept", "string_match": {"contains": "text/x"}},
                                        ],
                                        "query_parameters": [
                                            {"name": "debug", "present_match": True},
                                            {"name": "q", "string_match": {"exact": "1"}},
                                        ],
                                    },
                                    "route": {
                                        "timeout": "5s",
                                        "weighted_clusters": {
                                            "clusters": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]
                                        },
                                    },
                                },
                                {"match": {"path": "/x"}, "direct_response": {"status": 404}},
                                {
                                    "match": {"safe_regex": {"regex": "/y.*"}},
                                    "route": {
                                        "cluster": "y",
                                        "timeout": "0s",
                                        "retry_policy": {"per_try_timeout": "2s"},
                                    },
                                },
                                {
                                    "match": {"path": "/old"},
                                    "redirect": {
                                        "scheme_redirect": "https",
                                        "host_redirect": "b.test",
                                        "port_redirect": 81,
                                        "path_redirect": "/new",
                                    },
                                },
                                {"match": {}, "route": {"cluster_header": "x-to", "timeout": "0s"}},
                            ],
                        }
                    ],
                }
            },
            {"route_config": {"name": "zero"}},
        ],
        [
            [
                "outbound",
                "checkout",
                "/*",
                ":method GET|PUT, not x-a, x-b 1, x-c 1-499, accept *text/x*, ?debug, ?q 1",
                "5s",
                "a 90%, b 10%",
            ],
            ["outbound", "checkout", "/x", "-", "-", "answers 404"],
            ["outbound", "checkout", "/y.*", "-", "begins 2s", "y"],
            ["outbound", "checkout", "/old", "-", "-", "redirects to https://b.test:81/new"],
            ["outbound", "checkout", "*", "-", "none", "x-to"],
            ["zero", "none", "-", "-", "-", "-"],
        ],
    ),
]


@pytest.mark.parametrize(("kind", "resources", "rows"), DUMPS, ids=[kind for kind, _, _ in DUMPS])
def test_rows_are_read_from_envoys_dump(kind: Any, resources: list[dict[str, Any]], rows: list[list[str]]) -> None:
    assert rows_of(ProxyConfig(sidecar="x", kind=kind, resources=resources)) == rows
    assert all(len(row) == len(TABLES[kind].titles) for row in rows)
