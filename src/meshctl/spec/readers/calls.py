"""Timeouts and retries, read from their mappings.  Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast

from meshctl.spec.call_keys import BUDGET, RETRY_POLICY, TIMEOUTS
from meshctl.spec.policy_schema import RetryBudget, RetryPolicy, Timeouts
from meshctl.spec.reader import Fields, list_shape, read_scalar
from meshctl.spec.shapes import Duration
from meshctl.spec.source import MapNode, ScalarNode

T = TypeVar("T")
_DURATION = Duration(zero=True)


def read_timeouts(owner: Fields) -> Timeouts:
    """How long callers wait, from the key ``timeout``."""
    base = Timeouts()
    node = owner.alternative("timeout")
    if isinstance(node, ScalarNode):
        return replace(base, request=owner.duration("timeout", base.request))
    if not isinstance(node, MapNode):
        return base
    fields = Fields(TIMEOUTS, node, owner.report, where=owner.key_place("timeout"))
    request = fields.node("request")
    seconds: object | None = None
    if request is not None:
        # A merged duration was written out with its key where it stood itself: the user wrote `timeout` alone.
        label = "`timeout`" if request.where == fields.key_place("request") else "`request`"
        seconds = read_scalar(_DURATION, request, label, owner.report)
    return Timeouts(
        request=seconds if isinstance(seconds, float) else base.request,
        idle=fields.duration("idle", base.idle),
        connect=fields.duration("connect", base.connect),
    )


def read_retry(fields: Fields) -> RetryPolicy:
    """What callers try again; ``fields`` are of RETRY_POLICY."""
    base = RetryPolicy()
    policy = RetryPolicy(
        max_attempts=fields.integer("max_attempts", base.max_attempts),
        backoff=fields.choice("backoff", base.backoff),
        base_interval=fields.duration("base_interval", base.base_interval),
        max_interval=fields.duration("max_interval", base.max_interval),
        per_try_timeout=fields.duration("per_try_timeout", None),
        retriable_status_codes=_read_list(fields, "retriable_status_codes", base.retriable_status_codes),
        retriable_conditions=_read_list(fields, "retriable_conditions", base.retriable_conditions),
        retriable_grpc_codes=_read_list(fields, "retriable_grpc_codes", base.retriable_grpc_codes),
        other_instance=fields.boolean("other_instance", base.other_instance),
        budget=_read_budget(fields),
    )
    if policy.max_interval < policy.base_interval:
        if fields.has("max_interval"):
            message = "`max_interval` is shorter than `base_interval`"
            fields.report.add("interval-order", message, fields.place("max_interval"), "make it at least as long")
        # A base longer than the built-in maximum lifts the maximum.
        return replace(policy, max_interval=policy.base_interval)
    return policy


def _read_list(fields: Fields, name: str, default: tuple[T, ...]) -> tuple[T, ...]:
    if not fields.has(name):
        return default
    key = RETRY_POLICY.find(name)
    assert key is not None
    item = list_shape(key.shape).item
    assert not isinstance(item, Duration)
    values = [
        read_scalar(item, node, f"an item of `{name}`", fields.report)  # type: ignore[arg-type]
        for node in fields.items(name)
    ]
    return cast("tuple[T, ...]", tuple(dict.fromkeys(value for value in values if value is not None)))


def _read_budget(owner: Fields) -> RetryBudget:
    base = RetryBudget()
    fields = Fields(BUDGET, owner.node("budget"), owner.report, where=owner.key_place("budget"), label="`budget`")
    return RetryBudget(
        percent=fields.percentage("percent", base.percent),
        min_concurrency=fields.integer("min_concurrency", base.min_concurrency),
    )
