"""`meshctl call` sends what it is asked to, shows who answered, and explains what went wrong."""

from __future__ import annotations

import io
import json
import socket
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh, Sidecar

from meshctl.cli.call import EXPLANATIONS, split_target
from meshctl.errors import UsageError
from meshctl.wire.models import CallTarget


def test_the_body_goes_to_stdout_and_who_answered_to_stderr(sidecar: Sidecar, run_cli: RunCli) -> None:
    done = run_cli("call", "payment/pay?amount=5")
    assert (done.code, done.stdout) == (0, '{"ok": true}')
    assert done.stderr.startswith("200 OK in ")
    assert done.stderr.endswith(" ms from payment-v1-1 (v1), called as gateway\n")
    method, path, headers, body = sidecar.requests[0]
    assert (method, path, headers["host"], body) == ("GET", "/pay?amount=5", "payment", b"")
    assert headers["user-agent"].startswith("meshctl/")


def test_quiet_prints_the_body_only(sidecar: Sidecar, run_cli: RunCli) -> None:
    done = run_cli("call", "-q", "payment")
    assert (done.stdout, done.stderr) == ('{"ok": true}', "")


def test_a_request_can_be_sent_as_any_service(sidecar: Sidecar, run_cli: RunCli) -> None:
    assert run_cli("call", "--from", "checkout", "http://payment/pay").stderr.endswith("called as checkout\n")


@pytest.mark.parametrize(
    ("arguments", "method", "kind", "body"),
    [
        (("-d", '{"amount": 5}'), "POST", "application/json", b'{"amount": 5}'),
        (("-d", "hello"), "POST", "text/plain; charset=utf-8", b"hello"),
        (("-d", "@order.json", "-X", "put"), "PUT", "application/json", b"[1]"),
        (("-d", "-", "-H", "content-type: text/csv"), "POST", "text/csv", b"a,b\n"),
    ],
)
def test_a_body_comes_from_text_file_or_stdin(
    sidecar: Sidecar,
    run_cli: RunCli,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    arguments: tuple[str, ...],
    method: str,
    kind: str,
    body: bytes,
) -> None:
    (project / "order.json").write_text("[1]")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a,b\n")))
    assert run_cli("call", "payment/pay", *arguments).code == 0
    got = sidecar.requests[0]
    assert (got[0], got[2]["content-type"], got[3]) == (method, kind, body)


def test_headers_are_sent_as_given(sidecar: Sidecar, run_cli: RunCli) -> None:
    run_cli("call", "payment", "-H", "x-a: 1", "-H", "Host: other", "-H", "User-Agent: me")
    headers = sidecar.requests[0][2]
    assert (headers["x-a"], headers["host"], headers["user-agent"]) == ("1", "other", "me")


def test_headers_of_the_answer_are_shown_when_asked_for(sidecar: Sidecar, run_cli: RunCli) -> None:
    out = run_cli("call", "-i", "payment").stdout
    assert out.startswith("HTTP/1.1 200 OK\n")
    assert "x-meshctl-instance: payment-v1-1\n" in out
    assert out.endswith('\n\n{"ok": true}')


def test_json_holds_the_whole_answer(sidecar: Sidecar, run_cli: RunCli) -> None:
    done = run_cli("call", "payment", "-o", "json")
    answer = json.loads(done.stdout)
    assert done.stderr == ""
    assert answer.pop("duration_ms") > 0
    headers = answer.pop("headers")
    assert headers["x-meshctl-version"] == "v1"
    assert answer == {"status": 200, "body": '{"ok": true}', "instance": "payment-v1-1", "version": "v1"}


@pytest.mark.parametrize(("status", "code"), [(204, 0), (302, 0), (404, 1), (500, 1)])
def test_the_exit_code_follows_the_status(sidecar: Sidecar, run_cli: RunCli, status: int, code: int) -> None:
    sidecar.status = status
    assert run_cli("call", "payment").code == code


