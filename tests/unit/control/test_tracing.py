"""Traces on a machine in memory: what is kept and found, where spans come in and go on to, how many are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.traces import FakeReceiver
from tests.support.control_world import ControlWorld, make_request, until
from tests.support.spans import make_span, trace_id

from meshctl.control.control_plane import ControlPlane
from meshctl.control.tracing import Tracing
from meshctl.errors import NotFoundError, UsageError
from meshctl.plan.addresses import COLLECTOR_KEY
from meshctl.telemetry.names import Flow, Outcome
from meshctl.telemetry.rollup import FlowDelta, History, Rollup, Sample, Slot
from meshctl.telemetry.spans import Span
from meshctl.telemetry.stats import Stats
from meshctl.wire.traces import TraceQuery

MS = 1_000_000
SERVICES = """
services:
  front: {command: ./web, upstreams: [orders, mail]}
  orders: {command: ./web}
  mail: {address: "127.0.0.1:2525"}
"""
TEXT = f"name: shop\n{SERVICES}"


def text_with(telemetry: str) -> str:
    return f"name: shop\ntelemetry: {telemetry}\n{SERVICES}"


@dataclass
class FakeForwarder:
    url: str
    told: Callable[[str], None]
    dropped: int = 0
    offered: list[tuple[str, bytes]] = field(default_factory=list)
    running: bool = False

    def offer(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.offered.append((path, body))

    async def run(self) -> None:
        self.running = True
        try:
            await asyncio.Event().wait()
        finally:
            self.running = False


class World:
    """A mesh that is up, and a second tracing beside that of its control plane, driven by hand."""

    def __init__(self, control: ControlWorld, plane: ControlPlane) -> None:
        self.control, self.plane, self.engine = control, plane, control.engine
        self.receiver = FakeReceiver()
        self.taken = 1000
        self.forwarders: list[FakeForwarder] = []
        self.tracing = Tracing(self.engine, receiver=self.receiver, make_forwarder=self.make)

    def make(self, url: str, told: Callable[[str], None]) -> FakeForwarder:
        self.forwarders.append(FakeForwarder(url, told))
        return self.forwarders[-1]

    @property
    def port(self) -> int:
        """Where services are told to send their spans."""
        return self.engine.parts.topology.ports[COLLECTOR_KEY]

    async def up(self, text: str) -> None:
        await self.plane.up(make_request(text))
        await self.tracing.reconcile()

    async def events(self, kind: str) -> list[str]:
        """Messages of events of a kind; those of passing on, of the control plane's own tracing, too."""
        found = self.engine.parts.events.read(None, follow=False)
        return [event.message async for event in found if event.kind == kind]

    async def count(self, requests: int, spans: int) -> None:
        """A second in which so many requests passed the sidecar of front, which began traces of so many spans."""
        first = self.taken
        self.taken += spans
        self.tracing.take([make_span(number, 1, service="front") for number in range(first, self.taken)])
        reader = self.engine.parts.metrics.reader
        now = reader.now()
        flow = Flow("caller", "orders/v1", "orders")
        flows = {flow: FlowDelta(outcomes={Outcome(200, -1, ""): requests})}
        last = Sample(time=now, started_at=0.0, incarnation="1", stats=Stats())
        slots = (Slot(at=int(now), seconds=1.0, flows=flows),)
        reader.rollup = Rollup(sidecars={"front": History(last=last, fine=slots)})
        await self.tracing.reconcile()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    control = ControlWorld(tmp_path)
    async with control.running() as plane:
        await plane.up(make_request(TEXT))
        yield World(control, plane)


# ---------------------------------------------------------------------------------------------- who asks


def call(trace: int, to: str, *, status: int = 200, start: int = 0, end: int = MS, **changes: Any) -> Span:
    attributes = {"http.status_code": str(status), "http.method": "GET", **changes.pop("attributes", {})}
    changes = {"listener": f"upstream/{to}", "service": "front", **changes}
    return make_span(trace, 1, start=start, end=end, failed=status >= 500, attributes=attributes, **changes)


def served(trace: int, by: str, **changes: Any) -> Span:
    return make_span(trace, 2, parent=1, kind="callee", service=by, listener=f"inbound/{by}-v1-1", **changes)


def found(world: World, **asked: Any) -> list[int]:
    return [int(item.id, 16) for item in world.tracing.list(TraceQuery(**asked)).traces]


