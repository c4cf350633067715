"""The supervisor on a machine in memory, with a clock that the tests move."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.fakes.clock import FakeClock
from tests.fakes.process_host import Behaviour, FakeMachine, FakeProcessHost
from tests.support.instances import LIVENESS, make_job, make_sidecar, make_spec

from meshctl.control.supervisor import Supervisor
from meshctl.errors import ConflictError, NotFoundError, StartError
from meshctl.lifecycle.model import InstanceSpec
from meshctl.ports import InstanceRecord
from meshctl.spec.schema import Probe, RestartPolicy

STUBBORN = Behaviour(ignores=frozenset({signal.SIGTERM}))


class World:
    """A machine, a clock, what is remembered, and one control plane at a time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.machine = FakeMachine(now=self.clock.now)
        self.records: dict[str, InstanceRecord] = {}
        self.events: list[tuple[str, str, str]] = []
        self.changes = 0
        self.sick: dict[str, str] = {}
        self.probing: list[str] = []
        self.most_probing = 0
        self.drained: list[str] = []
        self.drains_held: asyncio.Event | None = None

    def connect(self) -> Supervisor:
        self.host = FakeProcessHost(self.machine)
        self.supervisor = Supervisor(
            host=self.host,
            probe=self.probe,
            clock=self.clock,
            drain=self.drain,
            recall=lambda: tuple(self.records.values()),
            remember=self.remember,
            forget=lambda name: void(self.records.pop(name, None)),
            report=lambda kind, subject, message, _level: self.events.append((kind, subject, message)),
            changed=self.count_change,
            wait=self.clock.wait,
        )
        return self.supervisor

    @asynccontextmanager
    async def running(self, specs: Mapping[str, InstanceSpec] | None = None) -> AsyncIterator[Supervisor]:
        """A control plane that runs; its processes outlive it."""
        supervisor = self.connect()
        await supervisor.adopt(specs or {})
        task = asyncio.ensure_future(supervisor.run())
        try:
            yield supervisor
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.host.close(stop=False)
            assert not [event for event in self.events if event[0] == "daemon.error"]

    async def probe(self, spec: InstanceSpec, _probe: Probe) -> tuple[bool, str]:
        self.probing.append(spec.id)
        self.most_probing = max(self.most_probing, self.probing.count(spec.id))
        try:
            await self.clock.wait(0.01)
        finally:
            self.probing.remove(spec.id)
        return (False, self.sick[spec.id]) if spec.id in self.sick else (True, "answered 200")

    async def drain(self, name: str) -> None:
        assert self.phase(name) == "draining"
        self.drained.append(name)
        if self.drains_held is not None:
            await self.drains_held.wait()

    def remember(self, record: InstanceRecord) -> None:
        self.records[record.id] = record

    def count_change(self) -> None:
        self.changes += 1

    def phase(self, name: str) -> str:
        view = self.supervisor.views().get(name)
        return view.state.phase if view is not None else "gone"

    def phases(self) -> dict[str, str]:
        return {name: view.state.phase for name, view in self.supervisor.views().items()}

    def pid(self, name: str) -> int | None:
        return self.supervisor.views()[name].state.pid

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.clock.until(condition)

    async def until_ready(self, *names: str) -> None:
        await self.clock.until(lambda: all(self.supervisor.views()[name].health == "healthy" for name in names))

    async def during(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end while time passes."""
        task = asyncio.ensure_future(coro)
        await self.clock.until(task.done)
        task.result()

    @property
    def started(self) -> list[str]:
        return [spec.name for spec in self.machine.started]


def void(_: object) -> None:
    return None


def by_id(*specs: InstanceSpec) -> dict[str, InstanceSpec]:
    return {spec.id: spec for spec in specs}


@pytest.fixture
def world() -> World:
    return World()


# ------------------------------------------------------------------------------------------------- starting


async def test_everything_starts_in_parallel_as_far_as_dependencies_allow(world: World) -> None:
    specs = by_id(
        make_spec("web-v1-1", depends_on={"cart": "healthy"}),
        make_spec("cart-v1-1", depends_on={"seed": "completed_successfully", "elsewhere": "healthy"}),
        make_job("seed-v1-1"),
        make_spec("stock-v1-1"),
        make_sidecar("sidecar.web"),
    )
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.clock.settle()
        assert sorted(world.started) == ["seed-v1-1", "sidecar.web", "stock-v1-1"]
        assert supervisor.views()["web-v1-1"].state.reason == "waiting for cart to be healthy"
        world.machine.finish("seed-v1-1", 0)
        await world.clock.settle()
        assert world.started[3:] == ["cart-v1-1"]
        await world.until_ready("web-v1-1")
        assert world.started[4:] == ["web-v1-1"]
        assert world.phase("seed-v1-1") == "completed"


async def test_a_dependency_is_healthy_only_when_envoys_check_says_so_too(world: World) -> None:
    specs = by_id(make_spec("web-v1-1", depends_on={"cart": "healthy"}), make_spec("cart-v1-1", envoy_checked=True))
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until(lambda: world.phase("cart-v1-1") == "ready")
        assert world.phase("web-v1-1") == "pending"
        supervisor.set_envoy_check("cart-v1-1", True)
        await world.until_ready("web-v1-1")


async def test_the_loss_of_envoys_check_is_news(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("cart-v1-1", envoy_checked=True)))
        await world.until(lambda: world.phase("cart-v1-1") == "ready")
        changes = world.changes
        for ok in (True, True, False, None):
            supervisor.set_envoy_check("cart-v1-1", ok)
        supervisor.set_envoy_check("nobody", True)
        assert world.changes == changes + 3
        assert [kind for kind, _, _ in world.events][-2:] == ["instance.healthy", "instance.unhealthy"]


async def test_that_envoys_first_check_is_still_to_come_is_no_news(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("cart-v1-1", envoy_checked=True)))
        await world.until(lambda: world.phase("cart-v1-1") == "ready")
        supervisor.set_envoy_check("cart-v1-1", False)
        assert "instance.unhealthy" not in [kind for kind, _, _ in world.events]


async def test_it_is_probed_until_it_is_ready_and_never_twice_at_once(world: World) -> None:
    world.sick["web-v1-1"] = "connection refused"
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.clock.advance(2.0)
        state = supervisor.views()["web-v1-1"].state
        assert (state.phase, state.reason) == ("starting", "waiting for its readiness check: connection refused")
        world.sick.clear()
        await world.until_ready("web-v1-1")
        await world.clock.advance(10.0)
        assert world.most_probing == 1


async def test_the_state_is_told_of_at_every_visible_change_and_only_then(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        changes = world.changes
        assert changes >= 3
        views = supervisor.views()
        await world.clock.advance(30.0)
        assert world.changes == changes
        assert supervisor.views() is views


async def test_a_command_that_does_not_exist_is_tried_again_and_reported(world: World) -> None:
    world.machine.commands = {}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until(lambda: world.phase("web-v1-1") == "backoff")
        assert supervisor.views()["web-v1-1"].state.reason == "command not found: serve; next try in 0.5 s"
        world.machine.commands = None
        await world.until_ready("web-v1-1")


async def test_a_process_that_ends_at_once_is_seen_to_end(world: World) -> None:
    world.machine.commands = {"serve": Behaviour(exit_code=3)}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until(lambda: world.phase("web-v1-1") == "backoff")
        assert supervisor.views()["web-v1-1"].state.exit_code == 3


# ------------------------------------------------------------------------------------------------- restarts


async def test_a_killed_process_is_back_at_once(world: World) -> None:
    world.machine.commands = {"serve": Behaviour(leaves_child=True)}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        before = world.clock.monotonic()
        world.machine.finish("web-v1-1", -9)
        await world.until(lambda: supervisor.views()["web-v1-1"].state.restarts == 1 and world.pid("web-v1-1") == 1002)
        assert world.clock.monotonic() == before
        await world.until_ready("web-v1-1")


async def test_failing_liveness_drains_and_restarts(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1", readiness=None, liveness=LIVENESS)))
        await world.until_ready("web-v1-1")
        world.sick["web-v1-1"] = "no answer"
        await world.until(lambda: world.pid("web-v1-1") == 1002)
        assert world.drained == ["web-v1-1"]


async def test_asked_to_restart_instances_of_a_service_go_one_at_a_time(world: World) -> None:
    specs = by_id(*(make_spec(name) for name in ("web-v1-1", "web-v1-2", "web-v2-1", "cart-v1-1")))
    least = {"web": 99}

    def note_least() -> None:
        ready = [view for view in world.supervisor.views().values() if view.spec.service == "web"]
        least["web"] = min(least["web"], sum(view.health == "healthy" for view in ready))

    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready(*specs)
        supervisor._changed = note_least
        await world.during(supervisor.restart(specs))
        assert least["web"] == 2
        assert sorted(world.started[4:]) == sorted(specs)
        assert all(view.health == "healthy" for view in supervisor.views().values())
        assert all(view.state.restarts == 0 for view in supervisor.views().values())


async def test_a_restart_of_what_does_not_exist_restarts_nothing(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        with pytest.raises(NotFoundError, match="there is no instance wbe-v1-1"):
            await supervisor.restart(["web-v1-1", "wbe-v1-1"])
        assert len(world.started) == 1


async def test_a_restart_that_fails_leaves_the_others_alone_and_says_why(world: World) -> None:
    specs = by_id(make_spec("web-v1-1"), make_spec("web-v1-2"))
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready(*specs)
        world.machine.commands = {"serve": Behaviour(exit_code=1)}
        with pytest.raises(StartError, match="web-v1-1 did not come up: exited with 1") as caught:
            await world.during(supervisor.restart(specs))
        assert caught.value.hint == "its output is in /logs/web-v1-1.log"
        assert supervisor.views()["web-v1-2"].health == "healthy"


async def test_a_restart_of_a_completed_job_runs_it_again(world: World) -> None:
    world.machine.commands = {"serve": Behaviour(exit_code=0)}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_job()))
        await world.until(lambda: world.phase("seed-v1-1") == "completed")
        await world.during(supervisor.restart(["seed-v1-1"]))
        assert world.started == ["seed-v1-1", "seed-v1-1"]


async def test_a_restart_ends_when_the_supervisor_does(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        world.sick["web-v1-1"] = "refused"
        restart = asyncio.ensure_future(supervisor.restart(["web-v1-1"]))
        await world.clock.advance(1.0)
    with pytest.raises(ConflictError, match="shuts down"):
        await restart


async def test_a_restart_ends_when_the_instance_is_removed_meanwhile(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        world.sick["web-v1-1"] = "refused"
        restart = asyncio.ensure_future(supervisor.restart(["web-v1-1"]))
        await world.clock.advance(1.0)
        supervisor.reconcile({})
        await world.until(restart.done)
        with pytest.raises(StartError):
            restart.result()


# ------------------------------------------------------------------------------------------------- reconcile


async def test_unchanged_instances_are_left_alone(world: World) -> None:
    specs = by_id(make_spec("web-v1-1"), make_sidecar("sidecar.web"))
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready(*specs)
        supervisor.reconcile(specs)
        await world.clock.advance(5.0)
        assert len(world.started) == 2
        assert world.machine.signals == []


async def test_changed_probes_and_policies_take_effect_without_a_restart(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        world.sick["web-v1-1"] = "answered 500"
        await world.until(lambda: supervisor.views()["web-v1-1"].health == "unhealthy")
        supervisor.reconcile(by_id(make_spec("web-v1-1", readiness=None, restart=RestartPolicy(mode="no"))))
        await world.clock.settle()
        assert supervisor.views()["web-v1-1"].health == "healthy"
        world.machine.finish("web-v1-1", 1)
        await world.until(lambda: world.phase("web-v1-1") == "failed")
        assert len(world.started) == 1


async def test_removed_instances_drain_stop_and_are_forgotten(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1"), make_spec("cart-v1-1")))
        await world.until_ready("web-v1-1", "cart-v1-1")
        world.drains_held = asyncio.Event()
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.clock.settle()
        assert world.phase("cart-v1-1") == "draining"
        assert supervisor.views()["cart-v1-1"].removed
        assert world.machine.signals == []
        world.drains_held.set()
        await world.until(lambda: world.phase("cart-v1-1") == "gone")
        assert world.machine.signals == [("cart-v1-1", signal.SIGTERM)]
        assert set(world.records) == {"web-v1-1"}


async def test_an_instance_that_is_wanted_again_while_it_goes_comes_back(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        world.drains_held = asyncio.Event()
        supervisor.reconcile({})
        await world.clock.settle()
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        world.drains_held.set()
        await world.until(lambda: world.pid("web-v1-1") == 1002)
        await world.until_ready("web-v1-1")


async def test_changed_instances_of_a_service_are_replaced_one_at_a_time(world: World) -> None:
    names = ("web-v1-1", "web-v1-2", "web-v1-3")
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(*(make_spec(name) for name in names)))
        await world.until_ready(*names)
        world.sick["web-v1-1"] = "refused"
        changed = by_id(*(make_spec(name, fingerprint="two", port=30000) for name in names))
        supervisor.reconcile(changed)
        await world.clock.advance(3.0)
        assert world.started[3:] == ["web-v1-1"]
        # What still runs as it was is seen and probed as it was.
        assert supervisor.views()["web-v1-2"].spec.port == 20000
        assert supervisor.views()["web-v1-1"].spec.port == 30000
        world.sick.clear()
        await world.until(lambda: all(view.state.fingerprint == "two" for view in supervisor.views().values()))
        await world.until_ready(*names)
        assert sorted(world.started[3:]) == sorted(names)
        assert {record.fingerprint for record in world.records.values()} == {"two"}


async def test_a_replacement_that_does_not_come_up_leaves_the_others_as_they_were(world: World) -> None:
    names = ("web-v1-1", "web-v1-2")
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(*(make_spec(name) for name in names)))
        await world.until_ready(*names)
        broken = by_id(*(make_spec(name, fingerprint="two") for name in names))
        world.machine.commands = {"serve": Behaviour(exit_code=1)}
        supervisor.reconcile(broken)
        await world.clock.advance(20.0)
        assert supervisor.views()["web-v1-2"].health == "healthy"
        assert supervisor.views()["web-v1-2"].state.fingerprint == "one"
        assert [event[1] for event in world.events if event[0] == "service.halted"] == ["web"]
        world.machine.commands = None
        supervisor.reconcile(by_id(*(make_spec(name, fingerprint="three") for name in names)))
        await world.until(lambda: all(view.state.fingerprint == "three" for view in supervisor.views().values()))


async def test_a_change_of_what_does_not_serve_takes_effect_at_once(world: World) -> None:
    specs = by_id(make_spec("web-v1-1"), make_job(), make_spec("late-v1-1", depends_on={"seed": "healthy"}))
    world.sick["web-v1-1"] = "refused"
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.clock.settle()
        world.machine.finish("seed-v1-1", 1)
        await world.until(lambda: world.phase("seed-v1-1") == "failed")
        supervisor.reconcile({name: replace(spec, fingerprint="two") for name, spec in specs.items()})
        await world.until(lambda: world.started.count("web-v1-1") == 2 and world.started.count("seed-v1-1") == 2)
        world.machine.finish("seed-v1-1", 0)
        await world.until(lambda: world.started.count("late-v1-1") == 1)
        assert supervisor.views()["late-v1-1"].state.fingerprint == "two"


# ------------------------------------------------------------------------------------------------- adoption


async def test_a_new_control_plane_adopts_what_runs_without_touching_it(world: World) -> None:
    specs = by_id(make_spec("web-v1-1", envoy_checked=True), make_sidecar("sidecar.web"))
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until(lambda: world.phase("web-v1-1") == "ready")
        supervisor.set_envoy_check("web-v1-1", True)
    await world.clock.advance(20.0)
    async with world.running(specs) as supervisor:
        # In the endpoints from the first moment on: no request may be lost.
        assert {name: view.health for name, view in supervisor.views().items()} == dict.fromkeys(specs, "healthy")
        await world.clock.advance(20.0)
        assert len(world.started) == 2
        assert world.machine.signals == []
        world.machine.finish("web-v1-1", -9)
        await world.until(lambda: world.pid("web-v1-1") == 1003)


async def test_what_was_starting_when_the_control_plane_died_has_to_prove_itself(world: World) -> None:
    specs = by_id(make_spec("web-v1-1"))
    world.sick["web-v1-1"] = "refused"
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.clock.settle()
    async with world.running(specs) as supervisor:
        assert supervisor.views()["web-v1-1"].health == "unknown"
        world.sick.clear()
        await world.until_ready("web-v1-1")
        assert len(world.started) == 1


async def test_what_died_unseen_is_swept_and_started_and_completed_jobs_are_not_run_again(world: World) -> None:
    world.machine.commands = {"serve": Behaviour(leaves_child=True)}
    specs = by_id(make_spec("web-v1-1"), make_spec("cart-v1-1"), make_job())
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready("web-v1-1", "cart-v1-1")
        world.machine.finish("seed-v1-1", 0)
        await world.until(lambda: world.phase("seed-v1-1") == "completed")
    world.machine.finish("web-v1-1", 1)
    assert world.machine.count_left("web-v1-1") == 1
    async with world.running(specs) as supervisor:
        await world.until_ready(*specs)
        assert supervisor.views()["web-v1-1"].state.restarts == 1
        assert ("web-v1-1", signal.SIGKILL) in world.machine.signals
        assert world.started.count("web-v1-1") == 2
        assert world.started.count("seed-v1-1") == 1


async def test_exits_that_no_control_plane_saw_are_told_and_count(world: World) -> None:
    specs = by_id(make_spec("web-v1-1"), make_spec("cart-v1-1"), make_job())
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready("web-v1-1", "cart-v1-1")
        await world.until(lambda: world.phase("seed-v1-1") == "starting")
    world.machine.finish("web-v1-1", 7)
    world.machine.finish("seed-v1-1", 0)
    # A job that has completed does not run again, however often the control plane is lost.
    for _ in range(2):
        async with world.running(specs) as supervisor:
            await world.until_ready("web-v1-1", "cart-v1-1")
            state = supervisor.views()["web-v1-1"].state
            assert (state.exit_code, state.restarts) == (7, 1)
            assert world.phase("seed-v1-1") == "completed"
            await world.until(lambda: not world.machine.unacked)
    assert world.started.count("seed-v1-1") == 1
    assert ("instance.exited", "web-v1-1", "exited with 7 while no control plane ran") in world.events
    assert ("job.exited", "seed-v1-1", "exited with 0 while no control plane ran") in world.events


async def test_after_a_restart_of_the_machine_everything_starts_anew(world: World) -> None:
    world.records = {
        "seed-v1-1": InstanceRecord(id="seed-v1-1", restarts=2, phase="completed", fingerprint="one", exit_code=0),
        "old-v1-1": InstanceRecord(id="old-v1-1", restarts=0, phase="ready", fingerprint="one", exit_code=None),
    }
    async with world.running(by_id(make_job())) as supervisor:
        await world.until(lambda: world.started == ["seed-v1-1"])
        assert supervisor.views()["seed-v1-1"].state.restarts == 0
        assert set(world.records) == {"seed-v1-1"}


async def test_what_runs_and_is_not_wanted_is_stopped(world: World) -> None:
    world.machine.commands = {"serve": replace(STUBBORN, leaves_detached=True)}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("old-v1-1"), make_sidecar("sidecar.old")))
        await world.until_ready("old-v1-1", "sidecar.old")
    async with world.running(by_id(make_spec("web-v1-1"))) as supervisor:
        assert supervisor.views()["sidecar.old"].spec.kind == "sidecar"
        await world.until(lambda: list(supervisor.views()) == ["web-v1-1"])
        assert world.drained == []
        assert world.machine.count_left("old-v1-1") == world.machine.count_left("sidecar.old") == 0


async def test_what_runs_with_another_fingerprint_is_replaced_after_adoption(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
    async with world.running(by_id(make_spec("web-v1-1", fingerprint="two"))):
        await world.until(lambda: world.pid("web-v1-1") == 1002)
        await world.until_ready("web-v1-1")


# ------------------------------------------------------------------------------------------------- stopping


async def test_everything_stops_level_by_level_and_nothing_is_left(world: World) -> None:
    world.machine.commands = {"serve": Behaviour(leaves_child=True, leaves_detached=True)}
    specs = by_id(
        make_spec("web-v1-1", depends_on={"cart": "started"}),
        make_spec("cart-v1-1"),
        make_sidecar("sidecar.web"),
        make_spec("never-v1-1", depends_on={"seed": "completed_successfully"}),
        make_job(),
    )
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready("web-v1-1", "cart-v1-1", "sidecar.web")
        await world.during(supervisor.stop_all())
        terminated = [name for name, number in world.machine.signals if number == signal.SIGTERM]
        assert (terminated[0], terminated[-1]) == ("web-v1-1", "sidecar.web")
        assert sorted(terminated[1:-1]) == ["cart-v1-1", "seed-v1-1"]
        assert all(world.machine.count_left(name) == 0 for name in specs)
        assert "never-v1-1" not in world.started
        assert (world.records, dict(supervisor.views())) == ({}, {})


async def test_the_order_of_a_stop_may_be_given_and_the_rest_stops_last(world: World) -> None:
    specs = by_id(make_spec("web-v1-1"), make_spec("cart-v1-1"), make_sidecar("gateway"))
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready(*specs)
        await world.during(supervisor.stop_all([("gateway", "nobody"), ("web-v1-1",)]))
        terminated = [name for name, number in world.machine.signals if number == signal.SIGTERM]
        assert terminated == ["gateway", "web-v1-1", "cart-v1-1"]
        supervisor.reconcile(specs)
        await world.until_ready(*specs)


async def test_a_stop_waits_for_its_grace_and_then_kills(world: World) -> None:
    world.machine.commands = {"serve": STUBBORN}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1", stop_grace=4.0)))
        await world.until_ready("web-v1-1")
        before = world.clock.monotonic()
        await world.during(supervisor.stop_all())
        assert world.clock.monotonic() - before == pytest.approx(4.0)
        assert world.machine.count_left("web-v1-1") == 0


async def test_a_second_wish_to_stop_skips_draining_and_grace_of_all_levels(world: World) -> None:
    world.machine.commands = {"serve": STUBBORN}
    world.drains_held = asyncio.Event()
    specs = by_id(make_spec("web-v1-1", depends_on={"cart": "started"}), make_spec("cart-v1-1"))
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready(*specs)
        stop = asyncio.ensure_future(supervisor.stop_all())
        await world.clock.settle()
        assert world.phases() == {"web-v1-1": "draining", "cart-v1-1": "ready"}
        before = world.clock.monotonic()
        supervisor.force()
        await world.until(stop.done)
        assert world.clock.monotonic() == before
        assert all(world.machine.count_left(name) == 0 for name in specs)


async def test_a_forced_stop_kills_at_once(world: World) -> None:
    world.machine.commands = {"serve": STUBBORN}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        before = world.clock.monotonic()
        await world.during(supervisor.stop_all(force=True))
        assert world.clock.monotonic() == before
        assert world.drained == []


async def test_a_stop_ends_a_replacement_under_way(world: World) -> None:
    names = ("web-v1-1", "web-v1-2")
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(*(make_spec(name) for name in names)))
        await world.until_ready(*names)
        world.sick["web-v1-1"] = "refused"
        supervisor.reconcile(by_id(*(make_spec(name, fingerprint="two") for name in names)))
        await world.clock.advance(1.0)
        await world.during(supervisor.stop_all())
        assert world.started.count("web-v1-2") == 1
        assert all(world.machine.count_left(name) == 0 for name in names)


async def test_a_drain_that_fails_does_not_hold_up_a_stop(world: World) -> None:
    async def refuse(_name: str) -> None:
        raise ConflictError("the sidecar refused")

    world.drain = refuse  # type: ignore[method-assign,assignment]
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1")))
        await world.until_ready("web-v1-1")
        supervisor.reconcile({})
        await world.until(lambda: world.phase("web-v1-1") == "gone")
        message = "it is stopped although callers may still use it: the sidecar refused"
        assert ("instance.trouble", "web-v1-1", message) in world.events


async def test_a_host_that_fails_is_reported_and_the_stop_still_ends(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_sidecar("sidecar.web")))
        await world.until_ready("sidecar.web")

        async def fail(name: str, signum: int = 0) -> bool:
            raise OSError(f"the keeper does not answer for {name} ({signum})")

        world.host.signal = fail  # type: ignore[method-assign]
        await world.during(supervisor.stop_all())
        assert world.machine.count_left("sidecar.web") == 0
        assert "instance.trouble" in {kind for kind, _, _ in world.events}
