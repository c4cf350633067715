"""Changes between plain text and mTLS wait, step by step, for every sidecar."""

from __future__ import annotations

import pytest
from tests.fakes.clock import FakeClock
from tests.support.cases import load_mesh

from meshctl.control.events import EventLog
from meshctl.control.transports import Transports
from meshctl.errors import WaitTimeoutError
from meshctl.plan.policies.mtls import Transport
from meshctl.spec.schema import Mesh


def mesh_of(mode: str) -> Mesh:
    return load_mesh(f"services:\n  a: {{command: [a], security: {{mtls: {mode}}}}}\n")


def test_steps_wait_for_the_one_before() -> None:
    transports = Transports()
    assert not transports.advance(mesh_of("strict"))
    assert transports.is_settled
    assert transports.advance(mesh_of("false"))
    first = dict(transports.under_way)
    assert first == {"a": Transport(encrypted=True, takes_plain=True)}
    assert not transports.advance(mesh_of("false"))  # published again for another reason
    assert dict(transports.under_way) == first
    assert not transports.is_settled


async def test_the_last_step_settles() -> None:
    from tests.fakes.clock import FakeClock

    from meshctl.control.events import EventLog

    async def in_effect() -> None:
        pass

    transports, events = Transports(), EventLog(FakeClock())
    transports.advance(mesh_of("false"))
    steps = 0
    while transports.advance(mesh_of("strict")):
        steps += 1
        await transports.finish_step(in_effect(), events)
    assert steps == 1
    assert transports.is_settled
    await transports.wait(1.0)


async def test_a_sidecar_that_does_not_answer_holds_nothing_up_for_ever() -> None:
    async def never() -> None:
        raise WaitTimeoutError("1 of 2 sidecars did not acknowledge within 10 s")

    transports, events = Transports(), EventLog(FakeClock())
    transports.advance(mesh_of("strict"))
    assert transports.advance(mesh_of("false"))
    with pytest.raises(WaitTimeoutError, match="callers of a are still changing over"):
        await transports.wait(0.01)
    await transports.finish_step(never(), events)
    assert not transports.advance(mesh_of("false"))
    assert transports.is_settled
