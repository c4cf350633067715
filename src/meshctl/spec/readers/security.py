"""Encryption and authorization, read from their mapping.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshctl.spec.policy_schema import AuthzRule, HeaderRule, MtlsMode, Security, Verdict
from meshctl.spec.reader import Fields, list_shape, read_scalar
from meshctl.spec.regexes import explain_unusable
from meshctl.spec.report import Report, quote
from meshctl.spec.security_keys import HEADER_RULE, RULE, SECURITY
from meshctl.spec.shapes import AnyOf, ListOf, MapOf, Scalar, Text, describe_shape
from meshctl.spec.source import MapNode, Node, ScalarNode, describe

_MODES: dict[str, MtlsMode] = {"strict": "strict", "permissive": "permissive"}
_PATH = re.compile(r"/[!-~]*|\*")
_AMBIGUOUS = re.compile(r"(?i)[?#\\;]|%2f|%5c|%3b|%00|%25[0-9a-f]{2}|%(?![0-9a-f]{2})")
_UNSETTLED = re.compile(r"//|/\.\.?(/|$)")


def read_security(fields: Fields) -> Security:
    """How sidecars prove who they are, and whom they let in."""
    base = Security()
    return Security(
        mtls=_read_mtls(fields),
        authz_policy=fields.choice("authz_policy", base.authz_policy),
        default=fields.choice("default", base.default),
        audit=fields.boolean("audit", base.audit),
        rules=_read_rules(fields),
        default_where=fields.place("default") if fields.has("default") else None,
    )


def _read_mtls(fields: Fields) -> MtlsMode:
    node = fields.alternative("mtls")
    if not isinstance(node, ScalarNode):
        return "strict"
    if node.text in _MODES:
        return _MODES[node.text]
    key = SECURITY.find("mtls")
    assert key is not None
    suggestion = fields.report.suggest(node.text, _MODES)
    if suggestion:
        message = f"`mtls` must be {describe_shape(key.shape)}, not {describe(node)}{suggestion}"
        fields.report.add("bad-choice", message, node.where)
        return "strict"
    return "strict" if fields.boolean("mtls", True) else "off"


def _read_rules(owner: Fields) -> tuple[AuthzRule, ...]:
    rules: dict[str, AuthzRule] = {}
    for item in owner.items("rules"):
        fields = Fields(RULE, item, owner.report, where=item.where, label="a rule")
        name = fields.text("name", "")
        if name and name in rules:
            message = f"the rule {quote(name)} is there twice"
            owner.report.add("duplicate-item", message, fields.place("name"), "rules are told apart by their names")
        action: Verdict = "deny"
        rules[name or f"rule {len(rules) + 1}"] = AuthzRule(
            name=name,
            action=fields.choice("action", action),
            sources=_texts(fields, "from"),
            methods=_texts(fields, "methods"),
            paths=tuple(path for path, node in _items(fields, "paths") if _check_path(path, node, owner.report)),
            headers=_read_headers(fields),
            where=item.where,
        )
    return tuple(rules.values())


def _read_headers(owner: Fields) -> tuple[HeaderRule, ...]:
    found: dict[str, HeaderRule] = {}
    key = RULE.find("headers")
    assert key is not None
    assert isinstance(key.shape, MapOf)
    assert isinstance(key.shape.value, AnyOf)
    exact = key.shape.value.shapes[0]
    assert isinstance(exact, Text)
    for written, entry in owner.named("headers").items():
        name, label = written.lower(), f"the header {quote(written)}"
        if name in found:
            owner.report.add("duplicate-key", f"{label} is there twice", entry.where, "case makes no difference")
        node = entry.node
        if isinstance(node, MapNode):
            made = _read_header(name, Fields(HEADER_RULE, node, owner.report, where=node.where, label=label))
        else:
            value = read_scalar(exact, node, label, owner.report)
            made = HeaderRule(name=name, exact=value) if isinstance(value, str) else None
        if made is not None:
            found[name] = made
    return tuple(found[name] for name in sorted(found))


def _read_header(name: str, fields: Fields) -> HeaderRule | None:
    regex, present = fields.text("regex", None), fields.boolean("present", None)
    if fields.has("regex") == fields.has("present"):
        message = f"the header {quote(name)} needs either `regex` or `present`"
        code = "conflicting-keys" if fields.has("regex") else "missing-key"
        fields.report.add(code, message, fields.where, "for one exact value write the value itself")
        return None
    if regex is not None:
        reason = explain_unusable(regex)
        if reason:
            fields.report.add("bad-regex", f"the regular expression {quote(regex)} {reason}", fields.place("regex"))
    return HeaderRule(name=name, regex=regex, present=present)


def _items(fields: Fields, name: str) -> Iterable[tuple[str, Node]]:
    key = RULE.find(name)
    assert key is not None
    shape: ListOf = list_shape(key.shape)
    item = shape.item
    assert isinstance(item, Scalar)
    for node in fields.items(name):
        value = read_scalar(item, node, f"an item of {quote(name)}", fields.report)
        if isinstance(value, str):
            yield value, node


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text, _ in _items(fields, name)))


def _check_path(path: str, node: Node, report: Report) -> bool:
    def add(what: str, hint: str) -> bool:
        report.add("bad-rule-path", f"the path {quote(path)} {what}", node.where, hint)
        return False

    if not _PATH.fullmatch(path):
        return add("must begin with `/`", "write other characters than printable ASCII as `%C3%A9`")
    if "*" in path[:-1]:
        return add("has a `*` that is not at its end", "`/orders/*` stands for `/orders` and everything below")
    if _AMBIGUOUS.search(path):
        return add(
            "holds what no path of a request may hold here", "write it without query, `;`, `\\` and encoded slashes"
        )
    if _UNSETTLED.search(path):
        return add("is not as requests have it", "write it without `//`, `/./` and `/../`")
    return True
