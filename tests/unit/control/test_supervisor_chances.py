"""Second chances and takings-over: what a supervisor starts again, and what it must not start."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.fakes.process_host import Behaviour
from tests.support.instances import make_job, make_spec
from tests.unit.control.test_supervisor import World, by_id

from meshctl.ports import InstanceRecord
from meshctl.spec.schema import RestartPolicy

NEVER = RestartPolicy(mode="no")
SLOWLY = RestartPolicy(backoff=60.0, max_backoff=60.0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("policy", "phase"), [(NEVER, "failed"), (SLOWLY, "backoff"), (RestartPolicy(mode="on_failure"), "stopped")]
)
async def test_what_does_not_run_is_started_again_at_once_on_request(
    world: World, policy: RestartPolicy, phase: str
) -> None:
    world.machine.commands = {"serve": Behaviour(exit_code=0 if phase == "stopped" else 3)}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1", restart=policy), make_job()))
        await world.until(lambda: world.phases() == {"web-v1-1": phase, "seed-v1-1": world.phase("seed-v1-1")})
        world.machine.commands = None
        again = supervisor.retry()
        assert "web-v1-1" in again
        await world.until_ready("web-v1-1")
        assert supervisor.views()["web-v1-1"].state.failed_starts == 0


async def test_what_runs_or_is_done_or_goes_is_left_alone(world: World) -> None:
    world.machine.commands = {"serve": Behaviour(), "seed": Behaviour(exit_code=0)}
    job = make_job()
    done = make_job(process=type(job.process)(name=job.id, argv=("seed",), env={}, cwd="/", log_path=""))
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1"), done))
        await world.until_ready("web-v1-1", "seed-v1-1")
        assert supervisor.retry() == ()
        assert world.started == ["web-v1-1", "seed-v1-1"]


async def test_a_restart_to_come_is_seen_until_it_has_come(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1"), make_spec("web-v1-2")))
        await world.until_ready("web-v1-1", "web-v1-2")
        supervisor.reconcile(by_id(make_spec("web-v1-1", fingerprint="two"), make_spec("web-v1-2")))
        views = supervisor.views()
        assert (views["web-v1-1"].outdated, views["web-v1-2"].outdated) == (True, False)
        assert views["web-v1-1"].health == "healthy"
        await world.until(lambda: world.started.count("web-v1-1") == 2 and world.phase("web-v1-1") == "ready")
        assert not supervisor.views()["web-v1-1"].outdated


async def test_envoys_answer_is_about_one_process(world: World) -> None:
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(make_spec("web-v1-1", envoy_checked=True)))
        await world.until(lambda: world.phase("web-v1-1") == "ready")
        supervisor.set_envoy_check("web-v1-1", True)
        await world.until_ready("web-v1-1")
        world.machine.finish("web-v1-1", -9)
        await world.until(lambda: world.started.count("web-v1-1") == 2 and world.phase("web-v1-1") == "ready")
        view = supervisor.views()["web-v1-1"]
        assert (view.envoy_check, view.health) == (None, "unknown")


async def test_what_is_about_to_be_stopped_is_taken_up_and_nothing_is_started(world: World) -> None:
    specs = by_id(make_spec("web-v1-1"), make_spec("web-v1-2"), make_spec("api-v1-1"))
    async with world.running() as supervisor:
        supervisor.reconcile(specs)
        await world.until_ready(*specs)
    world.machine.finish("web-v1-2", -9)
    changed = {name: make_spec(name, fingerprint="two") for name in specs}
    supervisor = world.connect()
    await supervisor.adopt(changed, only_running=True)
    assert set(supervisor.views()) == {"web-v1-1", "api-v1-1"}
    await world.clock.settle()
    assert len(world.started) == 3
    await world.host.close(stop=False)


async def test_a_taken_over_answer_holds_until_envoy_says_otherwise(world: World) -> None:
    """Invariant 4: an instance that serves does not leave its callers' endpoints because the control plane died."""
    spec = make_spec("web-v1-1", envoy_checked=True)
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(spec))
        await world.until(lambda: world.phase("web-v1-1") == "ready")
        supervisor.set_envoy_check("web-v1-1", True)
        await world.until_ready("web-v1-1")
    assert world.records["web-v1-1"] == InstanceRecord(
        id="web-v1-1", restarts=0, phase="ready", fingerprint="one", exit_code=None
    )
    async with world.running(by_id(spec)) as supervisor:
        await world.clock.settle()
        assert supervisor.views()["web-v1-1"].health == "healthy"
        supervisor.set_envoy_check("web-v1-1", False)
        assert supervisor.views()["web-v1-1"].health == "unhealthy"


@pytest.mark.parametrize("only_running", [False, True])
async def test_what_was_being_stopped_ends_and_is_started_anew_without_counting_as_failed(
    world: World, only_running: bool
) -> None:
    """A control plane that is killed in the middle of a down, and another up."""
    spec = make_spec("web-v1-1", restart=NEVER)
    stubborn = Behaviour(ignores=frozenset({signal.SIGTERM}))
    world.machine.commands = {"serve": stubborn}
    async with world.running() as supervisor:
        supervisor.reconcile(by_id(spec))
        await world.until_ready("web-v1-1")
        stop = asyncio.ensure_future(supervisor.stop_all())
        await world.until(lambda: world.phase("web-v1-1") == "stopping")
        stop.cancel()
    assert world.records["web-v1-1"].phase == "stopping"
    supervisor = world.connect()
    await supervisor.adopt(by_id(spec), only_running=only_running)
    task = asyncio.ensure_future(supervisor.run())
    world.machine.commands = {"serve": Behaviour()}
    await world.clock.settle()
    world.machine.finish("web-v1-1", -15)
    if only_running:
        await world.clock.settle()
        assert world.started == ["web-v1-1"]
    else:
        await world.until_ready("web-v1-1")
        assert world.started == ["web-v1-1", "web-v1-1"]
        assert supervisor.views()["web-v1-1"].state.restarts == 0
    task.cancel()
    await asyncio.wait([task])
    await world.host.close(stop=False)
