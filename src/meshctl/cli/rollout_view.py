"""How a rollout is drawn: where it stands, both versions side by side, the evidence, what comes next.  Pure.

Enters: a RolloutStatus and the time.  Leaves: lines of text; the state is always told in words, never by colour alone.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from meshctl.cli.figures import color_share
from meshctl.cli.render import Column, format_age, format_table, format_time
from meshctl.figures import NOTHING, format_ms, format_rate
from meshctl.wire.rollouts import RolloutDecision, RolloutFinding, RolloutRecord, RolloutStatus, RolloutVerdict

PHASES: dict[str, tuple[str, str]] = {
    "starting": ("starting", "cyan"),
    "shifting": ("shifting", "cyan"),
    "running": ("running", "green"),
    "paused": ("paused", "yellow"),
    "frozen": ("frozen", "red"),
    "rolling_back": ("rolling back", "red"),
    "promoted": ("promoted", "green"),
    "rolled_back": ("rolled back", "red"),
    "failed": ("failed", "red"),
    "cancelled": ("cancelled", "yellow"),
}
"""Each phase in words, with its colour."""

_PAUSES = {"by_hand": "paused by hand", "inconclusive": "paused: inconclusive", "disturbed": "paused: disturbed"}
_BAR = 10

VERSION_COLUMNS = (
    Column(title="VERSION"),
    Column(title="WEIGHT", justify="right"),
    Column(title="RPS", justify="right"),
    Column(title="SUCCESS", justify="right"),
    Column(title="P50", justify="right", drop=1),
    Column(title="P99", justify="right"),
    Column(title="REQUESTS", justify="right"),
)
TEST_COLUMNS = (
    Column(title="TEST"),
    Column(title="CANARY", justify="right"),
    Column(title="STABLE", justify="right"),
    Column(title="BOUND", justify="right"),
    Column(title="", drop=2),
    Column(title="EVIDENCE", justify="right"),
    Column(title="", drop=1),
)
LIST_COLUMNS = (
    Column(title="SERVICE"),
    Column(title="CANARY"),
    Column(title="STABLE", drop=3),
    Column(title="STATE"),
    Column(title="STEP", justify="right", drop=4),
    Column(title="WEIGHT", justify="right"),
    Column(title="REQUESTS", justify="right", drop=2),
    Column(title="EVIDENCE", justify="right", drop=1),
    Column(title="WHY", wrap=True),
)
HISTORY_COLUMNS = (
    Column(title="TIME"),
    Column(title="EVENT"),
    Column(title="STATE"),
    Column(title="WEIGHT", justify="right"),
    Column(title="REQUESTS", justify="right", drop=3),
    Column(title="ERRORS", justify="right", drop=2),
    Column(title="P99", justify="right", drop=1),
    Column(title="WHY", wrap=True),
)


PAST_COLUMNS = (
    Column(title="TIME"),
    Column(title="WEIGHT", justify="right"),
    Column(title="STATE"),
    Column(title="WHY", wrap=True),
)


def draw_rollout(status: RolloutStatus, now: float, width: int, past: Sequence[RolloutDecision] = ()) -> Iterator[Text]:
    """A rollout as it stands, in lines of at most ``width``; ``past`` are decisions that changed something."""
    yield from (line for whole in describe_head(status, now) for line in _wrap(whole, width))
    if status.versions:
        yield Text("")
        yield from format_table(VERSION_COLUMNS, list_versions(status), width)
    if status.verdict is not None:
        yield Text("")
        yield from format_table(TEST_COLUMNS, list_tests(status.verdict), width)
    if following := describe_next(status, now):
        yield Text("")
        yield from _wrap(Text(following), width)
    if past:
        yield Text("")
        yield from format_table(PAST_COLUMNS, map(past_row, past), width)


def pick_past(decisions: Iterable[RolloutDecision]) -> Iterator[RolloutDecision]:
    """The decisions that changed the phase or the weight, oldest first, and what came from without: a restart, say.

    Not that a weight came into effect, which was told when it was decided.
    """
    before: tuple[str, int] | None = None
    for decision in decisions:
        here = (decision.phase, decision.weight)
        changed = before != here and (decision.event != "applied" or decision.phase != "running")
        if changed or decision.event not in ("tick", "applied"):
            yield decision
        before = here


def past_row(decision: RolloutDecision) -> list[str | Text]:
    """One row of PAST_COLUMNS."""
    words, style = PHASES[decision.phase]
    clock = format_time(decision.time)[11:19]
    return [f"{clock}Z", f"{decision.weight}%", Text(words, style=style), decision.why]


def _wrap(line: Text, width: int) -> list[Text]:
    """A line broken at its words, those that follow indented."""
    if line.cell_len <= width:
        return [line]
    parts = textwrap.wrap(line.plain, width, subsequent_indent="  ", break_on_hyphens=False)
    return [Text(part, style=line.style) for part in parts]


def describe_phase(status: RolloutStatus) -> Text:
    """How it stands, in one or two words."""
    words, style = PHASES[status.phase]
    return Text(_PAUSES.get(status.pause, words) if status.phase == "paused" else words, style=style)


def describe_head(status: RolloutStatus, now: float) -> Iterator[Text]:
    """Which rollout it is, how it stands, and its steps."""
    end = status.ended_at if status.ended_at is not None else now
    head = Text(f"{status.service}: {status.stable} -> {status.version}, rollout {status.number}: ")
    head.append_text(describe_phase(status))
    head.append(f", {format_age(end - status.started_at)}")
    yield head
    steps = Text("steps  ")
    for index, weight in enumerate(status.settings.steps):
        done = status.phase == "promoted" or (index < status.step and status.weight)
        here = index == status.step and status.phase not in ("promoted", "rolled_back", "rolling_back", "failed")
        text = f"[{weight}%]" if here and status.weight else f"{weight}%"
        steps.append(text, style="bold" if here else "green" if done else "bright_black")
        steps.append("  ")
    steps.rstrip()
    yield steps
    if status.why:
        yield Text(status.why)


def describe_next(status: RolloutStatus, now: float) -> str:
    """What happens next and when; empty once it has ended."""
    if status.phase == "running":
        return _describe_running(status, now)
    stopped = (
        f"next: nothing by itself; `meshctl canary resume {status.service}` goes on, "
        f"`meshctl canary rollback {status.service}` takes it back"
    )
    again = f"`meshctl canary retry {status.service}` tries it again"
    told = {
        "starting": f"next: {status.settings.steps[0]}%, when its instances are healthy",
        "shifting": f"next: {status.weight}%, when every sidecar has acknowledged",
        "rolling_back": "next: 0%, when every sidecar has acknowledged",
        "paused": stopped,
        "frozen": stopped,
        "promoted": f"next: write `stable: {status.version}` in the topology; {status.stable} runs on and gets nothing",
        "rolled_back": again,
        "failed": again,
    }
    return told.get(status.phase, "")


def _describe_running(status: RolloutStatus, now: float) -> str:
    goal = "promoted" if status.next_weight is None else f"{status.next_weight}%"
    waits = []
    verdict = status.verdict
    wanted = verdict.wanted if verdict is not None else status.settings.min_requests
    if status.requests < wanted:
        waits.append(f"n={status.requests}/{wanted} requests")
    needed = verdict.needed if verdict is not None else status.settings.window
    lasted = max(0.0, now - status.since)
    if lasted < needed:
        waits.append(f"{format_age(math.ceil(needed - lasted))} more at {status.weight}%")
    when = "" if status.next_at is None else f"; judged again in {max(0, math.ceil(status.next_at - now))} s"
    return f"next: {goal} after {' and '.join(waits) or 'the next tick that finds nothing against it'}{when}"


def list_versions(status: RolloutStatus) -> Iterator[list[str | Text]]:
    """Rows of VERSION_COLUMNS: the canary, then the stable version."""
    for figures in status.versions:
        role = "canary" if figures.version == status.version else "stable"
        yield [
            f"{figures.version} ({role})",
            f"{figures.weight}%",
            format_rate(figures.rate),
            color_share(figures.success),
            format_ms(figures.p50_ms),
            format_ms(figures.p99_ms),
            str(figures.requests),
        ]


def list_tests(verdict: RolloutVerdict) -> Iterator[list[str | Text]]:
    """Rows of TEST_COLUMNS: the share of errors, then the p99."""
    yield ["errors", *_test_cells(verdict.errors, share=True)]
    yield ["p99", *_test_cells(verdict.latency, share=False)]


def _test_cells(finding: RolloutFinding, *, share: bool) -> list[str | Text]:
    def write(value: float | None) -> str:
        if not share:
            return format_ms(value)
        return NOTHING if value is None else f"{value * 100:.2f}%"

    over = Text("over", style="red") if finding.exceeded else Text("within" if finding.bound is not None else "")
    return [
        write(finding.canary),
        write(finding.stable),
        write(finding.bound),
        over,
        f"{format_evidence(finding.evidence)} of {finding.threshold:g}",
        draw_bar(finding),
    ]


def format_evidence(evidence: float) -> str:
    """How many times likelier what was seen is if the version is worse: ``0.3``, ``12``, ``>1M``."""
    if evidence >= 1_000_000:
        return ">1M"
    return f"{evidence:.1f}" if evidence < 9.95 else f"{evidence:.0f}"


def draw_bar(finding: RolloutFinding) -> Text:
    """How far the evidence is on its way from 1 to the threshold, by its logarithm: a tenth of the way is one ``#``."""
    reached = math.log(max(1.0, finding.evidence)) / math.log(finding.threshold)
    filled = min(_BAR, math.floor(reached * _BAR))
    style = "red" if finding.failed else "yellow" if filled >= _BAR // 2 else "green"
    return Text("#" * filled + "." * (_BAR - filled), style=style)


