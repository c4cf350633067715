"""How an experiment looks in a terminal: while it runs, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from meshctl.cli.errors import print_warning
from meshctl.cli.render import Column, print_line, print_table
from meshctl.experiments.machine import Command, Enter, Note, Run
from meshctl.experiments.report import VERDICTS, describe_provider, verdict_of
from meshctl.experiments.tolerances import describe, pick, show

if TYPE_CHECKING:
    from rich.console import Console

    from meshctl.cli.project import Screen

_PARTS = {
    "before": "steady state, before",
    "method": "method",
    "after": "steady state, after",
    "rollbacks": "rollbacks",
}
_STYLES = {"held": "bold green", "ok": "green", "done": "", "deviates": "red", "failed": "red"}


class Progress:
    """Says on stderr what happens, line by line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._warned: set[str] = set()

    def tell(self, command: Command) -> None:
        """Say what is worth saying of a command."""
        match command:
            case Enter(part=part) if part in _PARTS:
                self._screen.say(_PARTS[part])
            case Run(token=token, activity=activity) if activity.background and token.part != "during":
                self._screen.say(f"  ...       {activity.name}, in the background")
            case Note(record=record) if record.token.part != "during" or not record.met:
                took = f"{record.ended - record.started:.1f} s"
                if record.error:
                    self._screen.say(f"  failed    {record.activity.name}: {record.error} ({took})")
                elif record.activity.tolerance is None:
                    self._screen.say(f"  done      {record.activity.name} ({took})")
                else:
                    word = "ok" if record.met else "deviates"
                    found = show(pick(record.activity.tolerance, record.output))
                    wanted = describe(record.activity.tolerance)
                    self._screen.say(f"  {word:<9} {record.activity.name}: {found}, wanted {wanted} ({took})")
            case _:
                pass

    def warn(self, message: str) -> None:
        """Say something once."""
        if message not in self._warned:
            self._warned.add(message)
            print_warning(self._screen.err, message)

    def say_interrupted(self, *, rolling_back: bool) -> None:
        """Say what Ctrl+C does."""
        what = "the rollbacks go on" if rolling_back else "interrupted: the rollbacks are run now"
        self._screen.say(f"{what}; press Ctrl+C again to give them up (faults end by themselves)")


def print_journal(console: Console, journal: Mapping[str, Any]) -> None:
    """Print what came of a run: the steady states side by side, the method, the rollbacks, the verdict."""
    experiment = journal["experiment"]
    print_line(console, Text(str(experiment.get("title", "")), style="bold"))
    states = journal.get("steady_states") or {}
    before, after = (_probes(states.get(name)) for name in ("before", "after"))
    if before or after:
        columns = [Column(title="STEADY STATE"), Column(title="WANTED", drop=1, wrap=True)]
        columns += [Column(title="BEFORE"), Column(title="AFTER")]
        print_table(console, columns, _compare(before, after))
    looks = states.get("during") or []
    if looks:
        missed = sum(not look["steady_state_met"] for look in looks)
        print_line(console, f"during the method: {len(looks)} looks, {missed} of them deviated")
    for title, entries in (("METHOD", journal.get("run", [])), ("ROLLBACK", journal.get("rollbacks", []))):
        if entries:
            columns = [Column(title=title), Column(title="WHAT", drop=2, wrap=True), Column(title="TOOK", drop=1)]
            print_table(console, [*columns, Column(title="CAME OF IT", wrap=True)], [_row(each) for each in entries])
    verdict = verdict_of(journal)
    word, sentence = VERDICTS[verdict]
    style = "bold green" if verdict == "held" else "bold red"
    print_line(console, Text.assemble((word.upper(), style), f": {sentence}"))
    reason = journal.get("meshctl", {}).get("reason")
    if reason:
        print_line(console, f"  {reason}")


def _probes(look: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    return {str(each["activity"].get("name", "")): each for each in (look or {}).get("probes", [])}


def _compare(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> list[Sequence[str | Text]]:
    rows: list[Sequence[str | Text]] = []
    for name in dict.fromkeys((*before, *after)):
        entry = after.get(name) or before[name]
        wanted = entry.get("meshctl", {}).get("wanted", show(entry["activity"].get("tolerance")))
        rows.append([name, str(wanted), _state(before.get(name)), _state(after.get(name))])
    return rows


def _state(entry: Mapping[str, Any] | None) -> Text:
    if entry is None:
        return Text("-")
    word = "ok" if entry.get("tolerance_met") else "failed:" if entry.get("exception") else "deviates"
    return Text(f"{word} {_found(entry)}", style=_STYLES.get(word, "red"))


def _row(entry: Mapping[str, Any]) -> Sequence[str | Text]:
    activity = entry["activity"]
    word = "failed" if entry.get("status") == "failed" else "done"
    if "tolerance_met" in entry and word == "done":
        word = "ok" if entry["tolerance_met"] else "deviates"
    found = _found(entry)
    result = Text(f"{word}: {found}" if found not in ("", "null") else word, style=_STYLES[word])
    return [str(activity.get("name", "")), describe_provider(activity), f"{entry['duration']:.1f}s", result]


def _found(entry: Mapping[str, Any]) -> str:
    if entry.get("exception"):
        told = entry["exception"]
        return str(told[-1] if isinstance(told, list) else told).strip()
    return str(entry.get("meshctl", {}).get("found", show(entry.get("output"))))
