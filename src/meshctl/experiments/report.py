"""A journal -> a page to share: one HTML file with nothing beside it.  Pure.

Any journal in Chaos Toolkit's shape can be shown; one of meshctl's has charts too. Everything that comes from the
journal is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import Any

from meshctl.experiments.charts import Scale, Span, draw_latency, draw_requests, draw_timeline, merge_edges
from meshctl.experiments.tolerances import show
from meshctl.spec.values import parse_duration

VERDICTS = {
    "held": ("held", "The steady state held."),
    "deviated": ("deviated", "The steady state did not hold: a weakness was found."),
    "unsteady": ("unsteady", "The steady state was not there to begin with: nothing was tried."),
    "failed": ("failed", "Something could not be done: nothing was learned."),
    "interrupted": ("interrupted", "It was interrupted: nothing was learned."),
    "unfinished": ("unfinished", "It has no end: whoever ran it was killed."),
}
"""Each verdict with its sentence."""

_PARTS = {"before": "steady state before", "method": "method", "after": "steady state after", "rollbacks": "rollbacks"}
_MOST_EDGES = 12
_MOMENTS = ("inject clear", "inject kill", "inject exit")
_DURATION = "5m"

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2330;--dim:#5d6878;--paper:#fff;--line:#d8dde5;--band:#eef1f6;--fault:#fbe7bd;
--good:#3f76b5;--bad:#c8102e;--slow:#8a4fae;--held:#1d7a3e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#9aa5b5;--paper:#14181f;--line:#333b48;--band:#1c222c;
--fault:#463a1c;--good:#7fb0e6;--bad:#ff6b7d;--slow:#c792ea;--held:#6fcf8f}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:60rem;
padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}p{margin:.3rem 0}.dim{color:var(--dim)}
.verdict{border-left:.4rem solid var(--bad);padding:.5rem 1rem;margin:1rem 0;background:var(--band)}
.verdict.held{border-color:var(--held)}.verdict b{text-transform:uppercase;letter-spacing:.04em}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem .25rem 0;vertical-align:top;
border-bottom:1px solid var(--line)}th{color:var(--dim);font-weight:600}td.n{text-align:right;white-space:nowrap}
.no{color:var(--bad);font-weight:600}.yes{color:var(--held)}code{font-size:.92em}
svg{width:100%;height:auto;display:block;overflow:visible}svg text{font:11px system-ui,sans-serif;fill:var(--ink)}
svg .axis{fill:var(--dim);font-size:11px}.edges svg .axis{font-size:17px}.band{fill:none}
.band.before,.band.after,.band.method,.band.rollbacks{fill:var(--band)}.band.fault{fill:var(--fault)}
.base{stroke:var(--line)}.mark{stroke:var(--dim);stroke-dasharray:2 3}
.good,.action,.probe{fill:var(--good)}.probe{opacity:.45}.bad,.failed{fill:var(--bad)}
polyline{fill:none;stroke-width:1.5}
polyline.p99{stroke:var(--slow)}polyline.p50{stroke:var(--good)}circle.p99{fill:var(--slow)}circle.p50{fill:var(--good)}
.edges{display:grid;grid-template-columns:1fr 1fr;gap:.3rem 1.5rem}
.edges h3{grid-column:1/-1;font-size:1rem;margin:1rem 0 0}
@media(max-width:45rem){.edges{grid-template-columns:1fr}}pre{overflow:auto;background:var(--band);padding:1rem}
"""


def make_report(journal: Mapping[str, Any]) -> str:
    """The page of a journal."""
    experiment = journal.get("experiment", {})
    title = escape(str(experiment.get("title", "an experiment")))
    verdict = verdict_of(journal)
    word, sentence = VERDICTS[verdict]
    more = journal.get("meshctl", {})
    reason = str(more.get("reason", ""))
    mesh = f" on the mesh {escape(str(more['mesh']))}" if more.get("mesh") else ""
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{escape(str(experiment.get('description', '')))}</p>",
        f'<p class="dim">{escape(str(journal.get("start", "")))}, {float(journal.get("duration", 0)):.1f} s{mesh}</p>',
        f'<div class="verdict {word}"><b>{word}</b> {sentence}'
        + (f"<br>{escape(reason)}" if reason else "")
        + "</div>",
        *_steady_states(journal),
        *_activities("Method", journal.get("run", [])),
        *_activities("Rollbacks", journal.get("rollbacks", [])),
        *_charts(journal),
        "<h2>The experiment</h2>",
        f"<pre>{escape(json.dumps(experiment, indent=2, ensure_ascii=False))}</pre>",
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}: {word}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def verdict_of(journal: Mapping[str, Any]) -> str:
    """The verdict of a journal, of another tool too."""
    known = journal.get("meshctl", {}).get("verdict")
    if known in VERDICTS:
        return str(known)
    if journal.get("deviated"):
        return "deviated"
    before = (journal.get("steady_states") or {}).get("before")
    if before and not before.get("steady_state_met"):
        return "unsteady"
    status = str(journal.get("status", "failed"))
    return {"completed": "held", "interrupted": "interrupted"}.get(status, "failed")


