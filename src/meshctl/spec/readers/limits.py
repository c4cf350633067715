"""Limits, rate limits and outlier detection, read from their mappings.  Pure."""

from __future__ import annotations

from meshctl.spec.limits_keys import OUTLIER_DETECTION, RATE_LIMIT, RATE_LIMIT_PATH
from meshctl.spec.limits_schema import Limits, OutlierDetection, RateLimit
from meshctl.spec.reader import Fields, list_shape, read_scalar
from meshctl.spec.report import quote
from meshctl.spec.shapes import Text
from meshctl.spec.source import ScalarNode

_SHORTEST = 0.05
# Seconds: Envoy refuses buckets that are filled more often.

_RATE = RateLimit(name="", requests=1, burst=1)


def read_outlier_detection(owner: Fields) -> OutlierDetection | None:
    """When an instance is ejected; None for never."""
    node = owner.alternative("outlier_detection")
    base = OutlierDetection()
    if node is None:
        return None
    if isinstance(node, ScalarNode):
        return base if owner.boolean("outlier_detection", False) else None
    fields = Fields(OUTLIER_DETECTION, node, owner.report, where=owner.key_place("outlier_detection"))
    return OutlierDetection(
        consecutive_failures=fields.integer("consecutive_failures", base.consecutive_failures),
        interval=fields.duration("interval", base.interval),
        ejection_time=fields.duration("ejection_time", base.ejection_time),
        max_ejection=fields.percentage("max_ejection", base.max_ejection),
    )


def read_limits(fields: Fields) -> Limits:
    """How much may be under way at once."""
    return Limits(
        max_connections=fields.integer("max_connections", None),
        max_pending_requests=fields.integer("max_pending_requests", None),
        max_requests=fields.integer("max_requests", None),
        max_retries=fields.integer("max_retries", None),
        max_request_bytes=fields.integer("max_request_bytes", None),
        adaptive_concurrency=fields.boolean("adaptive_concurrency", Limits().adaptive_concurrency),
    )


def read_rate_limits(owner: Fields) -> tuple[RateLimit, ...]:
    """The rate limits in the order of the file; those that cannot be read are left out (reported)."""
    found: dict[str, RateLimit] = {}
    for item in owner.items("rate_limits"):
        fields = Fields(RATE_LIMIT, item, owner.report, where=item.where, label="an item of `rate_limits`")
        limit = _read_rate_limit(fields)
        if limit is None:
            continue
        if limit.name in found:
            message = f"two rate limits have the name {quote(limit.name)}"
            owner.report.add("duplicate-item", message, fields.place("name"), "rename one of them")
        found[limit.name] = limit
    return tuple(found.values())


def _read_rate_limit(fields: Fields) -> RateLimit | None:
    name, requests = fields.text("name", None), fields.integer("requests", None)
    per = fields.duration("per", _RATE.per)
    if per < _SHORTEST:
        hint = "write a longer time with as many more requests"
        fields.report.add("bad-duration", "`per` must be at least 50ms", fields.place("per"), hint)
    header, each_caller = fields.text("header", _RATE.header), fields.boolean("each_caller", _RATE.each_caller)
    if header and each_caller:
        message = "a rate limit has a bucket for each value of `header` or for `each_caller`, not for both"
        fields.report.add("conflicting-keys", message, fields.key_place("header"), "make it two rate limits")
    path, exact = _read_path(fields)
    burst = fields.integer("burst", requests)
    callers, methods = _read_texts(fields, "from"), _read_texts(fields, "methods")
    if name is None or requests is None or burst is None:
        return None
    return RateLimit(
        name=name,
        requests=requests,
        per=per,
        burst=burst,
        callers=callers,
        path=path,
        path_exact=exact,
        methods=methods,
        header=header.lower(),
        each_caller=each_caller,
    )


def _read_path(owner: Fields) -> tuple[str, bool]:
    """(path, whether it is the whole one); empty for any."""
    node = owner.alternative("path")
    if node is None:
        return "", False
    if isinstance(node, ScalarNode):
        return owner.text("path", ""), False
    fields = Fields(RATE_LIMIT_PATH, node, owner.report, where=owner.key_place("path"))
    if fields.has("exact") == fields.has("prefix"):
        message = "the path of a rate limit is one of `exact` and `prefix`"
        owner.report.add("conflicting-keys", message, owner.key_place("path"), "write one of them")
    return fields.text("exact", fields.text("prefix", "")), fields.has("exact")


def _read_texts(fields: Fields, name: str) -> tuple[str, ...]:
    key = fields.table.find(name)
    assert key is not None
    shape = list_shape(key.shape).item
    assert isinstance(shape, Text)
    label = f"an item of `{name}`"
    found = [read_scalar(shape, item, label, fields.report) for item in fields.items(name)]
    return tuple(dict.fromkeys(text for text in found if isinstance(text, str)))