@pytest.mark.parametrize(("status", "start", "words"), EXPLANATIONS)
def test_answers_of_the_sidecar_itself_are_explained(
    sidecar: Sidecar, run_cli: RunCli, status: int, start: str, words: str
) -> None:
    sidecar.status, sidecar.body, sidecar.headers = status, start.encode(), {}
    done = run_cli("call", "--from", "checkout", "payment")
    assert done.code == 1
    reached = "no answer came in time" if status == 504 else "no instance was reached"
    assert f"from the sidecar itself: {reached}" in done.stderr
    assert f"hint: {words.format(source='checkout', service='payment')}" in done.stderr


def test_a_redirect_by_a_route_is_no_failure_to_reach_an_instance(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.status, sidecar.headers = 308, {}
    assert "from the sidecar itself: it redirects, called as" in run_cli("call", "payment").stderr


def test_an_answer_that_was_passed_on_came_from_the_service_or_its_sidecar(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.headers = {"x-envoy-upstream-service-time": "3"}
    assert " from payment or its sidecar, called as" in run_cli("call", "payment").stderr


def test_a_misspelt_service_is_pointed_out(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.status, sidecar.headers = 404, {}
    assert "hint: there is no service paymnt in this mesh; did you mean payment?" in run_cli("call", "paymnt").stderr


def test_an_answer_that_says_what_to_do_needs_no_hint(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.status, sidecar.headers = 502, {}
    sidecar.body = b'meshctl: checkout has no upstream "payment". Declare it.\n'
    done = run_cli("call", "--from", "checkout", "payment")
    assert (done.code, done.stdout, "hint" in done.stderr) == (1, sidecar.body.decode(), False)


def test_an_answer_of_unknown_origin_points_to_the_sidecars(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.status, sidecar.headers, sidecar.body = 500, {}, b"?"
    assert "hint: `meshctl proxy status`" in run_cli("call", "payment").stderr


def test_a_failure_of_the_service_is_not_explained_away(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.status, sidecar.body = 503, b"no healthy upstream"
    assert "hint" not in run_cli("call", "payment").stderr


def test_an_answer_that_takes_too_long_ends_with_4(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.hang = True
    done = run_cli("call", "--timeout", "50ms", "payment")
    assert (done.code, done.stdout) == (4, "")
    assert "payment gave no whole answer within 0.05 s" in done.stderr


def test_a_sidecar_that_takes_no_connections_is_explained(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as deaf:  # nobody else can take its port
        deaf.bind(("127.0.0.1", 0))
        target = CallTarget(source="checkout", socket="", host="127.0.0.1", port=deaf.getsockname()[1])
        monkeypatch.setattr(served.backend, "call_target", lambda source: target)
        done = run_cli("call", "--from", "checkout", "payment")
    assert done.code == 1
    assert "the sidecar of checkout does not take connections" in done.stderr
    assert "meshctl status" in done.stderr


def test_an_unknown_source_is_an_error(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("call", "--from", "nobody", "payment")
    assert (done.code, "no service nobody" in done.stderr) == (1, True)


def test_without_a_mesh_nothing_is_sent(project: Path, run_cli: RunCli) -> None:
    assert run_cli("call", "payment").code == 3


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("orders", ("orders", "/")),
        ("orders/", ("orders", "/")),
        ("orders/a/b?x=1&y=%20", ("orders", "/a/b?x=1&y=%20")),
        ("http://orders:80/a", ("orders:80", "/a")),
        ("orders//a", ("orders", "//a")),
        ("orders?x=1", ("orders", "/?x=1")),
    ],
)
def test_a_target_is_service_and_path(target: str, parts: tuple[str, str]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize("target", ["https://orders/", "ftp://orders/", "/path", "", "a b", "http://[x"])
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(UsageError):
        split_target(target)


@pytest.mark.parametrize(
    "arguments",
    [("-H", "nothing"), ("-H", ": x"), ("-d", "@none.json"), ("--timeout", "soon"), ("-X", "a b"), ("-H", "a b: c")],
)
def test_wrong_options_end_with_2(sidecar: Sidecar, run_cli: RunCli, arguments: tuple[str, ...]) -> None:
    done = run_cli("call", "payment", *arguments)
    assert (done.code, sidecar.requests) == (2, [])
