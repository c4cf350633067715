"""Invariant 1: Envoy accepts everything that follows from a topology that ``validate`` accepts, in any order."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.support.cases import make_case
from tests.support.envoy_sidecar import Sidecar, run_sidecar
from tests.support.envoy_validate import throwaway_credentials, validate_all
from tests.support.random_topologies import cases

from meshctl.adapters.ads_grpc import AdsServer
from meshctl.adapters.clock import SystemClock
from meshctl.control.publisher import Publisher
from meshctl.envoy.translate import translate
from meshctl.plan.build import build
from meshctl.plan.model import MeshPlan, PipeAddress, ProxyPlan

pytestmark = pytest.mark.e2e

NODE = "any"
NOWHERE = "127.66.0.1"
"""Where instances are said to be: an address of loopback at which nobody answers Envoy's health checks."""

EXAMPLES = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def plan_proxies(given_case: tuple[str, dict[str, Any]]) -> Mapping[str, ProxyPlan]:
    """The proxies of a case, with its instances moved to where nobody is."""
    case = make_case(*given_case)
    instances = tuple(replace(item, host=NOWHERE) for item in case.facts.instances)
    return build(case.mesh, replace(case.facts, instances=instances)).proxies


class Bench:
    """An xDS server and one Envoy, which is every proxy of every topology in turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = AdsServer(socket=str(folder / "ads"), on_status=lambda *_: None, clock=SystemClock())
        self._publisher = Publisher(self._server, lambda _: throwaway_credentials())
        self._stack = AsyncExitStack()
        self._sidecar: Sidecar
        self.pushes = 0

    async def start(self) -> None:
        await self._server.start()
        self._stack.push_async_callback(self._server.stop)
        self._sidecar = await self._stack.enter_async_context(
            run_sidecar(self._folder, node=NODE, ads_socket=str(self._folder / "ads"))
        )

    async def stop(self) -> None:
        await self._stack.aclose()

    async def take(self, plan: ProxyPlan) -> None:
        """Publish a plan; returns when Envoy has all of it, raises RejectedError when it refuses any."""
        # Unix sockets in place of ports: other meshes may run on this machine.
        listeners = tuple(replace(item, address=self._pipe(item.name)) for item in plan.listeners)
        self._publisher.publish(MeshPlan(proxies={NODE: replace(plan, node=NODE, listeners=listeners)}))
        await self._publisher.wait(self._publisher.versions, 60, require_connected=True)
        status = self._server.status(NODE)
        assert (status.state, status.error) == ("synced", "")
        assert self._sidecar.process.returncode is None
        self.pushes += 1

    def _pipe(self, listener: str) -> PipeAddress:
        return PipeAddress(str(self._folder / hashlib.sha256(listener.encode()).hexdigest()[:12]))


def test_no_topology_is_ever_refused_by_a_running_sidecar() -> None:
    """One Envoy is handed every proxy of every topology, each in the place of the one before."""
    with tempfile.TemporaryDirectory(prefix="any", dir="/tmp") as name, asyncio.Runner() as runner:
        bench = Bench(Path(name))
        try:
            runner.run(bench.start())

            @settings(EXAMPLES, max_examples=40)
            @given(case=cases())
            def check(case: tuple[str, dict[str, Any]]) -> None:
                for plan in plan_proxies(case).values():
                    runner.run(bench.take(plan))

            check()
            assert bench.pushes > 80
        finally:
            runner.run(bench.stop())


@settings(EXAMPLES, max_examples=12)
@given(case=cases())
def test_envoy_validates_every_random_topology(case: tuple[str, dict[str, Any]]) -> None:
    resources = {node: translate(plan, throwaway_credentials()) for node, plan in plan_proxies(case).items()}
    assert asyncio.run(validate_all(dict(resources))) == {}
