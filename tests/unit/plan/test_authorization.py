"""Who may call: the order in which rules are looked at, and what is said of it."""

from __future__ import annotations

import pytest
from tests.support.cases import load_mesh

from meshctl.errors import ConflictError, NotFoundError, UsageError
from meshctl.plan.admission import find_admission
from meshctl.plan.policies.authorization import Call, decide, plan_authorization
from meshctl.plan.policies.mtls import plan_peers

MESH = """\
services:
  web: {command: [web], upstreams: [payment, cache, open, moving]}
  other: {command: [other]}
  payment:
    command: [payment]
    security: %s
  cache: {command: [cache], protocol: tcp, security: {rules: [{name: web, action: allow, from: [web]}]}}
  open: {command: [open], security: {authz_policy: none}}
  moving: {command: [moving], security: {mtls: permissive}}
  plain: {command: [plain], security: {mtls: false, default: deny}}
  far: {address: "far.example:80"}
  seed: {command: [seed], job: true, upstreams: [payment]}
"""

RULES = """{rules: [
    {name: looking, action: allow, methods: [GET], paths: ["/orders/*"]},
    {name: no-admin, action: deny, paths: [/orders/admin]},
    {name: roles, action: allow, headers: {x-role: admin, x-test: {present: false}}}]}"""


def decided(security: str, call: Call, target: str = "payment", open_services: tuple[str, ...] = ()) -> str:
    mesh = load_mesh(MESH % security)
    plan = plan_authorization(mesh, mesh.services[target], open_services)
    assert plan is not None
    decision = decide(plan, call)
    return f"{'allow' if decision.allowed else 'deny'} {decision.policy}"


@pytest.mark.parametrize(
    ("security", "call", "said"),
    [
        ("{}", Call(source="web"), "allow default-allow"),
        ("{}", Call(source="seed"), "allow default-allow"),
        ("{}", Call(source="other"), "deny undeclared-caller"),
        ("{}", Call(source="anonymous"), "deny undeclared-caller"),
        ("{}", Call(source="gateway"), "allow gateway"),
        ("{}", Call(source="web", path="/a;b"), "allow default-allow"),
        ("{default: deny}", Call(source="web"), "deny default-deny"),
        ("{default: deny}", Call(source="gateway"), "allow gateway"),
        (RULES, Call(source="web", path="/orders/7"), "allow rule:looking"),
        (RULES, Call(source="web", path="/orders/admin"), "deny rule:no-admin"),
        (RULES, Call(source="web", path="/orders//x/../admin/"), "deny rule:no-admin"),
        (RULES, Call(source="gateway", path="/orders/admin"), "deny rule:no-admin"),
        (RULES, Call(source="other", path="/orders/admin"), "deny rule:no-admin"),
        (RULES, Call(source="gateway", path="/other"), "allow gateway"),
        (RULES, Call(source="web", path="/other"), "deny no-allow-rule"),
        (RULES, Call(source="web", method="POST", path="/orders/7"), "deny no-allow-rule"),
        (RULES, Call(source="web", path="/orders%2f7"), "deny ambiguous-path"),
        (RULES, Call(source="web", path="/orders#7"), "deny ambiguous-path"),
        (RULES, Call(source="web", path="/x", headers={"x-role": ("admin",)}), "allow rule:roles"),
        (RULES, Call(source="web", path="/x", headers={"x-role": ("admin", "x")}), "deny no-allow-rule"),
        (RULES, Call(source="web", path="/x", headers={"x-role": ("admin",), "x-test": ("",)}), "deny no-allow-rule"),
    ],
)
def test_the_first_that_applies_decides(security: str, call: Call, said: str) -> None:
    assert decided(security, call) == said


def test_one_value_of_several_is_enough_for_a_deny_rule() -> None:
    security = "{rules: [{name: r, action: deny, headers: {x-role: intern}}]}"
    for values in (("intern",), ("a", "intern"), ("a, intern ,b",)):
        assert decided(security, Call(source="web", headers={"x-role": values})) == "deny rule:r"
    for values in (("interns",), ("an intern",), ("",)):
        assert decided(security, Call(source="web", headers={"x-role": values})) == "allow default-allow"


def test_what_was_only_registered_stays_open() -> None:
    mesh = load_mesh(MESH % "{}")
    assert plan_authorization(mesh, mesh.services["payment"], ("payment",)) is None
    assert decided("{default: deny}", Call(source="other"), open_services=("payment",)) == "deny default-deny"


def test_callers_of_plain_tcp_are_listed() -> None:
    mesh = load_mesh(MESH % "{}")
    peers = plan_peers(mesh, mesh.services["cache"], ())
    assert peers is not None
    assert peers.names == ("gateway", "web")
    assert plan_peers(mesh, mesh.services["payment"], ()) is None


@pytest.mark.parametrize(
    ("source", "target", "lines"),
    [
        (
            "web",
            "payment",
            ("allowed: web may GET /orders/7 at payment", "by the rule looking (mesh.yaml:7:5)"),
        ),
        (
            "other",
            "payment",
            (
                "denied: other may not GET /orders/7 at payment",
                "other does not declare payment as an upstream (mesh.yaml:3:3)",
            ),
        ),
        ("gateway", "cache", ("allowed: gateway may call cache", "the gateway may call every service")),
        ("other", "open", ("allowed: other may GET /orders/7 at open", "`authz_policy: none` admits everybody")),
        ("anonymous", "payment", ("denied: anonymous may not GET /orders/7 at payment", "it takes mTLS alone")),
        (
            "anonymous",
            "moving",
            ("allowed: anonymous may GET /orders/7 at moving", "no rule matches, and the default is `allow`"),
        ),
        (
            "web",
            "plain",
            (
                "denied: web may not GET /orders/7 at plain",
                "there is no allow rule, and the default is `deny` (mesh.yaml:13:62)",
            ),
        ),
    ],
)
def test_an_answer_says_why_and_where(source: str, target: str, lines: tuple[str, ...]) -> None:
    mesh = load_mesh(MESH % RULES)
    assert find_admission(mesh, (), target, Call(source=source, path="/orders/7")).lines == lines


def test_an_audit_lets_through_and_says_what_it_would_refuse() -> None:
    mesh = load_mesh(MESH % "{audit: true, default: deny}")
    found = find_admission(mesh, (), "payment", Call(source="web"))
    assert (found.allowed, found.audited, found.policy) == (True, True, "default-deny")
    assert found.lines[1] == (
        "only because payment audits: it would be denied, there is no allow rule, and the default is `deny` "
        "(mesh.yaml:6:38)"
    )
    assert found.words == (
        "allowed, and logged, because it only audits; would be denied: "
        "there is no allow rule, and the default is `deny`"
    )


@pytest.mark.parametrize(
    ("source", "target", "path", "error"),
    [
        ("wib", "payment", "/", NotFoundError),
        ("web", "paiment", "/", NotFoundError),
        ("web", "far", "/", ConflictError),
        ("web", "seed", "/", ConflictError),
        ("web", "payment", "orders", UsageError),
    ],
)
def test_what_cannot_be_asked_is_told(source: str, target: str, path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        find_admission(load_mesh(MESH % "{}"), (), target, Call(source=source, path=path))