async def test_the_newest_that_fit_are_listed(world: World) -> None:
    world.tracing.take(
        [
            call(1, "orders", start=1_000 * MS, end=1_300 * MS),
            call(2, "orders", start=2_000 * MS, end=2_100 * MS, status=503),
            call(3, "mail", start=3_000 * MS, end=3_050 * MS, attributes={"upstream_cluster": "external/mail"}),
        ]
    )
    assert found(world) == [3, 2, 1]
    assert found(world, limit=2) == [3, 2]
    assert world.tracing.list(TraceQuery(limit=2)).found == 3
    assert found(world, error=True) == [2]
    assert found(world, minimum_ms=100) == [2, 1]
    assert found(world, since=2.0) == [3, 2]
    assert world.tracing.list(TraceQuery()).kept_spans == 3


async def test_a_service_has_a_part_in_what_it_did_not_answer(world: World) -> None:
    """One that is down, whose circuit is open or that is outside the mesh tells nothing of its own."""
    refused = {"meshctl.circuit": "open"}
    by_host = {"http.url": "http://orders:80/x", "meshctl.circuit": "open"}
    world.tracing.take(
        [
            *(call(1, "orders"), served(1, "orders")),
            call(2, "orders", status=503, attributes=refused),
            call(3, "orders", listener="outbound", status=503, attributes=by_host),
            call(4, "mail", attributes={"upstream_cluster": "external/mail", "http.url": "http://mail/orders"}),
            call(5, "front", service="gateway", listener="gateway", attributes={"meshctl.route": "front/1"}),
        ]
    )
    assert sorted(found(world, service="orders")) == [1, 2, 3]
    assert sorted(found(world, service="orders", error=True)) == [2, 3]
    assert found(world, service="mail") == [4]
    assert sorted(found(world, service="front")) == [1, 2, 3, 4, 5]
    assert found(world, service="gateway") == [5]
    with pytest.raises(NotFoundError) as raised:
        found(world, service="nobody")
    assert raised.value.hint == "there are: front, gateway, mail, orders"


async def test_a_try_that_reached_nobody_is_among_what_failed(world: World) -> None:
    """It has no span, but the call has one more try than there were answers."""
    world.tracing.take([call(1, "orders", attributes={"meshctl.tries": "2"}), served(1, "orders")])
    world.tracing.take([call(2, "orders", attributes={"meshctl.tries": "1"}), served(2, "orders")])
    assert found(world, error=True) == [1]


async def test_of_slow_ones_the_slowest_are_listed(world: World) -> None:
    """Also when there are more of them than are asked for."""
    lengths = {1: 3_000, 2: 5_000, 3: 2_000, 4: 10}
    world.tracing.take(
        [call(number, "orders", start=number * MS, end=(number + took) * MS) for number, took in lengths.items()]
    )
    assert found(world, slow=True, limit=2) == [2, 1]
    assert found(world, slow=True) == [2, 1, 3]


async def test_a_trace_is_found_by_the_beginning_of_its_id(world: World) -> None:
    world.tracing.take([call(0xAB, "orders"), call(0xAC, "orders")])
    whole = trace_id(0xAB)
    assert world.tracing.get(whole.upper()).id == whole
    with pytest.raises(UsageError, match="2 traces begin with 000"):
        world.tracing.get("000")
    with pytest.raises(NotFoundError, match="there is no trace f00"):
        world.tracing.get("f00")
    for wrong in ("", "xyz", "0" * 33, "../x"):
        with pytest.raises(UsageError, match="is no trace id"):
            world.tracing.get(wrong)


async def test_of_many_that_begin_so_some_are_named(world: World) -> None:
    world.tracing.take([call(number, "orders") for number in range(1, 9)])
    with pytest.raises(UsageError, match=r"8 traces begin with 0: (\w+, ){4}\w+ and 3 more"):
        world.tracing.get("0")


async def test_nothing_is_kept_while_tracing_is_off(world: World) -> None:
    await world.up(text_with("{tracing: off}"))
    world.tracing.take([call(1, "orders")])
    assert (found(world), world.tracing.list(TraceQuery()).mode) == ([], "off")


async def test_before_there_is_a_mesh_nothing_is_kept_and_nothing_breaks(tmp_path: Path) -> None:
    control = ControlWorld(tmp_path)
    async with control.running() as plane:
        world = World(control, plane)
        world.tracing.take([call(1, "orders")])
        await world.tracing.reconcile()
        assert (found(world), world.receiver.port, world.forwarders) == ([], 0, [])


# ---------------------------------------------------------------------------------------------- where they come in


