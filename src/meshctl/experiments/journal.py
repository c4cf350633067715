"""A run -> its journal, in the shape of Chaos Toolkit's.  Pure.

The shape is https://chaostoolkit.org/reference/api/journal/. What only meshctl knows stands under ``meshctl``: the
verdict, when each part began, and the figures of the mesh second by second. Readers of that shape pass it over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from meshctl.experiments.machine import Record, State
from meshctl.experiments.tolerances import describe, pick, show


def make_journal(
    state: State,
    *,
    started: float,
    now: float,
    node: str,
    platform: str,
    version: str,
    mesh: str = "",
    series: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The journal of a run that has ended, or of one that is under way."""
    return {
        "meshctl-version": version,
        "platform": platform,
        "node": node,
        "experiment": dict(state.experiment.raw),
        "start": format_moment(started),
        "status": state.status,
        "deviated": state.deviated,
        "steady_states": {
            "before": _look(state, "before"),
            "after": _look(state, "after"),
            "during": [_look(state, "during", number) for number in _looks(state)],
        },
        "run": [_entry(each) for each in state.records if each.token.part == "method"],
        "rollbacks": [_entry(each) for each in state.records if each.token.part == "rollbacks"],
        "end": format_moment(now),
        "duration": round(now - started, 3),
        "meshctl": {
            "mesh": mesh,
            "done": state.done,
            "verdict": state.verdict if state.done else "unfinished",
            "reason": state.reason,
            "parts": {name: round(at, 3) for name, at in state.parts.items()},
            "series": list(series),
        },
    }


def format_moment(seconds: float) -> str:
    """A time since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _looks(state: State) -> list[int]:
    return sorted({each.token.look for each in state.records if each.token.part == "during"})


def _look(state: State, part: str, number: int = 0) -> dict[str, Any] | None:
    records = [each for each in state.records if each.token.part == part and each.token.look == number]
    if not records:
        return None
    return {
        "steady_state_met": all(each.met for each in records),
        "probes": [{**_entry(each), "tolerance_met": bool(each.met)} for each in records],
    }


def _entry(record: Record) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "activity": dict(record.activity.raw),
        "output": record.output,
        "start": format_moment(record.started),
        "status": "failed" if record.error else "succeeded",
        "end": format_moment(record.ended),
        "duration": round(record.ended - record.started, 3),
    }
    if record.error:
        entry["exception"] = [record.error]
    if record.met is not None:
        entry["tolerance_met"] = record.met
    if record.activity.tolerance is not None:
        entry["meshctl"] = {
            "found": show(pick(record.activity.tolerance, record.output)),
            "wanted": describe(record.activity.tolerance),
        }
    return entry