def list_row(status: RolloutStatus) -> list[str | Text]:
    """One row of LIST_COLUMNS."""
    verdict = status.verdict
    worst = max(verdict.errors.evidence, verdict.latency.evidence) if verdict is not None else None
    wanted = verdict.wanted if verdict is not None else status.settings.min_requests
    threshold = 2 / status.settings.alpha
    return [
        status.service,
        status.version,
        status.stable,
        describe_phase(status),
        f"{status.step + 1}/{len(status.settings.steps)}",
        f"{status.applied}%",
        f"{status.requests}/{wanted}",
        NOTHING if worst is None else f"{format_evidence(worst)}/{threshold:g}",
        status.why,
    ]


def history_head(record: RolloutRecord) -> Text:
    """The line above the decisions of a rollout."""
    rollout = record.rollout
    head = Text(f"rollout {rollout.number}: {rollout.service} {rollout.stable} -> {rollout.version}, ")
    head.append_text(describe_phase(rollout))
    head.append(f"; by {rollout.author}" + (f": {rollout.reason}" if rollout.reason else ""))
    return head


def history_row(decision: RolloutDecision, time: str) -> list[str | Text]:
    """One row of HISTORY_COLUMNS."""
    words, style = PHASES[decision.phase]
    verdict = decision.verdict
    why = f"{decision.author}: {decision.reason or decision.why}" if decision.author else decision.why
    return [
        time,
        decision.event,
        Text(words, style=style),
        f"{decision.weight}%",
        f"{verdict.requests}/{verdict.wanted}" if verdict is not None else "",
        format_evidence(verdict.errors.evidence) if verdict is not None else "",
        format_evidence(verdict.latency.evidence) if verdict is not None else "",
        why,
    ]