def read_moment(text: object) -> float:
    """Seconds since the epoch of a time in a journal; 0 when it cannot be read."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def describe_provider(activity: Mapping[str, Any]) -> str:
    """What does an activity, on one line."""
    provider = activity.get("provider", {})
    words = {"meshctl": "verb", "python": "func", "http": "url", "process": "path"}
    name = str(provider.get(words.get(str(provider.get("type")), "type"), ""))
    arguments = provider.get("arguments")
    if isinstance(arguments, Mapping):
        return " ".join([name, *(f"{key}={show(value)}" for key, value in arguments.items())])
    if isinstance(arguments, list):
        return " ".join([name, *map(str, arguments)])
    return f"{name} {arguments}" if arguments else name


def _steady_states(journal: Mapping[str, Any]) -> Iterator[str]:
    states = journal.get("steady_states") or {}
    looks = [("before", states.get("before")), *(("during", look) for look in states.get("during") or [])]
    looks.append(("after", states.get("after")))
    rows = [
        f"<tr><td>{name}</td><td>{escape(str(probe['activity'].get('name', '')))}</td>"
        f"<td>{escape(_wanted(probe))}</td><td>{escape(_found(probe))}</td><td>{_met(probe)}</td></tr>"
        for name, look in looks
        if look
        for probe in look.get("probes", [])
    ]
    if rows:
        title = (journal.get("experiment", {}).get("steady-state-hypothesis") or {}).get("title", "")
        yield f"<h2>Steady state: {escape(str(title))}</h2>"
        yield "<table><tr><th>when</th><th>probe</th><th>wanted</th><th>found</th><th></th></tr>"
        yield "".join(rows) + "</table>"


def _activities(heading: str, entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not entries:
        return
    yield f"<h2>{heading}</h2><table><tr><th>activity</th><th>what</th><th>took</th><th>came of it</th></tr>"
    for entry in entries:
        activity = entry["activity"]
        result = escape(_found(entry))
        if "tolerance_met" in entry:
            result = f"{_met(entry)} {result}, wanted {escape(_wanted(entry))}"
        elif entry.get("status") == "failed":
            result = f'<span class="no">failed</span> {result}'
        name, what = escape(str(activity.get("name", ""))), escape(describe_provider(activity))
        yield (
            f"<tr><td>{name}</td><td><code>{what}</code></td>"
            f'<td class="n">{float(entry.get("duration", 0)):.1f} s</td><td>{result}</td></tr>'
        )
    yield "</table>"


def _charts(journal: Mapping[str, Any]) -> Iterator[str]:
    more = journal.get("meshctl", {})
    start, end = read_moment(journal.get("start")), read_moment(journal.get("end"))
    scale = Scale(start=start, end=end)
    bands = _bands(more.get("parts", {}), end)
    spans = [
        Span(
            name=str(entry["activity"].get("name", "")),
            start=read_moment(entry.get("start")),
            end=read_moment(entry.get("end")),
            kind="failed" if entry.get("status") == "failed" else str(entry["activity"].get("type", "probe")),
        )
        for entry in (*journal.get("run", []), *journal.get("rollbacks", []))
    ]
    if spans:
        yield "<h2>When</h2>"
        yield draw_timeline(spans, scale, bands)
    bands = [*bands, *_faults(journal, end)]
    edges = merge_edges(more.get("series", []))
    marks = [span for span in spans if span.kind != "probe"]
    if edges:
        yield (
            "<h2>What callers saw</h2><p class=dim>Left: requests a second, failed ones on top in red. "
            "Right: the median (blue) and the 99th percentile (violet). Shaded while a fault is on; dashed lines are "
            "actions."
            "</p>"
        )
        yield '<div class="edges">'
    for edge in edges[:_MOST_EDGES]:
        failed = f", {edge.failures:,} failed" if edge.failures else ""
        yield f"<h3>{escape(edge.source)} → {escape(edge.destination)}: {edge.requests:,} requests{failed}</h3>"
        yield draw_requests(edge, scale, bands, marks)
        yield draw_latency(edge, scale, bands, marks)
    if edges:
        yield "</div>"
    if len(edges) > _MOST_EDGES:
        yield f"<p class=dim>{len(edges) - _MOST_EDGES} more are in the journal.</p>"


def _bands(parts: Mapping[str, float], end: float) -> list[Span]:
    """The parts of the run as stretches of time."""
    moments = [*parts.items(), ("done", end)]
    return [
        Span(name=_PARTS[name], start=float(at), end=float(after), kind=name)
        for (name, at), (_, after) in pairwise(moments)
        if name in _PARTS
    ]


def _faults(journal: Mapping[str, Any], end: float) -> Iterator[Span]:
    """Since when, and until when, each fault was on: until all were cleared, its time was up, or the run ended."""
    entries = [*journal.get("run", []), *journal.get("rollbacks", [])]
    cleared = [read_moment(entry.get("end")) for entry in entries if _verb(entry) == "inject clear"]
    for entry in entries:
        verb, start = _verb(entry), read_moment(entry.get("end"))
        if not verb.startswith("inject ") or verb in _MOMENTS or entry.get("status") == "failed":
            continue
        arguments = entry["activity"]["provider"].get("arguments") or {}
        try:
            until = start + parse_duration(str(arguments.get("duration", _DURATION)))
        except ValueError:  # a reference to a value: the fault may have lasted as long as the run
            until = end
        until = min([end, until, *(moment for moment in cleared if moment > start)])
        yield Span(name=str(entry["activity"].get("name", "")), start=start, end=until, kind="fault")


def _verb(entry: Mapping[str, Any]) -> str:
    provider = entry["activity"].get("provider", {})
    return str(provider.get("verb") or provider.get("func") or "").replace("_", " ")


def _found(entry: Mapping[str, Any]) -> str:
    if entry.get("exception"):
        told = entry["exception"]
        return str(told[-1] if isinstance(told, list) else told).strip()
    return str(entry.get("meshctl", {}).get("found", show(entry.get("output"))))


def _wanted(entry: Mapping[str, Any]) -> str:
    return str(entry.get("meshctl", {}).get("wanted", show(entry["activity"].get("tolerance"))))


def _met(entry: Mapping[str, Any]) -> str:
    return '<span class="yes">ok</span>' if entry.get("tolerance_met") else '<span class="no">deviates</span>'
