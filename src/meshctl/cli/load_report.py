"""A load as it is reported: figures as JSON, as lines, as a live view and as a summary.  Pure.

Enters: a LoadReport.  Leaves: texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from meshctl.cli.figures import color_share
from meshctl.cli.render import Column
from meshctl.figures import draw_sparkline, format_ms, format_rate
from meshctl.telemetry.buckets import OVERFLOW
from meshctl.telemetry.load import Arrivals, Ended, LoadTally, make_bars, order_versions, shares
from meshctl.wire.load import LoadBar, LoadFigures, LoadReport, LoadVersion

BARS = 12
LATE_MS = 50.0
"""How far the sender may be behind before that is worth a word."""

VERSION_COLUMNS = (
    Column(title="VERSION"),
    Column(title="REQUESTS", justify="right"),
    Column(title="SHARE", justify="right"),
    Column(title="SUCCESS", justify="right"),
    Column(title="P50", drop=2, justify="right"),
    Column(title="P90", drop=3, justify="right"),
    Column(title="P99", drop=1, justify="right"),
)

_BLOCKS = "▏▎▍▌▋▊▉█"
_BAR_WIDTH = 40


def shape_report(
    tally: LoadTally,
    arrivals: Arrivals,
    *,
    names: tuple[str, str, str],
    elapsed: float,
    unsent: int,
    done: bool = False,
    interrupted: bool = False,
) -> LoadReport:
    """A load as it is after so many seconds; ``names`` are its service, path and source."""
    recent = tally.recent(elapsed, 1)
    part = shares(tally.versions)
    service, path, source = names
    span = max(elapsed, arrivals.duration) if done and not interrupted else elapsed
    return LoadReport(
        service=service,
        path=path,
        source=source,
        rps=arrivals.rate,
        duration_s=arrivals.duration,
        elapsed_s=round(elapsed, 3),
        done=done,
        interrupted=interrupted,
        sent=tally.sent,
        under_way=0 if done else tally.under_way,
        unsent=unsent,
        rate=round(tally.total.requests / span, 3) if span > 0 else 0.0,
        late_ms=round(tally.late_ms, 3),
        total=shape_figures(tally.total),
        last=shape_figures(recent[-1]) if recent else None,
        versions=[
            LoadVersion(version=name, share=round(part[name], 6), figures=shape_figures(tally.versions[name]))
            for name in order_versions(tally.versions)
        ],
        histogram=[
            LoadBar(le_ms=round(bar.upper_ms, 3) if bar.upper_ms != float("inf") else None, count=bar.count)
            for bar in (make_bars(tally.total.durations, OVERFLOW * 2) if done else ())
        ],
    )


def shape_figures(ended: Ended) -> LoadFigures:
    """Figures as JSON shows them."""

    def milliseconds(share: float) -> float | None:
        found = ended.quantile(share)
        return None if found is None else round(found, 3)

    return LoadFigures(
        requests=ended.requests,
        failures=ended.failures,
        success=None if ended.success is None else round(ended.success, 6),
        statuses={str(status): count for status, count in sorted(ended.statuses.items())},
        errors=dict(sorted(ended.errors.items())),
        p50_ms=milliseconds(0.5),
        p90_ms=milliseconds(0.9),
        p99_ms=milliseconds(0.99),
        max_ms=round(ended.longest_ms, 3) if ended.requests else None,
    )


def describe_second(report: LoadReport) -> str:
    """A load so far on one line, for where there is no terminal."""
    last = report.last or report.total
    parts = [
        f"{report.elapsed_s:.0f}s",
        f"{report.total.requests} answered",
        f"{last.requests}/s",
        f"success {color_share(last.success)}",
        f"p50 {format_ms(last.p50_ms)}",
        f"p99 {format_ms(last.p99_ms)}",
    ]
    if report.unsent:
        parts.append(f"{report.unsent} not sent yet")
    if len(report.versions) > 1:
        parts.append(" ".join(_name_share(item) for item in report.versions))
    return "  ".join(parts)


def draw_live(report: LoadReport, recent: Sequence[Ended], width: int) -> Text:
    """What a terminal shows while a load runs."""
    total, last = report.total, report.last or report.total
    left = max(0.0, report.duration_s - report.elapsed_s)
    room = max(10, min(60, width - 16))
    lines = [
        Text.assemble(
            (f"{report.service}{report.path}", "bold"),
            f" as {report.source}, {report.rps:g}/s: {report.elapsed_s:.0f} s, {left:.0f} s left",
        ),
        Text(f"  answered  {total.requests} ({last.requests}/s), under way {report.under_way}"),
        Text.assemble("  success   ", color_share(last.success), f"  {describe_counts(total)}"),
        Text(f"  latency   {_latency(last)}"),
        Text(f"  rate      {draw_sparkline([float(e.requests) for e in recent], min(room, len(recent)))}"),
        Text(f"  p99       {draw_sparkline([e.quantile(0.99) for e in recent], min(room, len(recent)))}"),
    ]
    lines += [
        Text.assemble(
            f"  {item.version or 'no instance':<9} {item.share:6.1%}  success ",
            color_share(item.figures.success),
            f"  {_latency(item.figures)}",
        )
        for item in report.versions
    ]
    if report.unsent:
        lines.append(Text(f"  {report.unsent} not sent yet: {_ALL_BUSY}", style="yellow"))
    for line in lines:
        line.truncate(max(1, width - 1), overflow="ellipsis")
    return Text("\n").join(lines)


_ALL_BUSY = "every connection waits for an answer"


def describe_counts(figures: LoadFigures) -> str:
    """``598 with 200, 2 with 503, 1 timeout``."""
    parts = [f"{count} with {status}" for status, count in figures.statuses.items()]
    return ", ".join([*parts, *(f"{count} {kind}" for kind, count in figures.errors.items())]) or "nothing answered"


def summarize(report: LoadReport) -> Iterator[Text]:
    """A load that is over, in lines."""
    total = report.total
    yield Text.assemble(
        (f"{report.service}{report.path}", "bold"),
        f" as {report.source}: {total.requests} requests in {report.elapsed_s:.1f} s,",
        f" {format_rate(report.rate)}/s of {report.rps:g}/s",
    )
    yield Text.assemble("success ", color_share(total.success), f": {describe_counts(total)}")
    yield Text(f"latency {_latency(total)}, max {format_ms(total.max_ms)}")


def version_rows(report: LoadReport) -> Iterator[list[str | Text]]:
    """A row for each version."""
    for item in report.versions:
        figures = item.figures
        yield [
            item.version or "no instance",
            str(figures.requests),
            f"{item.share:.1%}",
            color_share(figures.success),
            format_ms(figures.p50_ms),
            format_ms(figures.p90_ms),
            format_ms(figures.p99_ms),
        ]


def summarize_end(report: LoadReport, connections: int, *, was_full: bool) -> Iterator[str]:
    """What is to be known beside the figures, one line each; ``was_full`` when all connections were once busy."""
    if report.unsent and was_full:
        yield (
            f"{report.unsent} requests were due and not sent: all {connections} connections waited for answers; "
            "--connections allows more"
        )
    elif report.unsent:
        yield f"{report.unsent} requests were due and not sent: this command cannot send so many a second here"
    if report.late_ms > LATE_MS:
        yield (
            f"this command itself was up to {format_ms(report.late_ms)} late in sending, which the latencies hold too: "
            "the machine is busy, or the rate is more than it can send"
        )
    given_up = report.sent - report.total.requests
    if given_up:
        yield f"{given_up} requests were under way at the end and are not counted"


def draw_histogram(tally: Ended, width: int) -> Iterator[Text]:
    """The times of all requests as bars, one line each."""
    bars = make_bars(tally.durations, BARS)
    total = sum(bar.count for bar in bars)
    highest = max((bar.count for bar in bars), default=0)
    room = max(8, min(_BAR_WIDTH, width - 30))
    for bar in bars:
        bound = f"<= {format_ms(bar.upper_ms)}" if bar.upper_ms != float("inf") else "longer"
        drawn = _draw_bar(bar.count / highest, room) if bar.count else ""
        yield Text(f"{bound:>10}  {drawn:<{room}}  {bar.count} ({bar.count / total:.1%})")


def _draw_bar(share: float, room: int) -> str:
    eighths = max(1, round(share * room * 8))
    full, rest = divmod(eighths, 8)
    return _BLOCKS[-1] * full + (_BLOCKS[rest - 1] if rest else "")


def _latency(figures: LoadFigures) -> str:
    return f"p50 {format_ms(figures.p50_ms)}, p90 {format_ms(figures.p90_ms)}, p99 {format_ms(figures.p99_ms)}"


def _name_share(item: LoadVersion) -> str:
    return f"{item.version or 'no instance'} {item.share:.1%}"
