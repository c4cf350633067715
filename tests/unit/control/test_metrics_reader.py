"""The reader of counters: every sidecar for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from tests.fakes.clock import FakeClock

from meshctl.control.exporter import make_exposition
from meshctl.control.metrics_reader import MetricsReader, SidecarProcess
from meshctl.ports import Exposition
from meshctl.telemetry.exposition import CLASSIC, OPENMETRICS
from meshctl.telemetry.rollup import Rollup

COUNTER = "caller.rq.C.orders/v1.S.200.G..F.-.R.orders"


class Sidecars:
    """Admin interfaces: each answers with its count, an error, or when it is let."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"a": 0, "b": 0}
        self.pids: dict[str, int] = {}
        self.broken: dict[str, str] = {}
        self.hung: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []

    async def get(self, socket: str, path: str) -> str:
        assert path.startswith("/stats?")
        self.asked.append(socket)
        if socket in self.hung:
            await self.hung[socket].wait()
        if socket in self.broken:
            raise OSError(self.broken[socket])
        return json.dumps({"stats": [{"name": COUNTER, "value": self.counts[socket]}]})

    async def post(self, socket: str, path: str) -> str:
        raise NotImplementedError

    def running(self) -> Mapping[str, SidecarProcess]:
        return {name: SidecarProcess(socket=name, pid=self.pids.get(name, 7), started_at=0.0) for name in self.counts}


def make(sidecars: Sidecars, clock: FakeClock) -> MetricsReader:
    def complain(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    return MetricsReader(
        admin=sidecars,
        sidecars=sidecars.running,
        known=lambda: frozenset(sidecars.counts),
        clock=clock,
        on_error=complain,
    )


async def read(reader: MetricsReader, clock: FakeClock) -> None:
    await clock.advance(1.0)
    await asyncio.gather(*reader.begin_reading())


async def test_each_reading_becomes_a_sample() -> None:
    sidecars, clock = Sidecars(), FakeClock()
    reader = make(sidecars, clock)
    await read(reader, clock)
    sidecars.counts["a"] = 5
    await read(reader, clock)
    found = reader.rollup.sidecars
    assert sum(n for d in found["a"].fine[-1].flows.values() for n in d.outcomes.values()) == 5
    assert not found["b"].fine[-1].flows


async def test_an_answer_that_is_the_same_is_not_read_again() -> None:
    sidecars, clock = Sidecars(), FakeClock()
    reader = make(sidecars, clock)
    await read(reader, clock)
    before = reader.rollup.sidecars["a"].last.stats
    await read(reader, clock)
    assert reader.rollup.sidecars["a"].last.stats is before


async def test_one_that_hangs_holds_up_no_other_and_is_asked_once() -> None:
    sidecars, clock = Sidecars(), FakeClock()
    reader = make(sidecars, clock)
    await read(reader, clock)
    sidecars.hung["a"] = asyncio.Event()
    await clock.advance(1.0)
    tasks = reader.begin_reading()
    await clock.settle()
    await read(reader, clock)
    assert sidecars.asked.count("a") == 2
    assert reader.rollup.sidecars["b"].last.time - reader.rollup.sidecars["a"].last.time == 2
    sidecars.hung["a"].set()
    await asyncio.gather(*tasks)
    assert reader.rollup.sidecars["a"].last.time == reader.now()


async def test_what_a_restarted_sidecar_answers_is_not_taken_for_what_the_one_before_counted() -> None:
    """A reading that has begun finds another process at the same place: each request is counted once all the same."""
    sidecars, clock = Sidecars(), FakeClock()
    reader = make(sidecars, clock)
    await read(reader, clock)
    sidecars.counts["a"] = 3
    await read(reader, clock)
    sidecars.hung["a"] = asyncio.Event()
    await clock.advance(1.0)
    tasks = reader.begin_reading()
    await clock.settle()
    sidecars.pids["a"], sidecars.counts["a"] = 8, 21
    sidecars.hung.pop("a").set()
    await asyncio.gather(*tasks)
    await read(reader, clock)
    found = reader.rollup.sidecars["a"]
    assert found.resets == 1
    assert sum(n for slot in found.fine for d in slot.flows.values() for n in d.outcomes.values()) == 3 + 21


async def test_a_failure_is_kept_until_the_next_answer() -> None:
    sidecars, clock = Sidecars(), FakeClock()
    reader = make(sidecars, clock)
    sidecars.broken["a"] = "it does not answer"
    await read(reader, clock)
    assert reader.errors == {"a": "it does not answer"}
    del sidecars.broken["a"]
    await read(reader, clock)
    assert reader.errors == {}


async def test_sidecars_that_left_are_forgotten() -> None:
    sidecars, clock = Sidecars(), FakeClock()
    reader = make(sidecars, clock)
    sidecars.broken["a"] = "gone"
    await read(reader, clock)
    del sidecars.counts["a"]
    await read(reader, clock)
    assert (set(reader.rollup.sidecars), reader.errors) == ({"b"}, {})


async def test_readings_are_on_the_second() -> None:
    sidecars, clock = Sidecars(), FakeClock()
    waits: list[float] = []
    del sidecars.counts["b"]

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise asyncio.CancelledError
        await clock.advance(seconds + 0.25)

    reader = MetricsReader(
        admin=sidecars,
        sidecars=sidecars.running,
        known=lambda: frozenset(sidecars.counts),
        clock=clock,
        on_error=lambda *_: None,
        wait=wait,
    )
    await asyncio.gather(reader.run(), return_exceptions=True)
    assert [round(seconds, 6) for seconds in waits[1:]] == [0.75, 0.75]


def test_a_reader_is_given_the_format_that_it_takes() -> None:
    assert make_exposition(Rollup(), None, "application/openmetrics-text;version=1.0.0", 0.0) == Exposition(
        text="# EOF\n", content_type=OPENMETRICS
    )
    assert make_exposition(Rollup(), None, "*/*", 0.0).content_type == CLASSIC


async def test_sidecars_are_read_one_after_the_other() -> None:
    sidecars, clock = Sidecars(), FakeClock()
    reader = MetricsReader(
        admin=sidecars,
        sidecars=sidecars.running,
        known=lambda: frozenset(sidecars.counts),
        clock=clock,
        on_error=lambda *_: None,
        wait=clock.wait,
    )
    tasks = reader.begin_reading(spread=0.6)
    await clock.settle()
    assert sidecars.asked == ["a"]
    await clock.advance(0.3)
    assert sidecars.asked == ["a", "b"]
    await asyncio.gather(*tasks)
