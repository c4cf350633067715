"""`meshctl circuit` lists breakers in words and says what is held by hand."""

from __future__ import annotations

import getpass
import json

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import T0
from tests.fakes.circuits import make_circuit

from meshctl.cli import render
from meshctl.cli.circuit import describe_failures, describe_why
from meshctl.errors import NotFoundError
from meshctl.wire.circuits import ForceRequest


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty seconds after the circuits changed."""
    monkeypatch.setattr(render, "read_clock", lambda: T0 + 20)


def test_list_tells_states_and_reasons(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("circuit", "list").stdout == (
        "CALLER    SERVICE   STATE      FAILURES  REFUSED  SINCE    WHY\n"
        "checkout  payment   open              -       30  20s ago  5 failures in a row; tries again in 12s\n"
        "frontend  catalog   closed          2/5        0  -        -\n"
        "frontend  checkout  half-open  1/2 good        4  20s ago  calls may try again after 30s\n"
        "gateway   frontend  open              -        0  -        held by hand\n"
    )


def test_a_narrow_terminal_drops_columns(served: ServedMesh, run_cli: RunCli) -> None:
    out = run_cli("circuit", "list", width=44).stdout
    assert all(len(line) <= 44 for line in out.splitlines())
    assert "STATE" in out
    assert "SINCE" not in out


def test_wide_adds_failed_calls(served: ServedMesh, run_cli: RunCli) -> None:
    assert "FAILED" in run_cli("circuit", "list", "-o", "wide").stdout


def test_list_of_one_service_as_json(served: ServedMesh, run_cli: RunCli) -> None:
    found = json.loads(run_cli("circuit", "list", "payment", "-o", "json").stdout)["circuits"]
    assert [(item["caller"], item["service"], item["retry_in"]) for item in found] == [("checkout", "payment", 12.4)]


@pytest.mark.parametrize(("verb", "forced"), [("open", "open"), ("close", "closed"), ("auto", "auto")])
def test_forcing_says_how_many_sidecars_know(served: ServedMesh, run_cli: RunCli, verb: str, forced: str) -> None:
    done = run_cli("circuit", verb, "payment", "-m", "a move")
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr == f"the circuit to payment is held {forced}; applied to 2/2 sidecars in 12 ms\n"
    asked = ForceRequest(
        service="payment",
        forced=forced,  # type: ignore[arg-type]
        author=f"{getpass.getuser()}@circuit {verb}",
        reason="a move",
    )
    assert served.backend.asked[-1] == ("circuits.force", asked)


def test_a_service_that_does_not_exist_is_named(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.failures["circuits.force"] = NotFoundError("no service pay", hint="services: payment")
    done = run_cli("circuit", "open", "pay")
    assert (done.code, done.stderr) == (1, "error: no service pay\nhint: services: payment\n")


def test_a_window_and_a_circuit_that_waits_for_a_call_are_put_into_words() -> None:
    assert describe_failures(make_circuit("a", "b", failures=1, window_calls=80, window_failed=9)) == "1/5, 9 of 80"
    waiting = make_circuit("a", "b", state="open", retry_in=0.0, reason="50% of the last calls failed")
    assert describe_why(waiting) == "50% of the last calls failed; the next call tries again"
