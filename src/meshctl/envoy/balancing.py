"""How a cluster chooses among its hosts, ejects some, and caps what is under way to them.  Pure."""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.policies.limits import CapsPlan
from meshctl.plan.policies.load_balancing import LoadBalancingPlan
from meshctl.plan.policies.outlier_detection import OutlierPlan
from meshctl.spec.policy_schema import Algorithm, RetryBudget

_LB_POLICY: dict[Algorithm, str] = {
    "round_robin": "ROUND_ROBIN",
    "least_request": "LEAST_REQUEST",
    "random": "RANDOM",
    "ring_hash": "RING_HASH",
    "maglev": "MAGLEV",
}

_MAX_CONCURRENCY = 100_000
# Envoy's built-in caps (1024 connections and requests) would fail requests that nobody asked to limit.


def set_balancing(cluster: Any, plan: LoadBalancingPlan) -> None:
    """Say how a cluster chooses among its hosts."""
    cluster.lb_policy = pb.cluster_pb2.Cluster.LbPolicy.Value(_LB_POLICY[plan.algorithm])
    common = cluster.common_lb_config
    # Envoy's built-in threshold is 50%: below it, requests would go to instances known to be unhealthy.
    common.healthy_panic_threshold.value = plan.panic_threshold
    # Envoy would hold back changes of health for a second to merge them; they are wanted at once. Source:
    # https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/cluster.proto (update_merge_window)
    common.update_merge_window.SetInParent()
    if plan.slow_start:
        config = cluster.least_request_lb_config if plan.algorithm == "least_request" else cluster.round_robin_lb_config
        config.slow_start_config.slow_start_window.CopyFrom(pb.duration(plan.slow_start))


def set_outlier_detection(cluster: Any, plan: OutlierPlan | None) -> None:
    """Say when a cluster ejects a host; Envoy's other ways to find outliers stay off."""
    if plan is None:
        return
    cluster.outlier_detection.CopyFrom(
        pb.outlier_detection_pb2.OutlierDetection(
            interval=pb.duration(plan.interval),
            # Each ejection would be longer than the one before, up to the maximum: with both equal, all are.
            base_ejection_time=pb.duration(plan.ejection_time),
            max_ejection_time=pb.duration(plan.ejection_time),
            max_ejection_percent=pb.uint32(plan.max_ejection),
            # Answers of the instance, and what went wrong on the way to it, are counted apart.
            split_external_local_origin_errors=True,
            consecutive_5xx=pb.uint32(plan.consecutive_failures),
            enforcing_consecutive_5xx=pb.uint32(100),
            consecutive_local_origin_failure=pb.uint32(plan.consecutive_failures),
            enforcing_consecutive_local_origin_failure=pb.uint32(100),
            enforcing_consecutive_gateway_failure=pb.uint32(0),
            enforcing_success_rate=pb.uint32(0),
            enforcing_local_origin_success_rate=pb.uint32(0),
            enforcing_failure_percentage=pb.uint32(0),
            # A health check that passes says nothing about the requests that fail.
            successful_active_health_check_uneject_host=pb.bool_value(False),
        )
    )


def build_thresholds(caps: CapsPlan, budget: RetryBudget) -> Any:
    """How much may be under way to a cluster: what Envoy calls circuit breakers."""
    thresholds = pb.circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=pb.uint32(caps.connections or _MAX_CONCURRENCY),
        max_pending_requests=pb.uint32(caps.pending or _MAX_CONCURRENCY),
        max_requests=pb.uint32(caps.requests or _MAX_CONCURRENCY),
    )
    if caps.retries is None:
        # Retries never exceed a share of what is under way, so that a failing upstream is not stormed.
        thresholds.retry_budget.budget_percent.value = budget.percent
        thresholds.retry_budget.min_retry_concurrency.value = budget.min_concurrency
    else:
        thresholds.max_retries.value = caps.retries
    return thresholds
