"""`apply`, `delete`, `rollback`, `get`, `diff` and `history` ask for what was said and tell what came of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import Outcome, RunCli, ServedMesh

from meshctl.cli.app import app
from meshctl.cli.complete import complete_kinds, complete_owners
from meshctl.errors import (
    ConflictError,
    InvalidTopology,
    NotFoundError,
    Problem,
    RejectedError,
    WaitTimeoutError,
    Where,
)
from meshctl.wire.explain import ExplainRequest
from meshctl.wire.policies import ApplyRequest, DeleteRequest, DiffRequest, RollbackRequest

POLICY = "services: {payment: {timeout: '${FAST:-1s}'}}\n"
IN_EFFECT = "payment timeout: 2s -> 1s\nrevision 8; applied to 2/2 sidecars in 12 ms\n"


@pytest.fixture(autouse=True)
def _ann(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    (project / "policy.yaml").write_text(POLICY)


def asked(served: ServedMesh, name: str) -> list[Any]:
    return [what for call, what in served.backend.asked if call == f"policies.{name}"]


def test_apply_sends_a_file_from_the_revision_in_force(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAST", "300ms")
    done = run_cli("apply", "-f", "policy.yaml", "-m", "payment is slow")
    assert done.shown == f"--- exit 0\n--- stdout\n--- stderr\n{IN_EFFECT}"
    (request,) = asked(served, "apply")
    assert isinstance(request, ApplyRequest)
    assert (request.base, request.author, request.reason, request.dry_run) == (7, "ann@apply", "payment is slow", False)
    assert [(file.path, file.text) for file in request.files] == [("policy.yaml", POLICY)]
    assert request.variables == {"FAST": "300ms"}


def test_apply_reads_standard_input(served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(POLICY))
    assert run_cli("apply", "-f", "-", "-q").shown == "--- exit 0\n--- stdout\n--- stderr\n"
    (request,) = asked(served, "apply")
    assert [(file.path, file.text) for file in request.files] == [("<stdin>", POLICY)]
    assert run_cli("apply", "-f", "-", "-f", "-").code == 2


def test_a_dry_run_says_that_nothing_was_changed(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("apply", "-f", "policy.yaml", "--dry-run")
    assert done.stderr == (
        "payment timeout: 2s -> 1s\nEnvoy would take it at 2/2 sidecars (12 ms); nothing was changed\n"
    )
    assert asked(served, "apply")[0].dry_run


def test_what_is_in_force_already_is_said(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.policies.changes = []
    done = run_cli("apply", "-f", "policy.yaml")
    assert done.stderr == "nothing changed: that is in force already, as revision 8 has it\n"


def test_apply_prints_json(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("apply", "-f", "policy.yaml", "-o", "json")
    found = json.loads(done.stdout)
    assert (found["revision"], found["acked"], found["total"], done.stderr) == (8, 2, 2, "")
    assert found["changes"][0]["after_origin"]["line"] == 3


FAILURES: list[tuple[Exception, int, str]] = [
    (ConflictError("the policies have changed since revision 7: revision 8 by bob@apply came first"), 1, "bob@apply"),
    (RejectedError("the sidecar of frontend refused routes", hint="revision 8 was undone"), 1, "was undone"),
    (WaitTimeoutError("1 of 2 sidecars did not acknowledge", hint="revision 8 is in force"), 4, "is in force"),
    (NotFoundError("no service paymnt", hint="services: payment"), 1, "services: payment"),
]


@pytest.mark.parametrize(("error", "code", "words"), FAILURES, ids=["conflict", "refused", "late", "unknown"])
def test_failures_are_told(served: ServedMesh, run_cli: RunCli, *, error: Any, code: int, words: str) -> None:
    for name, command in (
        ("apply", ("apply", "-f", "policy.yaml")),
        ("delete", ("delete", "timeout", "payment")),
        ("roll_back", ("rollback", "6")),
    ):
        served.backend.failures[f"policies.{name}"] = error
        done = run_cli(*command)
        assert (done.code, words in done.stderr) == (code, True), done.stderr


def test_problems_are_shown_with_the_text_that_was_sent(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(code="unknown-service", message="`pay` is no service", where=Where("<stdin>", 1, 12))
    served.backend.failures["policies.apply"] = InvalidTopology([problem])
    monkeypatch.setattr("sys.stdin", io.StringIO("services: {pay: {timeout: 1s}}\n"))
    done = run_cli("apply", "-f", "-")
    assert done.code == 2
    assert "<stdin>:1:12: error: `pay` is no service [unknown-service]\n  1 | services: {pay" in done.stderr


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("apply", "-f", "-"), "apply"),
        (("delete", "timeout", "payment"), "delete"),
        (("rollback", "6"), "roll_back"),
    ],
)
def test_a_change_may_be_bound_to_the_revision_it_was_made_from(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], kind: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("services: {payment: {timeout: 1s}}\n"))
    assert run_cli(*words, "--base", "5").code == 0
    ((request),) = asked(served, kind)
    assert request.base == 5


def test_delete_needs_no_answer_where_nobody_can_give_one(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("delete", "timeout", "payment", "-m", "enough").stderr == IN_EFFECT
    assert asked(served, "delete") == [
        DeleteRequest(owner="payment", kind="timeout", author="ann@delete", reason="enough", base=7)
    ]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 130), ("\n", 130)])
def test_delete_asks_in_a_terminal(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    done = run_cli("delete", "timeout", "payment")
    assert done.code == code
    assert "payment timeout: 1s" in done.stderr
    assert len(asked(served, "delete")) == (code == 0)


def test_rollback_names_the_revision(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("rollback", "6").stderr == IN_EFFECT
    assert asked(served, "roll_back") == [RollbackRequest(revision=6, author="ann@rollback", reason="", base=7)]
    assert run_cli("rollback", "six").code == 2


GET = """\
NAME      POLICY   VALUE             FROM
checkout  split    {v1: 90, v2: 10}  mesh.yaml:12:14
payment   timeout  1s                revision 7, ann@apply (policy.yaml:3:14)
"""


def test_get_shows_what_is_written_and_whence(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("get").stdout == GET
    narrow = run_cli("get", width=50).stdout.splitlines()
    assert narrow[0].split() == ["NAME", "POLICY", "VALUE", "FROM"]
    assert max(map(len, narrow)) <= 50
    run_cli("get", "timeout", "payment")
    run_cli("get", "payment")
    run_cli("get", "split")
    assert asked(served, "list")[2:] == [("payment", "timeout"), ("payment", ""), ("", "split")]


def test_get_prints_yaml_and_json(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("get", "-o", "yaml").stdout == "services:\n  payment:\n    timeout: 1s\n"
    found = json.loads(run_cli("get", "-o", "json").stdout)
    assert [policy["value"] for policy in found["policies"]] == [{"v1": 90, "v2": 10}, "1s"]


def test_get_says_when_nothing_is_written_or_known(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("get", "retry_policy").shown == (
        "--- exit 0\n--- stdout\n--- stderr\n"
        "nothing of that is written: what is built in holds, or what `defaults` say\n"
    )
    served.backend.failures["policies.list"] = NotFoundError("no service patience", hint="services: payment")
    done = run_cli("get", "patience")
    assert done.code == 1
    assert "error: patience is neither a policy nor a service\n" in done.stderr
    assert "timeout" in done.stderr


DIFF = """\
payment timeout
  - 2s  mesh.yaml:12:14
  + 1s  revision 7, ann@apply (policy.yaml:3:14)
