"""`authz check` says who may call whom, why, and where that is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh

from meshctl.wire.authorization import AuthzRequest

FILE = """\
services:
  web: {command: ./web, upstreams: [payment]}
  payment:
    command: ./payment
    security:
      rules:
        - {name: charges, action: allow, from: [web], methods: [POST], paths: [/charge], headers: {x-role: a}}
"""


def test_the_answer_of_the_running_mesh_is_shown(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("authz", "check", "--from", "frontend", "--to", "checkout", "-H", "X-Role=a=b", "-H", "x-role: c")
    assert done.shown == (
        "--- exit 0\n--- stdout\nallowed: frontend may GET / at checkout\n"
        "no rule matches, and the default is `allow`\n--- stderr\n"
    )
    request = AuthzRequest(source="frontend", target="checkout", headers={"x-role": ["a=b", "c"]})
    assert served.backend.asked == [("authorization.check", request)]


def test_a_refusal_ends_with_1(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("authz", "check", "--from", "web", "--to", "payment", "--method", "POST", "--path", "/charge")
    assert done.shown == (
        "--- exit 1\n--- stdout\ndenied: web may not POST /charge at payment\n"
        "by the rule look-only (mesh.yaml:12:9)\n--- stderr\n"
    )
    done = run_cli("authz", "check", "--from", "web", "--to", "payment", "--method", "POST", "-o", "json")
    assert done.code == 1
    answer = json.loads(done.stdout)
    assert (answer["allowed"], answer["rule"], answer["where"]["line"]) == (False, "look-only", 12)


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (
            ("--method", "POST", "--path", "/charge", "-H", "x-role=a"),
            0,
            "allowed: web may POST /charge at payment\nby the rule charges (strict.yaml:7:11)\n",
        ),
        (("--path", "/charge"), 1, "denied: web may not GET /charge at payment\nno allow rule matches\n"),
    ],
)
def test_files_are_asked_without_a_mesh(
    folder: Path, run_cli: RunCli, words: tuple[str, ...], code: int, out: str
) -> None:
    (folder / "strict.yaml").write_text(FILE)
    done = run_cli("authz", "check", "-f", "strict.yaml", "--from", "web", "--to", "payment", *words)
    assert (done.code, done.stdout, done.stderr) == (code, out, "")


def test_a_name_that_does_not_exist_is_told_with_those_that_do(folder: Path, run_cli: RunCli) -> None:
    (folder / "mesh.yaml").write_text(FILE)
    done = run_cli("authz", "check", "-f", "mesh.yaml", "--from", "wib", "--to", "payment")
    assert (done.code, done.stderr) == (
        1,
        "error: nobody is called wib\nhint: callers: anonymous, gateway, payment, web\n",
    )


@pytest.mark.parametrize("header", ["x-role", "=a", ": a"])
def test_a_header_that_is_none_is_told(served: ServedMesh, run_cli: RunCli, header: str) -> None:
    done = run_cli("authz", "check", "--from", "web", "--to", "payment", "-H", header)
    assert done.code == 2
    assert "write 'NAME: VALUE'" in done.stderr
    assert served.backend.asked == []


def test_without_a_mesh_it_says_so(project: Path, run_cli: RunCli) -> None:
    assert run_cli("authz", "check", "--from", "web", "--to", "payment").code == 3
