"""The journal in Chaos Toolkit's shape, and the page that is made from it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from meshctl.experiments.charts import merge_edges
from meshctl.experiments.journal import make_journal
from meshctl.experiments.load import load
from meshctl.experiments.machine import Begin, Command, Ended, Run, State, step
from meshctl.experiments.report import make_report, verdict_of
from meshctl.ports import SourceFile

TEXT = """
title: does <b>it</b> hold
description: a & b
steady-state-hypothesis:
  title: it works
  probes:
  - type: probe
    name: success
    tolerance: [0.99, 1]
    provider: {type: meshctl, verb: success, arguments: {service: a}}
method:
- {type: action, name: hurt, provider: {type: process, path: "true"}}
rollbacks:
- {type: action, name: heal, provider: {type: process, path: "false"}}
"""
SERIES: list[dict[str, Any]] = [
    {"source": "web", "destination": "a", "version": "v1", "points": [[101, 5, 1, 2.0, 9.0], [102, 5, 0, 2.0, None]]},
    {"source": "web", "destination": "a", "version": "v2", "points": [[101, 1, 0, 3.0, 4.0]]},
    {"source": "gateway", "destination": "web", "version": "v1", "points": [[101, 6, 0, None, None]]},
]


def play(found: float = 0.5, *, error: str = "") -> dict[str, Any]:
    """A run in which every activity takes a second; the steady state is met at first."""
    experiment = load(SourceFile(path="e.yaml", directory="/", text=TEXT), {})
    state, commands = step(State(experiment=experiment), Begin(), 100.0)
    now = 100.0
    outputs = {"success": [1.0, found]}
    while not state.done:
        run = next(command for command in commands if isinstance(command, Run))
        now += 1
        name = run.activity.name
        output = outputs[name].pop(0) if name in outputs else None
        event = Ended(token=run.token, output=output, error=error if name == "heal" else "")
        state, commands = _step(state, event, now)
    return make_journal(state, started=100.0, now=now, node="n", platform="p", version="1", mesh="shop", series=SERIES)


def _step(state: State, event: Ended, now: float) -> tuple[State, tuple[Command, ...]]:
    return step(state, event, now)


def test_a_journal_has_the_shape_of_chaos_toolkit() -> None:
    journal = play()
    assert (journal["status"], journal["deviated"]) == ("completed", True)
    assert journal["duration"] == 4.0
    assert journal["start"] == "1970-01-01T00:01:40.000+00:00"
    assert journal["steady_states"]["before"]["steady_state_met"] is True
    after = journal["steady_states"]["after"]
    assert after["steady_state_met"] is False
    entry = after["probes"][0]
    assert {"activity", "status", "start", "end", "duration", "tolerance_met", "output"} <= set(entry)
    assert (entry["output"], entry["tolerance_met"], entry["status"]) == (0.5, False, "succeeded")
    assert entry["meshctl"] == {"found": "0.5", "wanted": "between 0.99 and 1"}
    assert [each["activity"]["name"] for each in journal["run"]] == ["hurt"]
    assert [each["activity"]["name"] for each in journal["rollbacks"]] == ["heal"]
    assert json.loads(json.dumps(journal)) == journal


def test_a_rollback_that_failed_is_told() -> None:
    journal = play(1.0, error="it is not there")
    assert journal["rollbacks"][0]["status"] == "failed"
    assert journal["rollbacks"][0]["exception"] == ["it is not there"]
    assert journal["meshctl"]["verdict"] == "failed"


@pytest.mark.parametrize(
    ("journal", "verdict"),
    [
        ({"status": "completed", "deviated": False}, "held"),
        ({"status": "completed", "deviated": True}, "deviated"),
        ({"status": "failed", "steady_states": {"before": {"steady_state_met": False}}}, "unsteady"),
        ({"status": "interrupted"}, "interrupted"),
        ({"status": "aborted"}, "failed"),
        ({"status": "completed", "meshctl": {"verdict": "unfinished"}}, "unfinished"),
    ],
)
def test_journals_of_others_have_a_verdict_too(journal: dict[str, Any], verdict: str) -> None:
    assert verdict_of(journal) == verdict


class Page(HTMLParser):
    """Checks that tags are closed, and gathers what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_page_with_nothing_beside_it() -> None:
    text = make_report(play())
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert "script" not in page.tags
    assert "url(" not in text
    assert page.tags.count("svg") == 1 + 2 * 2
    assert "gateway → web" in text


def test_the_report_escapes_what_the_experiment_says() -> None:
    text = make_report(play())
    assert "<b>it</b>" not in text
    assert "does &lt;b&gt;it&lt;/b&gt; hold" in text
    assert "a &amp; b" in text


def test_the_report_shows_what_was_wanted_and_found() -> None:
    text = re.sub(r"<[^>]+>", " ", make_report(play()))
    assert "between 0.99 and 1" in text
    assert "deviates" in text
    assert "a weakness was found" in text


def test_a_journal_of_chaos_toolkit_makes_a_report() -> None:
    journal = play()
    del journal["meshctl"]
    for look in ("before", "after"):
        del journal["steady_states"][look]["probes"][0]["meshctl"]
    assert "deviated" in make_report(journal)


def test_edges_are_told_over_versions_what_customers_see_first() -> None:
    edges = merge_edges(SERIES)
    assert [(edge.source, edge.destination) for edge in edges] == [("gateway", "web"), ("web", "a")]
    assert edges[1].points == ((101, 6, 1, 3.0, 9.0), (102, 5, 0, 2.0, None))
    assert (edges[1].requests, edges[1].failures) == (11, 1)


def test_the_report_shades_the_time_in_which_a_fault_was_on() -> None:
    journal = play()
    assert 'class="band fault"' not in make_report(journal)
    fault = {"type": "meshctl", "verb": "inject fault", "arguments": {"service": "a", "duration": "1s"}}
    journal["run"][0]["activity"] = journal["run"][0]["activity"] | {"provider": fault}
    assert 'class="band fault"' in make_report(journal)


def test_the_report_shows_a_run_of_any_kind() -> None:
    journal = play(1.0, error="it is not there")
    provider = {"type": "process", "path": "sh", "arguments": ["-c", "true"]}
    journal["run"][0]["activity"] = journal["run"][0]["activity"] | {"provider": provider}
    journal["run"][0] |= {"tolerance_met": True, "meshctl": {"found": "1", "wanted": "1"}}
    journal["steady_states"]["during"] = [journal["steady_states"]["before"]]
    journal["meshctl"]["series"] = [SERIES[0] | {"source": f"s{number}"} for number in range(13)]
    text = make_report(journal)
    assert "sh -c true" in text
    assert "<td>during</td>" in text
    assert "it is not there" in text
    assert "1 more are in the journal" in text


def test_the_report_of_next_to_nothing_is_a_page() -> None:
    text = make_report({"experiment": {}, "start": "once", "status": "aborted"})
    assert "<b>failed</b>" in text
    assert "<svg" not in text


def test_a_fault_whose_length_is_not_known_is_shaded_to_the_end() -> None:
    journal = play()
    fault = {"type": "python", "func": "inject_pause", "arguments": {"target": "a", "duration": "${long}"}}
    journal["run"][0]["activity"] = journal["run"][0]["activity"] | {"provider": fault}
    assert 'class="band fault"' in make_report(journal)
    kill = {"type": "meshctl", "verb": "inject kill"}
    journal["run"][0]["activity"] = journal["run"][0]["activity"] | {"provider": kill}
    assert 'class="band fault"' not in make_report(journal)
