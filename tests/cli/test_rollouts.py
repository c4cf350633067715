"""`meshctl canary start` and what goes with it: what is asked for, how a rollout is shown, how watching it ends."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import make_status
from tests.fakes.rollouts import T0, make_decision, make_finding, make_rollout, make_verdict

from meshctl.cli import following, rollouts
from meshctl.cli import rollout_view as view
from meshctl.cli.rollouts import read_steps
from meshctl.errors import ConflictError, NotRunningError, UsageError
from meshctl.wire.models import RolloutNote
from meshctl.wire.rollouts import ChangeRequest, RolloutStatus, StartRequest

GOLDEN = Path(__file__).parents[1] / "golden" / "rollouts"


def author(verb: str) -> str:
    return f"{getpass.getuser()}@canary {verb}"


def test_a_start_sends_what_was_said_and_leaves_the_rest_open(served: ServedMesh, run_cli: RunCli) -> None:
    words = ("--steps", "10, 50%,100", "--interval", "5s", "--window", "1m", "--alpha", "0.05", "--min-requests", "20")
    done = run_cli("canary", "start", "checkout", "v2", *words, "--on-failure", "freeze", "--replace", "-m", "why")
    assert done.shown == (
        "--- exit 0\n--- stdout\n--- stderr\n"
        "rollout 4 of checkout began: v1 -> v2, by 10%, 50%, 100%\n"
        "v2 has 5% of the traffic now\n"
        "`meshctl canary watch checkout` shows how it goes\n"
    )
    assert served.backend.asked[-1][1] == StartRequest(
        service="checkout",
        version="v2",
        steps=[10, 50, 100],
        interval=5,
        window=60,
        alpha=0.05,
        min_requests=20,
        on_failure="freeze",
        author=author("start"),
        reason="why",
        replace=True,
    )
    run_cli("canary", "start", "checkout", "v2")
    assert served.backend.asked[-1][1] == StartRequest(service="checkout", version="v2", author=author("start"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", "10,ten"), "'ten' is no whole percentage"),
        (("--interval", "soon"), "--interval: 'soon' is no duration"),
        (("--on-failure", "panic"), "'panic' is none of rollback and freeze"),
    ],
)
@pytest.mark.usefixtures("served")
def test_words_that_mean_nothing_are_refused(run_cli: RunCli, words: tuple[str, ...], message: str) -> None:
    done = run_cli("canary", "start", "checkout", "v2", *words)
    assert done.code == 2
    assert message in done.stderr


def test_what_the_control_plane_refuses_is_told_with_its_hint(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.failures["rollouts.start"] = ConflictError(
        "v1 is the stable version of checkout", hint="its versions: v1 (stable), v2"
    )
    done = run_cli("canary", "start", "checkout", "v1")
    assert done.code == 1
    assert "v1 is the stable version of checkout" in done.stderr
    assert "v1 (stable), v2" in done.stderr


@pytest.mark.usefixtures("served")
def test_the_status_of_one_has_both_versions_and_the_evidence(run_cli: RunCli) -> None:
    lines = run_cli("canary", "status", "checkout", width=100).stdout.splitlines()
    assert lines[0].startswith("checkout: v1 -> v2, rollout 3: running, ")
    assert lines[1:] == [
        "steps  5%  [10%]  25%  50%  100%",
        "37 of 100 requests at this step",
        "",
        "VERSION      WEIGHT  RPS  SUCCESS    P50   P99  REQUESTS",
        "v2 (canary)     10%  0.9   99.00%  8.0ms  21ms        37",
        "v1 (stable)     90%  8.5   99.00%  7.5ms  20ms       340",
        "",
        "TEST    CANARY  STABLE  BOUND            EVIDENCE",
        "errors   1.00%   1.00%  1.10%  within  1.0 of 200  ..........",
        "p99       21ms    20ms   24ms  within  1.0 of 200  ..........",
        "",
        "next: 25% after n=37/100 requests; judged again in 0 s",
    ]


@pytest.mark.usefixtures("served")
def test_all_rollouts_are_one_table_that_fits_eighty_columns(run_cli: RunCli) -> None:
    done = run_cli("canary", "status", width=80)
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].split() == ["SERVICE", "CANARY", "STATE", "WEIGHT", "REQUESTS", "EVIDENCE", "WHY"]
    assert lines[1].split()[:6] == ["checkout", "v2", "running", "10%", "37/100", "1.0/200"]
    assert json.loads(run_cli("canary", "status", "-o", "json").stdout)["rollouts"][0]["applied"] == 10


def test_without_any_it_says_how_to_begin_one(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.rollouts.rollouts.clear()
    for words in (("status",), ("status", "checkout"), ("history",)):
        done = run_cli("canary", *words)
        assert (done.code, done.stdout) == (0, "")
        assert "meshctl canary start SERVICE VERSION" in done.stderr


def test_verbs_ask_for_what_they_say_and_tell_where_it_stands(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("canary", "pause", "checkout", "-m", "freeze").stderr.startswith(
        "checkout: v2 is paused by hand at 10%\nnext: nothing by itself; `meshctl canary resume checkout` goes on"
    )
    assert served.backend.asked[-1] == (
        "rollouts.pause",
        ChangeRequest(service="checkout", author=author("pause"), reason="freeze"),
    )
    assert run_cli("canary", "resume", "checkout").stderr.startswith("checkout: v2 is running at 10%\n")
    assert run_cli("canary", "promote", "checkout").stderr.startswith("checkout: v2 is running at 25%\n")
    assert run_cli("canary", "promote", "checkout", "--full").stderr == (
        "checkout: v2 is promoted at 100%\nnext: write `stable: v2` in the topology; v1 runs on and gets nothing\n"
    )
    assert served.backend.asked[-1][1].full
    assert run_cli("canary", "rollback", "checkout").stderr == (
        "checkout: v2 is rolled back at 0%\n`meshctl canary retry checkout` tries it again\n"
    )
    assert run_cli("canary", "retry", "checkout").stderr.startswith("rollout 4 of checkout began: v1 -> v2")


@pytest.mark.usefixtures("served")
def test_the_history_has_a_line_for_each_decision(run_cli: RunCli) -> None:
    lines = run_cli("canary", "history", "checkout", width=120).stdout.splitlines()
    assert lines[0] == "rollout 3: checkout v1 -> v2, running; by ann@canary start: new prices"
    assert lines[1].split() == ["TIME", "EVENT", "STATE", "WEIGHT", "REQUESTS", "ERRORS", "P99", "WHY"]
    assert len(lines) == 4
    document = json.loads(run_cli("canary", "history", "--rollout", "3", "-o", "json").stdout)
    assert document["rollouts"][0]["decisions"][0]["verdict"]["wanted"] == 100


@pytest.mark.parametrize(("phase", "code"), [("promoted", 0), ("rolled_back", 1), ("failed", 1), ("cancelled", 1)])
def test_watching_ends_with_the_rollout_and_says_how(
    served: ServedMesh, run_cli: RunCli, phase: str, code: int
) -> None:
    end = make_rollout(phase=phase, why="that was all", applied=100 if code == 0 else 0, ended_at=T0 + 90, versions=[])
    served.backend.rollouts.coming = [make_rollout(), end]
    done = run_cli("canary", "watch", "checkout")
    assert done.code == code
    lines = done.stdout.splitlines()
    assert [line.partition("  ")[2] for line in lines] == [
        "running at 10%: 37 of 100 requests at this step",
        f"{phase.replace('_', ' ')} at {end.applied}%: that was all",
    ]
    served.backend.rollouts.rollouts["checkout"] = end
    found = run_cli("canary", "watch", "checkout", "-o", "json").stdout.splitlines()
    assert json.loads(found[-1])["phase"] == phase


def test_evidence_is_drawn_by_its_logarithm() -> None:
    assert view.draw_bar(make_finding(evidence=0.2)).plain == ".........."
    assert view.draw_bar(make_finding(evidence=14.2)).plain == "#####....."
    assert view.draw_bar(make_finding(evidence=1e12, exceeded=True, failed=True)).plain == "##########"
    assert [view.format_evidence(value) for value in (0.25, 9.96, 1234.5, 2e6)] == ["0.2", "10", "1234", ">1M"]


def test_what_comes_next_is_told_for_every_phase() -> None:
    waits = make_rollout(verdict=make_verdict(requests=100, lasted=40), requests=100, next_at=T0 + 50)
    assert view.describe_next(waits, T0 + 42) == "next: 25% after 4m18s more at 10%; judged again in 8 s"
    last = msgspec.structs.replace(waits, next_weight=None)
    assert view.describe_next(last, T0 + 400).startswith("next: promoted after the next tick that finds nothing")
    assert "healthy" in view.describe_next(make_rollout(phase="starting"), T0)
    assert "acknowledged" in view.describe_next(make_rollout(phase="rolling_back"), T0)
    assert "canary rollback checkout" in view.describe_next(make_rollout(phase="frozen"), T0)
    assert view.describe_next(make_rollout(phase="cancelled"), T0) == ""
    assert "`stable: v2`" in view.describe_next(make_rollout(phase="promoted"), T0)
    row = view.history_row(make_decision(author="ann@canary pause", reason="freeze", verdict=None), "now")
    assert row[-1] == "ann@canary pause: freeze"


def test_steps_are_whole_percentages() -> None:
    assert read_steps("") is None
    assert read_steps("5%, 100") == [5, 100]
    with pytest.raises(UsageError, match=r"'1\.5' is no whole percentage"):
        read_steps("1.5")


PAST = [
    make_decision(1, time=T0, event="begin", phase="starting", weight=5, why="v2 is brought up, then gets 5%"),
    make_decision(2, time=T0 + 2, event="applied", phase="running", weight=5, why="at 5%"),
    make_decision(3, time=T0 + 30, event="tick", phase="shifting", weight=10, why="no worse at 5%: on to 10%"),
    make_decision(4, time=T0 + 31, event="applied", phase="running", weight=10, why="at 10%"),
    make_decision(5, time=T0 + 41, weight=10),
    make_decision(6, time=T0 + 42, event="restarted", weight=10, why="the control plane was away"),
]


@pytest.mark.parametrize("width", [80, 160])
def test_a_rollout_is_drawn_as_wide_as_the_terminal(width: int, update_golden: bool) -> None:
    worse = make_finding(evidence=812.0, canary=0.08, exceeded=True, failed=True)
    frozen = make_rollout(
        phase="frozen",
        why="8% errors at v2, 1% at v1 (evidence 812 of 200)",
        verdict=make_verdict(action="freeze", errors=worse),
        next_at=None,
    )
    alone = make_verdict(pairing="unpaired", latency=make_finding(stable=None, bound=None, canary=20.0))
    drawn = []
    for status in (
        make_rollout(),
        make_rollout(phase="starting", weight=5, applied=0, step=0, verdict=None, versions=[], why="brought up"),
        frozen,
        make_rollout(phase="promoted", step=4, weight=100, applied=100, verdict=alone, versions=[], ended_at=T0 + 99),
    ):
        lines = [line.plain for line in view.draw_rollout(status, T0 + 42, width, list(view.pick_past(PAST)))]
        assert all(len(line) <= width for line in lines)
        drawn += [f"--- {status.phase}", *lines]
    path = GOLDEN / f"rollout-{width}.txt"
    text = "\n".join(drawn) + "\n"
    if update_golden:
        path.write_text(text)
    assert text == path.read_text()


def test_the_past_leaves_out_what_changed_nothing() -> None:
    assert [decision.number for decision in view.pick_past(PAST)] == [1, 3, 6]


def test_a_watch_goes_on_with_the_next_control_plane_and_knows_its_rollout(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rollout may be the newest by then: what is told is the end of the one that was watched."""
    monkeypatch.setattr(following, "has_leftovers", lambda _paths: True)
    fake = served.backend.rollouts
    first, turns = fake.stream, 0

    def stream(service: str, interval: float = 1.0) -> AsyncIterator[RolloutStatus]:
        nonlocal turns
        turns += 1
        if turns == 1:
            return dying(first(service, interval))
        fake.rollouts["checkout"] = make_rollout(number=4)
        fake.replaced = make_rollout(phase="cancelled", why="replaced by rollout 4 to v3", ended_at=T0 + 60)
        return first(service, interval)

    monkeypatch.setattr(fake, "stream", stream)
    done = run_cli("canary", "watch", "checkout")
    assert (done.code, turns) == (1, 2)
    assert done.stdout.splitlines()[-1].endswith("cancelled at 10%: replaced by rollout 4 to v3")
    assert done.stderr == "the control plane ended; waiting for the next one (`meshctl up`)\n"


