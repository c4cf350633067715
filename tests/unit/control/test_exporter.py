"""The endpoint for Prometheus follows the topology."""

from __future__ import annotations

from dataclasses import replace

from tests.fakes.clock import FakeClock
from tests.support.control_world import FakeMetricsServer
from tests.support.topologies import make_source

from meshctl.control.events import EventLog
from meshctl.control.exporter import Exporter
from meshctl.ports import Exposition
from meshctl.spec.load import load
from meshctl.spec.schema import Mesh
from meshctl.spec.telemetry_schema import Telemetry

TEXT = "name: shop\ntelemetry: {prometheus: {port: 9464}}\nservices: {a: {command: ./a}}\n"


class World:
    def __init__(self) -> None:
        self.mesh: Mesh | None = None
        self.server = FakeMetricsServer()
        self.events = EventLog(FakeClock())
        self.exporter = Exporter(
            server=self.server, mesh=lambda: self.mesh, expose=lambda _: Exposition(text="", content_type=""),
            events=self.events,
        )  # fmt: skip


async def test_it_opens_and_closes_as_the_topology_says() -> None:
    world = World()
    await world.exporter.reconcile()
    assert world.server.port == 0
    world.mesh = load(make_source(TEXT))
    await world.exporter.reconcile()
    assert world.server.port == 9464
    world.mesh = replace(world.mesh, telemetry=Telemetry())
    await world.exporter.reconcile()
    assert world.server.port == 0


async def test_a_port_that_is_taken_is_told_once_and_tried_again() -> None:
    world = World()
    world.mesh = load(make_source(TEXT))
    world.server.taken.add(9464)
    for _ in range(3):
        await world.exporter.reconcile()
    world.server.taken.clear()
    await world.exporter.reconcile()
    assert world.server.port == 9464
    found = [(event.kind, event.level) async for event in world.events.read(None, follow=False)]
    assert found == [("metrics.port_taken", "error"), ("metrics.served", "info")]
