"""The JSON shapes of what ``meshctl load`` reports.  Pure; see ``models``."""

from __future__ import annotations

from meshctl.wire.models import Shape


class LoadFigures(Shape, frozen=True, kw_only=True):
    """What became of some requests: ``failures`` got no answer, or a status from 500; ``success`` is the other share.

    Times are null where nothing was counted, and count from when a request was due. ``errors`` are by kind:
    ``timeout``, ``refused``, ``broken off``.
    """

    requests: int
    failures: int
    success: float | None
    statuses: dict[str, int]
    errors: dict[str, int]
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class LoadVersion(Shape, frozen=True, kw_only=True):
    """The answers of one version; ``version`` is empty for those that came from no instance."""

    version: str
    share: float
    figures: LoadFigures


class LoadBar(Shape, frozen=True, kw_only=True):
    """``count`` requests took at most ``le_ms`` and longer than the bar before; null is no bound."""

    le_ms: float | None
    count: int


class LoadReport(Shape, frozen=True, kw_only=True):
    """A load so far: one line of ``meshctl load -o json`` each second, and one with ``done`` at its end.

    ``rps`` and ``duration_s`` are what was asked, ``rate`` is what was answered a second so far. ``sent`` requests were
    sent, of which ``under_way`` have not ended; ``unsent`` were due and found no free connection. ``late_ms`` is how
    late the sender itself was at the worst. ``last`` are the figures of the last whole second; ``histogram`` is there
    at the end.
    """

    service: str
    path: str
    source: str
    rps: float
    duration_s: float
    elapsed_s: float
    done: bool
    interrupted: bool
    sent: int
    under_way: int
    unsent: int
    rate: float
    late_ms: float
    total: LoadFigures
    last: LoadFigures | None
    versions: list[LoadVersion]
    histogram: list[LoadBar]
