"""The keys of timeouts and retries: how long callers wait, what they try again.  Pure declarations; see ``keys``."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from meshctl.spec.policy_schema import Policies, RetriableCondition, RetriableGrpcCode
from meshctl.spec.shapes import UNBOUNDED, Boolean, Choice, Duration, Integer, Key, ListOf, Percentage, Table
from meshctl.spec.values import format_duration

_BUILT_IN = Policies()
_RETRY = _BUILT_IN.retry_policy

TIMEOUTS = Table(
    id="timeout",
    title="`timeout`",
    doc=(
        "How long callers wait. `request` counts from the end of the request to the end of the answer, all attempts "
        "included; of an event stream (a request that accepts `text/event-stream`) it bounds the wait for the answer "
        "to begin. It does not hold for WebSocket, nor for gRPC, whose clients send deadlines; a route may set one "
        "for gRPC."
    ),
    keys=(
        Key(
            name="request",
            shape=Duration(zero=True),
            doc="For a whole answer, retries included; 0 for no bound.",
            default=format_duration(_BUILT_IN.timeout.request),
        ),
        Key(
            name="idle",
            shape=Duration(zero=True),
            doc="How long a stream may be silent in both directions; 0 for no bound. Default: 5m, for plain TCP 1h.",
        ),
        Key(
            name="connect",
            shape=Duration(),
            doc="How long making a connection may take. Default: 1s, to an address outside the mesh 5s.",
        ),
    ),
)

ROUTE_TIMEOUTS = replace(
    TIMEOUTS,
    id="route_timeout",
    title="a route's `timeout`",
    keys=tuple(k for k in TIMEOUTS.keys if k.name != "connect"),
)

BUDGET = Table(
    id="retry_budget",
    title="`budget`",
    doc="How many retries may be under way to a service at once, so that a failing service is not stormed.",
    keys=(
        Key(
            name="percent",
            shape=Percentage(),
            doc="At most this share of the requests under way.",
            default=f"{_RETRY.budget.percent:g}%",
        ),
        Key(
            name="min_concurrency",
            shape=Integer(minimum=0, maximum=UNBOUNDED),
            doc="So many are always allowed.",
            default=_RETRY.budget.min_concurrency,
        ),
    ),
)

_RETRY_KEYS = (
    Key(
        name="max_attempts",
        shape=Integer(minimum=1, maximum=100),
        doc="Attempts in all: 3 means two retries, 1 means none.",
        default=_RETRY.max_attempts,
    ),
    Key(name="backoff", shape=Choice(values=("exponential",)), doc="How delays grow.", default=_RETRY.backoff),
    Key(
        name="base_interval",
        shape=Duration(),
        doc="The longest delay before the first retry. It doubles with each retry; the delay is a random part of it.",
        default=format_duration(_RETRY.base_interval),
    ),
    Key(
        name="max_interval",
        shape=Duration(),
        doc="The longest delay.",
        default=format_duration(_RETRY.max_interval),
    ),
    Key(
        name="per_try_timeout",
        shape=Duration(),
        doc="How long each attempt may take until its answer begins. Default: no bound of its own.",
    ),
    Key(
        name="retriable_status_codes",
        shape=ListOf(item=Integer(minimum=100, maximum=599), maximum=50),
        doc="Answers that are tried again.",
        default=list(_RETRY.retriable_status_codes),
    ),
    Key(
        name="retriable_conditions",
        shape=ListOf(item=Choice(values=get_args(RetriableCondition)), maximum=10),
        doc=(
            "Failures without an answer that are tried again: no connection, a connection lost (`reset`, an attempt "
            "that took too long among them), a stream refused by HTTP/2. Default: all of them."
        ),
    ),
    Key(
        name="retriable_grpc_codes",
        shape=ListOf(item=Choice(values=get_args(RetriableGrpcCode)), maximum=10),
        doc=(
            "gRPC statuses that are tried again: list one only if the calls may be repeated. Only an answer that "
            "holds nothing but its status can be tried again. Default: none."
        ),
    ),
    Key(
        name="other_instance",
        shape=Boolean(),
        doc="Whether a retry goes to another instance, if there is one.",
        default=_RETRY.other_instance,
    ),
)

RETRY_POLICY = Table(
    id="retry_policy",
    title="a retry policy",
    doc=(
        "How failed calls are tried again. A request that may not be repeated safely (POST, PATCH) is retried only "
        "when it never reached the service, unless it carries an `Idempotency-Key`."
    ),
    keys=(*_RETRY_KEYS, Key(name="budget", shape=BUDGET, doc="How many retries may be under way at once.")),
)

ROUTE_RETRY_POLICY = Table(
    id="route_retry_policy",
    title="a route's retry policy",
    doc="Laid over the retry policy of the service, key by key; the budget is one for the whole service.",
    keys=_RETRY_KEYS,
)
