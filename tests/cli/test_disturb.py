"""``meshctl inject kill``, ``pause``, ``partition`` and the like: what is asked, what is said."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import T0

from meshctl.cli import render
from meshctl.wire.disturbances import DisturbRequest


def asked(served: ServedMesh) -> DisturbRequest:
    request = served.backend.asked[-1][1]
    assert isinstance(request, DisturbRequest)
    return request


@pytest.mark.parametrize("kind", ["kill", "exit"])
def test_what_is_over_at_once_says_what_comes_of_it(served: ServedMesh, run_cli: RunCli, kind: str) -> None:
    outcome = run_cli("inject", kind, "payment", "-m", "does it come back?")
    assert outcome.code == 0
    assert outcome.stderr == f"payment: {kind} (in 12 ms)\nits restart policy starts it again\n"
    request = asked(served)
    assert (request.kind, request.target, request.reason) == (kind, "payment", "does it come back?")
    assert request.author.endswith(f"@inject {kind}")


def test_what_lasts_says_when_it_ends_and_how_to_end_it(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "read_clock", lambda: T0)
    outcome = run_cli("inject", "pause", "payment/payment-v1-1", "--for", "90s", "--name", "nap", "--force")
    assert outcome.code == 0
    said = "nap ends by itself in 1m30s, or by: meshctl inject clear nap\n"
    assert outcome.stderr == f"payment/payment-v1-1: pause (at 2 sidecars in 12 ms)\n{said}"
    request = asked(served)
    assert (request.duration, request.name, request.force) == (90.0, "nap", True)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["cpu", "payment", "--percent", "50"], {"percent": 50.0, "duration": 300.0}),
        (
            ["partition", "checkout", "payment", "--one-way"],
            {"source": "checkout", "target": "payment", "one_way": True},
        ),
        (
            ["latency", "payment", "--delay", "50ms", "--jitter", "5ms", "--from", "checkout"],
            {"delay_ms": 50.0, "jitter_ms": 5.0, "source": "checkout"},
        ),
        (["cert-expired", "payment", "--for", "1m"], {"kind": "cert-expired", "duration": 60.0}),
    ],
)
def test_options_are_what_is_asked_for(
    served: ServedMesh, run_cli: RunCli, words: list[str], fields: dict[str, object]
) -> None:
    outcome = run_cli("inject", *words, "-o", "json")
    assert outcome.code == 0
    request = asked(served)
    assert {name: getattr(request, name) for name in fields} == fields
    assert json.loads(outcome.stdout)["kind"] == words[0]


@pytest.mark.parametrize("words", [["pause"], ["latency", "payment"], ["pause", "payment", "--for", "soon"]])
def test_words_that_do_not_fit_are_refused(served: ServedMesh, run_cli: RunCli, words: list[str]) -> None:
    assert run_cli("inject", *words).code == 2
    assert not [what for name, what in served.backend.asked if name == "disturb"]
