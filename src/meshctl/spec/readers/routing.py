"""Rules of a service, sticky splits and mirroring, read from their mappings.  Pure.

That versions and services exist is checked in ``validate_routes``, once all are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar, cast

from meshctl.errors import Where
from meshctl.spec.call_keys import RETRY_POLICY, ROUTE_RETRY_POLICY, ROUTE_TIMEOUTS
from meshctl.spec.merge import merge, pick
from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.readers.calls import read_retry, read_timeouts
from meshctl.spec.readers.splits import read_split
from meshctl.spec.regexes import explain_unusable
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.routing_keys import (
    COOKIE,
    HEADER_CHANGES,
    HEADER_MATCH,
    HEADERS,
    MATCH,
    MIRROR,
    PATH_MATCH,
    QUERY_MATCH,
    REDIRECT,
    REWRITE,
    SERVICE_ROUTE,
    STICKY,
)
from meshctl.spec.routing_schema import (
    REDIRECT_STATUSES,
    HeaderChanges,
    Mirror,
    PathKind,
    PathMatch,
    RedirectTo,
    Rewrite,
    RouteMatch,
    RouteRule,
    Sticky,
    ValueKind,
    ValueMatch,
)
from meshctl.spec.shapes import AnyOf, Key, MapOf, Scalar, Table, Text
from meshctl.spec.source import Entry, MapNode, Node, ScalarNode, make_map

T = TypeVar("T")

_CALLS = Table(
    id="calls",
    title="a route",
    doc="",
    keys=tuple(
        replace(key, shape=RETRY_POLICY) if key.name == "retry_policy" else key
        for key in SERVICE_ROUTE.keys
        if key.name in ("timeout", "retry_policy")
    ),
)
"""What a route lays over the policies of its service."""

_UNREADABLE = RouteMatch(callers=("?",))
"""Stands for a match with problems of its own, of which nothing more can be said."""

_SERVICE_ONLY = {"budget": "the service's `retry_policy`", "connect": "the service's `timeout`"}
"""Hints for keys that hold for a service as a whole."""

_PATH_KINDS: tuple[PathKind, ...] = ("exact", "prefix", "regex")
_REDIRECT_RIVALS = ("version", "split", "sticky", "rewrite", "mirror", "headers", "timeout", "retry_policy")


def read_routes(fields: Fields, policies: MapNode) -> tuple[RouteRule, ...]:
    """The rules under ``routes``; ``policies`` are the keys in force for the service."""
    rules: list[RouteRule] = []
    names: set[str] = set()
    for number, item in enumerate(fields.items("routes"), start=1):
        rule = _read_rule(item, number, policies, fields.report)
        if rule.name in names:
            message = f"two routes are called {quote(rule.name)}"
            fields.report.add("duplicate-item", message, rule.where, "give each a name of its own")
        names.add(rule.name)
        if rule.match is not _UNREADABLE:
            rules.append(rule)
    return tuple(rules)


def read_sticky(owner: Fields) -> Sticky | None:
    """What keeps a user on one version; None when nothing does."""
    if not owner.has("sticky"):
        return None
    fields = Fields(STICKY, owner.node("sticky"), owner.report, where=owner.key_place("sticky"))
    if fields.has("cookie") == fields.has("header"):
        message = "`sticky` needs one of `cookie` and `header`"
        code = "conflicting-keys" if fields.has("cookie") else "missing-key"
        owner.report.add(code, message, fields.where)
        return None
    if fields.has("header"):
        header = fields.text("header", None)
        return None if header is None else Sticky(header=header.lower())
    cookie = Fields(COOKIE, fields.node("cookie"), owner.report, where=fields.key_place("cookie"), label="`cookie`")
    name = cookie.text("name", None)
    return None if name is None else Sticky(cookie=name, ttl=cookie.duration("ttl", None))


def read_mirror(owner: Fields) -> Mirror | None:
    """Where copies of requests go; None when nowhere."""
    if not owner.has("mirror"):
        return None
    fields = Fields(MIRROR, owner.node("mirror"), owner.report, where=owner.key_place("mirror"))
    version = fields.text("version", None)
    percent = fields.percentage("percent", Mirror(version="").percent)
    return None if version is None else Mirror(version=version, percent=percent)


def _read_rule(item: Node, number: int, policies: MapNode, report: Report) -> RouteRule:
    fields = Fields(SERVICE_ROUTE, item, report, where=item.where, label="a route")
    own = fields.node("timeout")
    if isinstance(own, MapNode):
        Fields(ROUTE_TIMEOUTS, own, report, where=own.where, elsewhere=_SERVICE_ONLY)
    own_retry = fields.node("retry_policy")
    Fields(ROUTE_RETRY_POLICY, own_retry, report, where=fields.place("retry_policy"), elsewhere=_SERVICE_ONLY)
    keys = item if isinstance(item, MapNode) else make_map({}, item.where)
    laid = Fields(_CALLS, merge(pick(policies, _CALLS.names), pick(keys, _CALLS.names)), report, where=item.where)
    retry = Fields(RETRY_POLICY, laid.node("retry_policy"), report, where=laid.place("retry_policy"))
    found = report.count
    match = _read_match(fields)
    if report.count > found:
        match = _UNREADABLE
    rule = RouteRule(
        name=fields.text("name", str(number)),
        match=match,
        split=_read_target(fields),
        sticky=read_sticky(fields),
        mirror=read_mirror(fields),
        rewrite=_read_rewrite(fields, match),
        redirect=_read_redirect(fields),
        request_headers=_read_changes(fields, "request"),
        response_headers=_read_changes(fields, "response"),
        timeout=read_timeouts(laid),
        own_timeout=isinstance(own, ScalarNode) or (isinstance(own, MapNode) and "request" in own.entries),
        retry_policy=read_retry(retry),
        where=item.where,
    )
    if rule.redirect is not None:
        written = [name for name in _REDIRECT_RIVALS if fields.has(name)]
        if written:
            message = f"`redirect` answers at once, so {join_names(map(quote, written))} would do nothing"
            report.add("conflicting-keys", message, fields.key_place(written[0]), "remove one or the other")
    return rule


def _read_target(fields: Fields) -> Mapping[str, int]:
    if fields.has("version") and fields.has("split"):
        message = "`version` and `split` exclude each other"
        fields.report.add("conflicting-keys", message, fields.key_place("split"), "remove one of them")
    if fields.has("split"):
        return read_split(fields)
    version = fields.text("version", "")
    return {version: 100} if version else {}


def _read_match(owner: Fields) -> RouteMatch:
    fields = Fields(MATCH, owner.node("match"), owner.report, where=owner.key_place("match"), label="`match`")
    methods = read_texts(fields, "methods")
    return RouteMatch(
        path=read_path(fields),
        methods=tuple(sorted(set(methods))),
        headers=read_header_values(fields),
        query=_read_values(fields, "query", QUERY_MATCH),
        callers=tuple(dict.fromkeys(read_texts(fields, "from"))),
    )


def read_path(owner: Fields, *, text_is: PathKind = "exact") -> PathMatch:
    """What ``path`` says; ``text_is`` is how one is meant that is written as a text alone."""
    node = owner.alternative("path")
    if node is None:
        return PathMatch()
    if isinstance(node, ScalarNode):
        text = owner.text("path", None)
        if text is None:
            return PathMatch()
        return PathMatch(kind=text_is, value=(text.rstrip("/") or "/") if text_is == "prefix" else text)
    fields = Fields(PATH_MATCH, node, owner.report, where=owner.key_place("path"))
    kinds = _choose(fields, _PATH_KINDS, "`path`")
    if kinds is None:
        return PathMatch()
    value = fields.text(kinds, None)
    if value is None or (kinds == "regex" and not _check(value, fields.place("regex"), owner.report)):
        return PathMatch()
    return PathMatch(kind=kinds, value=(value.rstrip("/") or "/") if kinds == "prefix" else value)


def read_header_values(owner: Fields) -> tuple[ValueMatch, ...]:
    """The conditions under ``headers``, their names in lower case."""
    return tuple(replace(found, name=found.name.lower()) for found in _read_values(owner, "headers", HEADER_MATCH))


def _read_values(owner: Fields, name: str, table: Table) -> tuple[ValueMatch, ...]:
    found: list[ValueMatch] = []
    for key, entry in owner.named(name).items():
        match = _read_value(key, entry, table, owner.report)
        if match is not None:
            found.append(match)
    return tuple(found)


def _read_value(name: str, entry: Entry, table: Table, report: Report) -> ValueMatch | None:
    label = f"the condition of {quote(name)}"
    if not isinstance(entry.node, MapNode):
        shape = table.keys[0].shape
        text = read_scalar(cast("Scalar", shape), entry.node, label, report)
        return ValueMatch(name=name, kind="exact", value=text) if isinstance(text, str) else None
    fields = Fields(table, entry.node, report, where=entry.where, label=label)
    kinds: tuple[ValueKind, ...] = ("exact", "regex", "present")
    kind = _choose(fields, kinds, label)
    if kind is None:
        return None
    if kind == "present":
        return ValueMatch(name=name, kind="present" if fields.boolean("present", True) else "absent")
    value = fields.text(kind, None)
    if value is None or (kind == "regex" and not _check(value, fields.place("regex"), report)):
        return None
    return ValueMatch(name=name, kind=kind, value=value)


def _choose(fields: Fields, kinds: tuple[T, ...], label: str) -> T | None:
    written = [kind for kind in kinds if fields.has(str(kind))]
    if len(written) == 1:
        return written[0]
    names = join_names((quote(str(kind)) for kind in kinds), "or")
    if written:
        fields.report.add("conflicting-keys", f"{label} takes one of {names}", fields.where, "remove the others")
    else:
        fields.report.add("missing-key", f"{label} needs one of {names}", fields.where)
    return None


def _check(pattern: str, where: Where, report: Report) -> bool:
    reason = explain_unusable(pattern)
    if reason:
        hint = "regular expressions are those of RE2: https://github.com/google/re2/wiki/Syntax"
        report.add("bad-regex", f"the regular expression {quote(pattern)} {reason}", where, hint)
    return not reason


def _read_rewrite(owner: Fields, match: RouteMatch) -> Rewrite | None:
    if not owner.has("rewrite"):
        return None
    fields = Fields(REWRITE, owner.node("rewrite"), owner.report, where=owner.key_place("rewrite"))
    if fields.has("prefix") and fields.has("path"):
        message = "`prefix` and `path` exclude each other"
        fields.report.add("conflicting-keys", message, fields.key_place("path"), "remove one of them")
    elif fields.has("prefix") and match.path.kind != "prefix":
        message = "`rewrite: {prefix: ...}` needs a route that matches a prefix"
        hint = "write `match: {path: {prefix: ...}}`, or rewrite the `path`"
        fields.report.add("conflicting-keys", message, fields.key_place("prefix"), hint)
    elif not any(fields.has(name) for name in REWRITE.names):
        message = "`rewrite` needs one of `prefix`, `path` and `host`"
        fields.report.add("missing-key", message, fields.where)
    return Rewrite(prefix=fields.text("prefix", ""), path=fields.text("path", ""), host=fields.text("host", ""))


def _read_redirect(owner: Fields) -> RedirectTo | None:
    if not owner.has("redirect"):
        return None
    fields = Fields(REDIRECT, owner.node("redirect"), owner.report, where=owner.key_place("redirect"))
    if not any(fields.has(name) for name in ("path", "host", "scheme")):
        message = "`redirect` needs one of `path`, `host` and `scheme`"
        fields.report.add("missing-key", message, fields.where, "a redirect to where one is leads nowhere")
    status = fields.integer("status", RedirectTo().status)
    if status not in REDIRECT_STATUSES:
        allowed = join_names((quote(str(item)) for item in REDIRECT_STATUSES), "or")
        owner.report.add("bad-choice", f"`status` must be {allowed}, not {quote(str(status))}", fields.place("status"))
    return RedirectTo(
        path=fields.text("path", ""),
        host=fields.text("host", ""),
        scheme=fields.choice("scheme", ""),
        status=status,
    )


def _read_changes(owner: Fields, name: str) -> HeaderChanges:
    if not owner.has("headers"):
        return HeaderChanges()
    headers = Fields(HEADERS, owner.node("headers"), owner.report, where=owner.key_place("headers"))
    fields = Fields(HEADER_CHANGES, headers.node(name), owner.report, where=headers.key_place(name), label=quote(name))
    return HeaderChanges(
        replace=_read_pairs(fields, "set"),
        add=_read_pairs(fields, "add"),
        remove=tuple(dict.fromkeys(text.lower() for text in read_texts(fields, "remove"))),
    )


def _read_pairs(fields: Fields, name: str) -> tuple[tuple[str, str], ...]:
    shape = _shape_of(fields, name)
    assert isinstance(shape, MapOf)
    pairs: list[tuple[str, str]] = []
    for key, entry in fields.named(name).items():
        value = read_scalar(cast("Scalar", shape.value), entry.node, f"the value of {quote(key)}", fields.report)
        if isinstance(value, str):
            pairs.append((key.lower(), value))
    return tuple(pairs)


def read_texts(fields: Fields, name: str) -> tuple[str, ...]:
    """The texts of a list."""
    item = getattr(_shape_of(fields, name), "item", None)
    assert isinstance(item, Text)
    label = f"an item of {quote(name)}"
    texts = [read_scalar(item, node, label, fields.report) for node in fields.items(name)]
    return tuple(text for text in texts if isinstance(text, str))


def _shape_of(fields: Fields, name: str) -> object:
    key: Key | None = fields.table.find(name)
    assert key is not None
    assert not isinstance(key.shape, AnyOf)
    return key.shape
