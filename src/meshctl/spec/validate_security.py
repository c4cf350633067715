"""What must hold between rules of authorization and services: names, identities, protocols.  Pure.

Enters: a Mesh in which every value by itself has been read, and the tree it came from, for places.  Leaves: problems.
"""

from __future__ import annotations

from meshctl.errors import Where
from meshctl.spec.policy_schema import AuthzRule
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.source import ListNode, MapNode, ScalarNode

ANONYMOUS = "anonymous"
"""What callers without mTLS are called in rules."""

_GATEWAY = "gateway"


def check_security(mesh: Mesh, root: MapNode, report: Report) -> None:
    """Report rules that name nobody, and rules that could never do what they say."""
    known = sorted({*mesh.services, _GATEWAY, ANONYMOUS})
    for service in mesh.services.values():
        security = service.policies.security
        for rule in security.rules:
            for name in rule.sources:
                if name not in known:
                    message = f"the rule {quote(rule.name)} names {quote(name)}, which is no service"
                    hint = f"there are {join_names(known)}"
                    where = _place(root, service, rule, "from", name)
                    report.add("unknown-service", message + report.suggest(name, known), where, hint)
            _check_effect(service, rule, root, report)
        if not _is_checked(service) and _own_rules(root, service) is not None:
            why = "lies outside the mesh" if service.address is not None else "takes no calls"
            if service.address is None and not service.is_job:
                why = "has `authz_policy: none`"
            message = f"{quote(service.name)} has rules, but {why}: nobody would look at them"
            where = security.rules[0].where if security.rules else service.where
            report.add("rules-without-effect", message, where, "remove them, or what keeps them from having effect")


def _is_checked(service: Service) -> bool:
    return service.address is None and not service.is_job and service.policies.security.authz_policy == "rbac"


def _check_effect(service: Service, rule: AuthzRule, root: MapNode, report: Report) -> None:
    if not _is_checked(service):
        return
    named = [name for name in rule.sources if name != ANONYMOUS]
    if service.policies.security.mtls == "off" and named:
        message = f"the rule {quote(rule.name)} names {quote(named[0])}, but {quote(service.name)} has `mtls: false`"
        hint = "without mTLS nobody is known by name: use `permissive`, or rules without `from`"
        report.add("rule-needs-mtls", message, _place(root, service, rule, "from", named[0]), hint)
    conditions = [key for key in ("methods", "paths", "headers") if getattr(rule, key)]
    if service.protocol == "tcp" and conditions:
        message = f"the rule {quote(rule.name)} names {conditions[0]}, but {quote(service.name)} speaks plain TCP"
        hint = f"a connection has no {conditions[0]}: give {quote(service.name)} `rules` of its own, with `from` alone"
        report.add("rule-needs-http", message, _place(root, service, rule, conditions[0]), hint)


def _own_rules(root: MapNode, service: Service) -> ListNode | None:
    return _rules_at(root, "services", service.name)


def _rules_at(root: MapNode, *path: str) -> ListNode | None:
    node: object = root
    for key in (*path, "security", "rules"):
        node = node.get(key) if isinstance(node, MapNode) else None
    return node if isinstance(node, ListNode) and node.items else None


def _place(root: MapNode, service: Service, rule: AuthzRule, key: str, text: str = "") -> Where | None:
    """The place of a text in a list of a rule, else of the key, else of the rule."""
    for rules in (_own_rules(root, service), _rules_at(root, "defaults")):
        for item in rules.items if rules is not None else ():
            if not isinstance(item, MapNode) or item.where != rule.where or key not in item.entries:
                continue
            entry = item.entries[key]
            texts = entry.node.items if isinstance(entry.node, ListNode) else ()
            found = [node.where for node in texts if isinstance(node, ScalarNode) and node.text == text]
            return found[0] if found else entry.where
    return rule.where
