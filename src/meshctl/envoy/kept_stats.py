"""Which stats a sidecar keeps, how finely it counts times, and how often it adds them up.  Pure.

A small sidecar would keep about 1,400 stats, most of which nobody reads; each is memory, and work each time that some
of them are asked for, which is every second. Left out is what repeats others, speaks of Envoy's inside, or can never be
other than 0 here.
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb

HISTOGRAM_INTERVAL = 1.0
"""Seconds between two moments at which Envoy adds what its workers counted to the histograms that can be read."""

_BUCKET_RATIO = 1.2**0.5
_BUCKETS = 122
# Bounds a factor of sqrt(1.2) apart from 1 ms to about 60 s: two buckets make the 1.2x that canaries compare by.

_DROPPED_PREFIXES = (
    "http.admin.",
    "http.async-client.",
    "listener.admin.",
    "listener_manager.worker_",
    "server.worker_",
    "workers.",
    "main_thread.",
    "slots.",
    "http1.",
    "http2.",
    "cluster.collector.",
    "cluster.control-plane.",
    "slot-",
    "dns.cares.",
    "dns_cache.",
)
_DROPPED_PARTS = (
    # Of each listener and cluster:
    ".tracing.",
    ".http1.",
    ".http2.",
    ".passthrough_internal_redirect",
    ".upstream_internal_redirect",
    ".upstream_flow_control",
    ".assignment_",
    ".lb_zone",
    ".lb_local_cluster",
    ".lb_recalculate",
    ".lb_subsets",
    ".original_dst",
    ".bind_errors",
    ".retry_or_shadow_abandoned",
    ".worker_",
    ".ssl.ciphers.",
    ".ssl.curves.",
    ".ssl.sigalgs.",
    ".ssl.certificate.",
    ".downstream_cx_length_ms",
    ".connections_accepted_per_socket_event",
    ".rds.",
    ".circuit_breakers.high.",
    "_ssl_socket_factory.",
    ".ssl.ocsp_",
    ".total_match_count",
    ".max_host_weight",
    ".upstream_cx_connect_attempts_exceeded",
    ".upstream_cx_connect_with_0_rtt",
    ".upstream_cx_destroy",
    ".upstream_cx_http",
    ".upstream_cx_max_",
    ".upstream_cx_preconnect_",
    ".upstream_cx_rx_bytes_buffered",
    ".upstream_cx_tx_bytes_buffered",
    ".upstream_cx_length_ms",
    ".upstream_http3_",
    ".upstream_queue_overloaded",
    ".upstream_rq_0rtt",
    ".upstream_rq_maintenance_mode",
    ".upstream_rq_max_duration_reached",
    ".upstream_rq_pending_failure_eject",
    ".upstream_rq_per_cx",
    ".upstream_rq_retry_backoff_",
    ".upstream_rq_rx_reset_no_error",
    ".downstream_cx_delayed_close_",
    ".downstream_cx_destroy",
    ".downstream_cx_drain_close",
    ".downstream_cx_max_",
    ".downstream_cx_overload_disable_keepalive",
    ".downstream_cx_rx_bytes_buffered",
    ".downstream_cx_tx_bytes_buffered",
    ".downstream_cx_upgrades_",
    ".downstream_flow_control_",
    ".downstream_global_cx_",
    ".downstream_listener_filter_",
    ".downstream_pre_cx_",
    ".downstream_rq_failed_path_normalization",
    ".downstream_rq_http",
    ".downstream_rq_max_duration_reached",
    ".downstream_rq_non_relative_path",
    ".downstream_rq_redirected_",
    ".downstream_rq_rejected_via_",
    ".downstream_rq_too_many_premature_resets",
    ".downstream_rq_ws_on_",
    "extension_config_missing",
)
_DROPPED_REGEX = r"^listener\..*\.http\..*$"
# The same as `http.` by stat prefix.


def build_stats_config() -> Any:
    """The settings of a sidecar's stats."""
    bounds = [round(_BUCKET_RATIO**step, 3) for step in range(_BUCKETS)]
    # An empty prefix matcher is refused, so a regular expression stands for "all".
    everything = _regex(".*")
    dropped = [pb.string_pb2.StringMatcher(prefix=prefix) for prefix in _DROPPED_PREFIXES]
    dropped += [pb.string_pb2.StringMatcher(contains=part) for part in _DROPPED_PARTS]
    dropped.append(_regex(_DROPPED_REGEX))
    return pb.stats_pb2.StatsConfig(
        histogram_bucket_settings=[pb.stats_pb2.HistogramBucketSettings(match=everything, buckets=bounds)],
        stats_matcher=pb.stats_pb2.StatsMatcher(exclusion_list=pb.string_pb2.ListStringMatcher(patterns=dropped)),
    )


def _regex(pattern: str) -> Any:
    return pb.string_pb2.StringMatcher(safe_regex=pb.regex_pb2.RegexMatcher(regex=pattern))