async def test_services_are_listened_to_where_they_were_told(world: World) -> None:
    await world.tracing.reconcile()
    assert world.receiver.port == world.port
    assert world.tracing.list(TraceQuery()).endpoint == f"http://127.0.0.1:{world.port}"
    world.engine.stopping = True
    await world.tracing.reconcile()
    assert (world.receiver.port, world.tracing.list(TraceQuery()).endpoint) == (0, "")


async def test_a_port_that_is_taken_is_told_once_and_tried_again(world: World) -> None:
    world.receiver.taken_ports.add(world.port)
    for _ in range(3):
        await world.tracing.reconcile()
    assert await world.events("traces.port_taken") == [
        f"services cannot send spans to port {world.port}: Address already in use"
    ]
    world.receiver.taken_ports.clear()
    await world.tracing.reconcile()
    assert world.receiver.port == world.port


async def test_the_port_is_closed_at_the_end(world: World) -> None:
    task = asyncio.ensure_future(world.tracing.run())
    await until(lambda: world.receiver.port == world.port, "the port is open")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.receiver.port == 0


# ---------------------------------------------------------------------------------------------- where they go on to


def offer(world: World, body: bytes) -> None:
    world.receiver.forward("/v1/traces", body, {})  # type: ignore[operator]


async def test_what_comes_is_passed_on_as_long_as_the_topology_says_so(world: World) -> None:
    offer(world, b"before")
    await world.up(text_with("{otlp: {endpoint: 'http://127.0.0.1:4318'}}"))
    (first,) = world.forwarders
    await until(lambda: first.running, "it is at work")
    offer(world, b"one")
    await world.tracing.reconcile()
    assert (first.url, first.offered) == ("http://127.0.0.1:4318", [("/v1/traces", b"one")])
    first.dropped = 3
    await world.up(text_with("{otlp: {endpoint: 'http://127.0.0.1:4319'}}"))
    await until(lambda: not first.running, "it has ended")
    world.forwarders[1].dropped = 2
    # What the one before dropped is not forgotten.
    assert world.tracing.list(TraceQuery()).forward_dropped == 5
    await world.up(TEXT)
    await until(lambda: not world.forwarders[1].running, "it has ended")
    offer(world, b"after")
    assert world.tracing.list(TraceQuery()).forward_dropped == 5
    assert (len(world.forwarders), world.forwarders[1].offered, first.offered[1:]) == (2, [], [])


async def test_an_end_of_passing_on_and_its_new_beginning_are_events(world: World) -> None:
    await world.up(text_with("{otlp: {endpoint: 'http://127.0.0.1:4318'}}"))
    world.forwarders[0].told("it answers 500")
    assert (
        "spans are not passed on to http://127.0.0.1:4318: it answers 500; they are dropped until it takes them again"
        in await world.events("traces.forward_failed")
    )
    world.forwarders[0].told("")
    assert (await world.events("traces.forwarded"))[-1] == "spans are passed on to http://127.0.0.1:4318 again"


# ---------------------------------------------------------------------------------------------- how many


async def test_a_load_that_would_cost_too_much_is_sampled_and_everybody_is_told(world: World) -> None:
    await world.count(requests=50, spans=100)
    assert world.tracing.shares() == {}
    world.engine._dirty.clear()
    await world.count(requests=1_500, spans=3_000)
    share = world.tracing.shares()["front"]
    assert 0 < share < 1_000_000
    assert world.engine._dirty.is_set()
    (told,) = world.tracing.list(TraceQuery()).sampling
    assert (told.sidecar, told.share) == ("front", share / 1_000_000)


async def test_whoever_wants_every_request_gets_it(world: World) -> None:
    await world.count(requests=1_500, spans=3_000)
    assert world.tracing.shares()
    await world.up(text_with("{tracing: all}"))
    await world.count(requests=1_500, spans=3_000)
    assert world.tracing.shares() == {}


async def test_figures_of_long_ago_tell_nothing_of_now(world: World) -> None:
    """A sidecar that hangs is not sampled for what passed before."""
    await world.count(requests=1_500, spans=3_000)
    held = world.engine.parts.metrics.reader
    (slot,) = held.rollup.sidecars["front"].fine
    old = replace(slot, at=slot.at - 60)
    for _ in range(20):
        held.rollup = Rollup(sidecars={"front": replace(held.rollup.sidecars["front"], fine=(old,))})
        await world.tracing.reconcile()
    assert world.tracing.shares() == {}
