"""``meshctl stat`` and ``edges``: tables in a pipe and on narrow terminals, JSON, watching, and what is not known."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import make_metrics, make_row

from meshctl.wire.metrics import Metrics
from meshctl.wire.models import decode


def test_stat_shows_services_and_their_versions(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("stat").shown == (
        """\
--- exit 0
--- stdout
SERVICE   VERSION  SUCCESS  RPS    P50   P95    P99  RETRIES  CONN  NOTE
checkout  all       99.00%   10  4.2ms  31ms  1.25s        4     3
checkout  v1        99.00%  9.0  4.2ms  31ms  1.25s        4     3
checkout  v2             –    0      –     –      –        0     0
frontend  v1        99.00%   10  4.2ms  31ms  1.25s        4     3
payment   v1             –    –      –     –      –        0     –  12s old
checkout: its sidecar's figures are 12s old: it hangs
payment: no figures yet
--- stderr
"""
    )


def test_edges_show_both_ends(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("edges").shown == (
        """\
--- exit 0
--- stdout
SRC       DST       SECURED  SUCCESS  RPS    P50   P95    P99  RETRIES  CONN  NOTE
checkout  payment   yes            –    –      –     –      –        0     –  12s old
frontend  checkout  yes       99.00%   10  4.2ms  31ms  1.25s        4     3
gateway   frontend  no        99.00%   10  4.2ms  31ms  1.25s        4     3
checkout: its sidecar's figures are 12s old: it hangs
payment: no figures yet
--- stderr
"""
    )


def test_wide_adds_the_other_side(served: ServedMesh, run_cli: RunCli) -> None:
    lines = run_cli("edges", "frontend", "-o", "wide").stdout.splitlines()
    assert lines[1].split()[-10:] == [
        "18ms", "2", "1", "half_open", "95.19%", "900ms", "1.2kB/s", "34kB/s", "200:99,503:1", "UH:1",
    ]  # fmt: skip


def test_grpc_has_its_own_statuses_beside_that_of_http(served: ServedMesh, run_cli: RunCli) -> None:
    row = make_row("payment", source="checkout", statuses={"200": 9}, grpc={"OK": 5, "UNAVAILABLE": 4})
    served.backend.metrics.found = make_metrics(edges=[row])
    assert "200:9,OK:5,UNAVAILABLE:4" in run_cli("edges", "-o", "wide").stdout


def test_a_narrow_terminal_keeps_success_and_rate(served: ServedMesh, run_cli: RunCli) -> None:
    lines = run_cli("-q", "stat", "checkout", width=34).stdout.splitlines()
    assert lines[0].split()[0] == "SERVICE"
    assert {"SUCCESS", "RPS"} <= set(lines[0].split())
    assert all(len(line) <= 34 for line in lines)


def test_json_is_the_wire_shape(served: ServedMesh, run_cli: RunCli) -> None:
    outcome = run_cli("stat", "-o", "json")
    assert decode(outcome.stdout.encode(), Metrics) == served.backend.metrics.found
    assert (outcome.code, outcome.stderr) == (0, "")


def test_json_of_one_service_has_only_what_concerns_it(served: ServedMesh, run_cli: RunCli) -> None:
    shown = json.loads(run_cli("edges", "frontend", "-o", "json").stdout)
    assert [(edge["source"], edge["destination"]) for edge in shown["edges"]] == [
        ("frontend", "checkout"),
        ("gateway", "frontend"),
    ]
    assert [row["destination"] for row in shown["services"]] == ["frontend"]


def test_watching_prints_again(served: ServedMesh, run_cli: RunCli) -> None:
    lines = run_cli("stat", "--watch", "-o", "json").stdout.splitlines()
    assert [decode(line.encode(), Metrics) for line in lines] == [served.backend.metrics.found] * 2
    assert served.backend.asked[-1] == ("metrics.stream", ("", "", 10.0, 1.0))
    assert run_cli("-q", "stat", "--watch").stdout.count("SERVICE") == 2


def test_the_window_is_asked_for(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("stat", "--window", "1m30s").code == 0
    assert served.backend.asked[-1] == ("metrics.get", ("", "", 90.0, None, False))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("stat", "payments"), 1, "error: no service payments"),
        (("edges", "nobody"), 1, "error: no service nobody"),
        (("stat", "--window", "soon"), 2, "--window: 'soon' is no duration"),
        (("edges", "-w", "100ms"), 2, "--window: 100ms is too short"),
    ],
)
def test_what_cannot_be_is_said(
    served: ServedMesh, run_cli: RunCli, words: tuple[str, ...], code: int, message: str
) -> None:
    outcome = run_cli(*words)
    assert (outcome.code, outcome.stdout) == (code, "")
    assert message in outcome.stderr


def test_without_a_mesh_there_are_no_figures(project: object, run_cli: RunCli) -> None:
    assert run_cli("stat").code == 3


def test_fresh_figures_need_no_note(served: ServedMesh, run_cli: RunCli) -> None:
    found = make_metrics()
    rows = [msgspec.structs.replace(row, stale=[]) for row in found.services]
    served.backend.metrics.found = msgspec.structs.replace(found, services=rows, versions=[], sidecars=[])
    assert "NOTE" not in run_cli("stat").stdout
