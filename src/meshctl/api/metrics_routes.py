"""The routes of the API about the golden signals; see ``routes``.  Pure but for what the backend does."""

from __future__ import annotations

from collections.abc import AsyncIterator

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Parameter, Route
from meshctl.wire import metrics, models

_WINDOW = 10.0
_STEP = 1.0
_HISTORY = 60.0


async def _get(backend: Backend, call: Call) -> Answer:
    return backend.metrics.get(
        call.read_text("service"),
        call.read_text("version"),
        _or(call.read_number("window"), _WINDOW),
        until=call.read_number("until"),
        buckets=call.read_switch("buckets"),
    )


def _stream(backend: Backend, call: Call) -> AsyncIterator[models.Shape]:
    return backend.metrics.stream(
        call.read_text("service"),
        call.read_text("version"),
        _or(call.read_number("window"), _WINDOW),
        _or(call.read_number("interval"), _STEP),
    )


async def _history(backend: Backend, call: Call) -> Answer:
    return backend.metrics.history(
        call.read_text("service"),
        window=_or(call.read_number("window"), _HISTORY),
        step=_or(call.read_number("step"), _STEP),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


_SERVICE = Parameter(name="service", kind="text", text="only what goes to, or comes from, this service")
_VERSION = Parameter(name="version", kind="text", text="only this version of the service")
_LENGTH = Parameter(name="window", kind="number", text="its length in seconds, from 1 to 3600; default 10")

METRICS_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/metrics",
        name="metrics.get",
        text="The golden signals of a window.",
        answer=_get,
        response=metrics.Metrics,
        query=(
            _SERVICE,
            _VERSION,
            _LENGTH,
            Parameter(name="until", kind="number", text="when it ends, seconds since the epoch; default now"),
            Parameter(name="buckets", kind="switch", text="whether rows hold their histograms"),
        ),
    ),
    Route(
        method="GET",
        path="/metrics/stream",
        name="metrics.stream",
        text="The golden signals of the newest window, again and again.",
        stream=_stream,
        response=metrics.Metrics,
        query=(
            _SERVICE,
            _VERSION,
            _LENGTH,
            Parameter(name="interval", kind="number", text="seconds from one to the next; default 1"),
        ),
    ),
    Route(
        method="GET",
        path="/metrics/history",
        name="metrics.history",
        text="Figures of each edge and version in equal steps, for charts.",
        answer=_history,
        response=metrics.History,
        query=(
            _SERVICE,
            Parameter(name="window", kind="number", text="how far back, in seconds, from 1 to 3600; default 60"),
            Parameter(name="step", kind="number", text="whole seconds of a step; default 1, at most 720 steps"),
        ),
    ),
)
"""Every call about the golden signals."""