async def dying(items: AsyncIterator[RolloutStatus]) -> AsyncIterator[RolloutStatus]:
    yield await anext(items)
    raise NotRunningError("gone")


def test_ctrl_c_leaves_the_rollout_alone(served: ServedMesh) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "meshctl", "canary", "watch", "checkout"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert watching.stdout is not None
    assert "running at 10%" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert said == "the rollout of checkout goes on; `meshctl canary watch checkout` shows it again\n"
    assert served.backend.rollouts.rollouts["checkout"].phase == "running"


def test_ctrl_c_while_instances_come_up_says_that_it_goes_on(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "ask", interrupted)
    done = run_cli("canary", "start", "checkout", "v2")
    assert done.code == 130
    assert done.stderr == "what was asked for goes on; `meshctl canary status checkout` shows how it stands\n"
    assert served.backend.asked == []


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_status_tells_of_a_rollout_under_way(served: ServedMesh, run_cli: RunCli) -> None:
    note = RolloutNote(number=3, version="v2", phase="rolling_back", weight=0, why="worse")
    status = make_status()
    services = [msgspec.structs.replace(status.services[0], rollout=note), *status.services[1:]]
    served.backend.mesh = msgspec.structs.replace(status, services=services)
    lines = run_cli("status", width=120).stdout.splitlines()
    assert "checkout: rollout to v2 is rolling back at 0%; `meshctl canary watch checkout` shows it" in lines
