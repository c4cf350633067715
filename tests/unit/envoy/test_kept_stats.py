"""Which stats a sidecar keeps."""

from __future__ import annotations

import re

import pytest

from meshctl.envoy.kept_stats import build_stats_config


def is_dropped(name: str) -> bool:
    patterns = build_stats_config().stats_matcher.exclusion_list.patterns
    return any(
        (pattern.prefix and name.startswith(pattern.prefix))
        or (pattern.contains and pattern.contains in name)
        or (pattern.safe_regex.regex and re.fullmatch(pattern.safe_regex.regex, name))
        for pattern in patterns
    )


@pytest.mark.parametrize(
    "name",
    [
        "caller.rq.C.orders/v1.S.200.G..F.-.R.orders",
        "callee.us.I.orders-v1-1.P.spiffe://shop.mesh/cart",
        "cluster.orders/v1.upstream_rq_active",
        "cluster.orders/v1.upstream_rq_retry",
        "cluster.orders/v1.upstream_cx_tx_bytes_total",
        "cluster.orders/v1.outlier_detection.ejections_active",
        "cluster.local/orders-v1-1.membership_healthy",
        "cluster.local/orders-v1-1.upstream_rq_active",
        "http.inbound/orders-v1-1.downstream_rq_active",
        "http.gateway.downstream_rq_active",
        "listener.inbound/orders-v1-1.ssl.fail_verify_error",
        "server.live",
    ],
)
def test_what_is_read_is_kept(name: str) -> None:
    assert not is_dropped(name)


@pytest.mark.parametrize(
    "name",
    [
        "http.admin.downstream_rq_total",
        "listener.inbound/orders-v1-1.http.inbound/orders-v1-1.downstream_rq_2xx",
        "cluster.orders/v1.http2.rx_reset",
        "http.outbound.tracing.random_sampling",
    ],
)
def test_what_repeats_others_or_speaks_of_envoys_inside_is_not(name: str) -> None:
    assert is_dropped(name)
