"""`meshctl inject` asks for faults, tells what callers will see, lists and ends them; other commands show a banner."""

from __future__ import annotations

import getpass
import json
import sys
from typing import Any

import msgspec
import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.faults import make_fault

from meshctl.cli import fault_banner, render
from meshctl.cli.inject import format_share
from meshctl.wire.faults import ClearRequest, InjectRequest

NOW = 1_700_000_010.0


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds after the fault began."""
    for module in ("status", "stat"):
        monkeypatch.setattr(f"meshctl.cli.{module}.read_clock", lambda: NOW)
    monkeypatch.setattr(render, "read_clock", lambda: NOW)


@pytest.fixture
def broken(served: ServedMesh) -> ServedMesh:
    served.backend.faults.faults = [make_fault("f1")]
    served.backend.mesh = msgspec.structs.replace(served.backend.mesh, faults=[make_fault("f1")])
    return served


def asked(served: ServedMesh) -> list[Any]:
    return [request for name, request in served.backend.asked if name == "inject"]


def test_injecting_tells_what_is_on_and_what_callers_will_see(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("inject", "fault", "payment", "--abort", "503", "--percent", "20", "-m", "why not")
    assert done.code == 0
    assert done.stdout == (
        "\n"
        "WHAT AN ATTEMPT MEETS  SHARE\n"
        "nothing                  80%\n"
        "abort 503                20%\n"
        "\n"
        "REQUESTS                           ATTEMPTS  FAIL IN THE END\n"
        "GET, PUT, DELETE, Idempotency-Key         3             0.8%\n"
        "POST, PATCH                               1              20%\n"
        "- health checks are not hit: /health (--health-checks hits them too)\n"
    )
    assert done.stderr == (
        "f1 is on: payment, delay 300ms, 20% of requests, for 4m50s\n"
        "in effect at 2 sidecars after 12 ms\n"
        "\n"
        "end it before its time: meshctl inject clear f1\n"
    )
    assert asked(served) == [
        InjectRequest(
            service="payment",
            abort=503,
            percent=20.0,
            author=f"{getpass.getuser()}@inject fault",
            reason="why not",
        )
    ]


def test_every_option_is_handed_on(served: ServedMesh, run_cli: RunCli) -> None:
    words = "--delay 300ms --jitter 50ms --grpc-status unavailable --rate 10KB/s --percent 0.01 --exclusive"
    more = "--side caller --from checkout --from gateway --version v2 --instance payment-v2-1 --path /pay --method post"
    rest = "--header x-user=ann --header x-any --health-checks --for 2h --name slow --force --yes -o json"
    done = run_cli("inject", "fault", "payment", *words.split(), *more.split(), *rest.split())
    assert json.loads(done.stdout)["fault"]["id"] == "slow"
    assert asked(served) == [
        InjectRequest(
            service="payment",
            delay="300ms",
            jitter="50ms",
            grpc_status="UNAVAILABLE",
            rate="10KB/s",
            percent=0.01,
            exclusive=True,
            side="caller",
            callers=["checkout", "gateway"],
            version="v2",
            instance="payment-v2-1",
            path="/pay",
            methods=["POST"],
            headers={"x-user": "ann", "x-any": None},
            health_checks=True,
            duration="2h",
            name="slow",
            force=True,
            confirmed=True,
            author=f"{getpass.getuser()}@inject fault",
        )
    ]


def test_a_dry_run_says_that_nothing_was_changed(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("inject", "fault", "payment", "--blackhole", "--dry-run")
    assert done.stderr.splitlines()[-1] == "nothing was changed (--dry-run)"
    assert served.backend.faults.faults == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fault", "payment", "--abort", "503", "--for", "soon"], 2, "--for: 'soon' is no duration"),
        (["fault", "payment", "--abort", "503", "--header", "=x"], 2, "names no header"),
        (["clear"], 2, "name the faults to end, or --all"),
        (["clear", "f1", "--all"], 2, "name the faults to end, or --all"),
        (["clear", "f9"], 1, "no fault f9 is on"),
        (["fault", "gateway", "--abort", "503"], 1, "wants a confirmation"),
    ],
)
def test_what_cannot_be_says_why(broken: ServedMesh, run_cli: RunCli, words: list[str], code: int, said: str) -> None:
    done = run_cli("inject", *words)
    assert said in done.stderr
    assert done.code == code


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_whoever_sits_at_a_terminal_is_asked(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self, *_: Any) -> str:
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("typer.confirm", lambda _question, err: answer == "y\n")
    assert run_cli("inject", "fault", "gateway", "--abort", "503").code == code
    assert [request.confirmed for request in asked(served)] == ([False, True] if code == 0 else [False])


def test_list_tells_what_is_on(broken: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("inject", "list", "-o", "wide").stdout == (
        "ID  ON       FAULT                         STATE  ENDS IN  BY                WHY\n"
        "f1  payment  delay 300ms, 20% of requests  on       4m50s  ann@inject fault  is the timeout long enough?\n"
    )
    assert json.loads(run_cli("inject", "list", "-o", "json").stdout)["faults"][0]["ends_at"] == 1_700_000_300.0
    assert all(len(line) <= 40 for line in run_cli("inject", "list", width=40).stdout.splitlines())


def test_without_faults_lists_are_empty(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("inject", "list").stderr == "no fault is on\n"
    assert run_cli("inject", "clear", "--all").stderr == "no fault is on\n"
    assert json.loads(run_cli("inject", "list", "-o", "json").stdout) == {"faults": []}


def test_clearing_says_what_is_over(broken: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("inject", "clear", "f1")
    assert done.stderr == ("f1 is over: payment, delay 300ms, 20% of requests\nin effect at 2 sidecars after 9 ms\n")
    assert ("clear", ClearRequest(ids=["f1"], author=f"{getpass.getuser()}@inject clear")) in broken.backend.asked


def test_status_and_stat_show_a_banner_and_a_column_while_a_fault_is_on(broken: ServedMesh, run_cli: RunCli) -> None:
    banner = "FAULT f1 on payment: delay 300ms, 20% of requests; ends in 4m50s"
    for verb in ("status", "stat", "edges"):
        lines = run_cli(verb).stdout.splitlines()
        assert banner in lines
        assert "end them: meshctl inject clear --all" in lines
        titles = next(line for line in lines if line.startswith(("SERVICE", "SRC")))
        assert titles.endswith("FAULT")
    broken.backend.faults.faults = []
    assert "FAULT" not in run_cli("stat").stdout


def test_a_banner_of_many_faults_is_short() -> None:
    faults = [make_fault(f"f{number}", state="ending" if number == 1 else "on") for number in range(1, 9)]
    lines = [line.plain for line in fault_banner.draw_banner(faults, NOW)]
    assert lines[0].endswith("is being undone")
    assert lines[-2:] == ["FAULTS: 3 more are on (meshctl inject list)", "end them: meshctl inject clear --all"]
    assert fault_banner.fault_cell(faults[:2], "payment").plain == "f1,f2"
    assert fault_banner.fault_cell(faults, "cart").plain == "-"
    narrowed = [make_fault("f1", callers=["checkout"])]
    assert fault_banner.fault_cell(narrowed, "payment", "checkout").plain == "f1"
    assert fault_banner.fault_cell(narrowed, "payment", "frontend").plain == "-"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (0.0001, "0.01%"),
        (0.125, "12.5%"),
        (1 / 3, "33.3%"),
        (0.9999, "99.99%"),
        (1.0, "100%"),
        (1e-12, "<0.000001%"),
    ],
)
def test_shares_are_short_and_never_rounded_to_all_or_nothing(share: float, text: str) -> None:
    assert format_share(share) == text
