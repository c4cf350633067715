"""``meshctl top`` without a terminal: one table, one snapshot, a stream of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.mesh_reader import make_metrics

from meshctl.wire.metrics import Metrics
from meshctl.wire.models import decode
from meshctl.wire.top import TopSnapshot


class FakeMetrics:
    """The figures of the shop; a stream ends after three."""

    def get(self, *_args: object, **_options: object) -> Metrics:
        return make_metrics()

    async def stream(self, *_args: object, **_options: object) -> AsyncIterator[Metrics]:
        for number in range(3):
            yield make_metrics(time=float(number))


@pytest.fixture
def mesh(served: ServedMesh) -> ServedMesh:
    served.backend.metrics = FakeMetrics()  # type: ignore[assignment]
    return served


@pytest.mark.parametrize("flags", [(), ("--once",)])
def test_without_a_terminal_the_table_is_printed_once(
    mesh: ServedMesh, run_cli: RunCli, flags: tuple[str, ...]
) -> None:
    outcome = run_cli("top", *flags, width=100)
    assert outcome.code == 0
    lines = outcome.stdout.splitlines()
    assert lines[0].split()[:3] == ["SERVICE▲", "VERSION", "STATE"]
    assert [line.split()[0] for line in lines[1:]] == ["checkout", "frontend", "payment"]
    assert max(map(len, lines)) <= 100
    assert "sidecar payment has not answered for 14s" in outcome.stderr
    assert "\x1b" not in outcome.stdout


def test_wide_has_every_column_and_edges_their_own(mesh: ServedMesh, run_cli: RunCli) -> None:
    assert "RESTARTS" in run_cli("top", "-o", "wide", width=60).stdout
    edges = run_cli("top", "--tab", "edges", "--sort", "p99").stdout.splitlines()
    assert edges[0].split()[:3] == ["SOURCE", "DESTINATION", "SECURED"]
    assert edges[1].split()[:2] == ["checkout", "payment"]


def test_a_filter_and_a_direction_can_be_given(mesh: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("top", "--filter", "pay").stdout.splitlines()[1].startswith("payment")
    assert run_cli("top", "--reverse").stdout.splitlines()[1].startswith("payment")


def test_json_is_one_snapshot_and_watch_one_a_line(mesh: ServedMesh, run_cli: RunCli) -> None:
    snapshot = decode(run_cli("top", "-o", "json").stdout.encode(), TopSnapshot)
    assert [row.service for row in snapshot.services] == ["checkout", "frontend", "payment"]
    assert snapshot.services[1].success is None
    lines = run_cli("top", "--watch", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["time"] for line in lines] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--watch",), "--watch needs -o json"),
        (("--sort", "size"), "there is no column size in services"),
        (("--tab", "requests", "--sort", "size"), "there is no column size in requests"),
        (("--tab", "requests", "--once"), "--tab requests is live only"),
        (("--window", "2h"), "--window: 2h is not kept"),
        (("--window", "soon"), "'soon' is no duration"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    mesh: ServedMesh, run_cli: RunCli, flags: tuple[str, ...], said: str
) -> None:
    outcome = run_cli("top", *flags)
    assert (outcome.code, said in outcome.stderr) == (2, True)


@pytest.mark.parametrize("flags", [(), ("-o", "json"), ("--watch", "-o", "json")])
def test_without_a_mesh_it_says_so(project: Path, run_cli: RunCli, flags: tuple[str, ...]) -> None:
    assert run_cli("top", *flags).code == 3
