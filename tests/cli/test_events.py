"""``events``: in order, chosen, followed, and of a mesh that does not run any more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import T0, make_event

from meshctl.adapters.sqlite_store import SqliteStore
from meshctl.cli import events
from meshctl.wire.models import Event, encode

LOG = [
    make_event(1, "checkout-v1-1 ready"),
    make_event(2, "exited with 1", subject="payment-v1-1", kind="instance.exited", level="error"),
    make_event(3, "checkout -> payment: circuit open", subject="checkout -> payment", kind="circuit.opened"),
    make_event(4, "revision 2 by ann", subject="payment,cart", kind="policy.changed"),
    make_event(5, "refused routes", subject="sidecar.cart", kind="sidecar.rejected", level="error"),
]


def test_events_have_time_level_kind_and_words(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.event_list = [
        make_event(1, "checkout-v1-1 ready"),
        make_event(2, "exited with 1", subject="payment-v1-1", kind="instance.exited", level="error"),
    ]
    assert run_cli("events").stdout == (
        "2026-02-02T02:40:01.000Z  checkout-v1-1  info     ready\n"
        "2026-02-02T02:40:02.000Z  payment-v1-1   error    exited with 1\n"
    )
    assert run_cli("events", "-o", "wide", "-n", "1").stdout == (
        "2026-02-02T02:40:02.000Z  payment-v1-1  error    instance.exited       exited with 1\n"
    )
    assert run_cli("events", "-n", "1").stdout.count("\n") == 1
    assert run_cli("events", "-n", "0").stdout == ""
    assert [json.loads(line)["seq"] for line in run_cli("events", "-o", "json").stdout.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--kind", "circuit"], [3]),
        (["--kind", "instance.exited", "--kind", "policy"], [2, 4]),
        (["--kind", "circ"], []),
        (["--subject", "checkout"], [1, 3]),
        (["--subject", "payment"], [2, 3, 4]),
        (["--subject", "cart"], [4, 5]),
        (["--subject", "pay"], []),
        (["--grep", "revision|exited"], [2, 4]),
        (["--grep", "^checkout.* info "], [1, 3]),
        (["--grep", "error"], [2, 5]),
        (["--since", "298s"], [2, 3, 4, 5]),
        (["--until", "298s"], [1, 2]),
        (["--grep", "error", "-n", "1"], [5]),
    ],
)
def test_events_are_chosen_by_what_they_are_about(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, words: list[str], numbers: list[int]
) -> None:
    monkeypatch.setattr(events, "read_clock", lambda: T0 + 300)
    served.backend.event_list = LOG
    found = run_cli("events", *words, "-o", "json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in found] == numbers


def test_where_none_fits_it_says_how_many_there_are(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.event_list = LOG
    outcome = run_cli("events", "--kind", "circut")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "no event fits; 5 are kept\n")
    assert run_cli("events", "-n", "0").stderr == ""


def test_a_pattern_that_is_none_is_a_usage_error(served: ServedMesh, run_cli: RunCli) -> None:
    outcome = run_cli("events", "--grep", "(")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: --grep: '(' is no regular expression:")


def left(project: Path, log: list[Event]) -> None:
    """A mesh that ran, and left these events."""
    (project / ".meshctl").mkdir()
    store = SqliteStore(str(project / ".meshctl" / "state.db"))
    for event in log:
        store.put_event(event.seq, encode(event))
    store.close()


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_without_a_mesh_what_it_left_is_shown(project: Path, run_cli: RunCli, follow: tuple[str, ...]) -> None:
    left(project, LOG)
    assert run_cli("events", "--kind", "circuit", *follow).shown == (
        "--- exit 0\n--- stdout\n"
        "2026-02-02T02:40:03.000Z  checkout -> payment  info     circuit open\n"
        f"--- stderr\nno mesh runs in {project}; these are the events that it left\n"
    )


def test_without_a_mesh_and_without_events_it_is_exit_3(project: Path, run_cli: RunCli) -> None:
    assert run_cli("events").code == 3
    left(project, [])
    assert run_cli("events").code == 3