"""


def test_diff_compares_what_was_named(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("diff").stdout == DIFF
    run_cli("diff", "-f", "policy.yaml")
    run_cli("diff", "5")
    run_cli("diff", "5", "7")
    requests: list[DiffRequest] = asked(served, "diff")
    shown = [([file.path for file in r.files], r.whole, r.before, r.after) for r in requests]
    assert shown == [
        (["mesh.yaml"], True, None, None),
        (["policy.yaml"], False, None, None),
        ([], False, 5, None),
        ([], False, 5, 7),
    ]
    assert json.loads(run_cli("diff", "-o", "json").stdout)["changes"][0]["before"] == "2s"


@pytest.mark.parametrize("words", [("5", "6", "7"), ("5", "-f", "policy.yaml")])
def test_diff_takes_revisions_or_a_file(served: ServedMesh, run_cli: RunCli, words: tuple[str, ...]) -> None:
    assert run_cli("diff", *words).code == 2


def test_diff_says_when_nothing_differs(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.policies.changes = []
    assert run_cli("diff").shown == "--- exit 0\n--- stdout\n--- stderr\nnothing differs\n"


HISTORY = (
    f"REVISION  TIME                 AUTHOR     STATE    {'CHANGES':<60}  REASON\n"
    f"       7  2026-02-02 02:41:00  ann@apply  applied  {'payment timeout: 2s -> 1s':<60}  payment is slow\n"
    "       6  2026-02-02 02:40:00  bob@up     applied  checkout split: not set -> {v1: 90, v2: 10}; payment timeou…\n"
)


def test_history_shows_the_newest_first(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("history").stdout == HISTORY
    assert run_cli("history", "checkout").stdout.splitlines()[1:] == [
        "       6  2026-02-02 02:40:00  bob@up  applied  checkout split: not set -> {v1: 90, v2: 10}"
    ]
    assert "payment timeout: not set -> 2s" in run_cli("history", "-o", "wide").stdout
    done = run_cli("history", "-n", "1")
    assert done.stdout.count("\n") == 2
    assert done.stderr == "1 earlier ones: -n shows more\n"
    narrow = run_cli("history", width=70).stdout.splitlines()
    assert max(map(len, narrow)) <= 70
    found = json.loads(run_cli("history", "-n", "1", "-o", "json").stdout)
    assert [head["number"] for head in found["revisions"]] == [7]


def test_history_of_a_mesh_without_policies(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.policies.heads = []
    assert run_cli("history").stderr == "no policy was ever written here\n"


EXPLAINED = """\
POLICY     WHAT HAPPENS             FROM
route      payment: any path
timeout    1s for the whole answer  revision 7, ann@apply (policy.yaml:3:14)
retries    up to 2                  defaults mesh.yaml:12:14
chosen by  round_robin              built in
"""


def test_explain_asks_for_the_request_and_tells_what_says_so(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("explain", "payment", "/pay", "--from", "checkout", "-X", "POST", "-H", "X-User: ann")
    assert done.stderr == "checkout -> payment: POST /pay, at revision 7\n"
    assert (done.code, done.stdout) == (0, EXPLAINED)
    assert asked(served, "explain") == [
        ExplainRequest(service="payment", source="checkout", method="POST", path="/pay", headers={"X-User": "ann"})
    ]
    narrow = run_cli("explain", "payment", width=60).stdout.splitlines()
    # Where it was written is what it is asked for: long texts are broken instead.
    assert "FROM" in narrow[0]
    assert all(len(line) <= 60 for line in narrow)
    assert len(narrow) > len(EXPLAINED.splitlines())
    assert json.loads(run_cli("explain", "payment", "-o", "json").stdout)["lines"][0]["topic"] == "route"
    assert run_cli("explain", "payment", "-H", "nonsense").code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("get",),
        ("diff",),
        ("history",),
        ("rollback", "1"),
        ("delete", "timeout", "payment"),
        ("apply", "-f", "policy.yaml"),
    ],
    ids=lambda words: words[0],
)
def test_without_a_mesh_there_is_nothing_to_ask(project: Path, run_cli: RunCli, words: tuple[str, ...]) -> None:
    done: Outcome = run_cli(*words)
    assert (done.code, "no mesh runs" in done.stderr) == (3, True)


def test_policies_and_their_owners_are_completed(served: ServedMesh) -> None:
    context = typer.Context(typer.main.get_group(app))
    context.params = {}
    assert complete_kinds("time") == ["timeout"]
    assert complete_owners(context, "") == ["checkout", "defaults", "frontend", "payment"]
