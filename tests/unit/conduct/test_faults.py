"""Faults that an experiment asks for: what is asked of the mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from tests.fakes.faults import make_fault, make_forecast

from meshctl.client.client import MeshClient
from meshctl.conduct.faults import FAULTS
from meshctl.wire.disturbances import DisturbRequest, DisturbResult
from meshctl.wire.faults import InjectRequest, InjectResult


@dataclass(slots=True)
class Asked:
    """A mesh that notes what is asked of it."""

    requests: list[Any] = field(default_factory=list)

    @property
    def faults(self) -> Asked:
        return self

    @property
    def disturbances(self) -> Asked:
        return self

    async def inject(self, request: InjectRequest) -> InjectResult:
        self.requests.append(request)
        return InjectResult(
            fault=make_fault("f1"), subject="", summary="", forecast=make_forecast(), acked=1, duration_ms=1.0
        )

    async def disturb(self, request: DisturbRequest) -> DisturbResult:
        self.requests.append(request)
        return DisturbResult(id="f1", kind=request.kind, subject="", message="")


async def ask(verb: str, **arguments: Any) -> Any:
    asked = Asked()
    await FAULTS[verb](cast("MeshClient", asked), arguments)
    return asked.requests[0]


@pytest.mark.parametrize(
    ("given", "headers"),
    [
        ({}, {}),
        ({"header": "x-user"}, {"x-user": None}),
        ({"header": "x-user=ann: or bob"}, {"x-user": "ann: or bob"}),
        ({"header": "x-user: ann=bob"}, {"x-user": "ann=bob"}),
    ],
)
async def test_a_header_is_written_as_on_the_command_line_or_as_http_does(
    given: dict[str, str], headers: dict[str, str | None]
) -> None:
    request = await ask("inject fault", service="pay", percent=100.0, side="callee", **given)
    assert request.headers == headers


async def test_what_is_left_alone_unless_asked_can_be_asked_for() -> None:
    usual: dict[str, Any] = {"service": "pay", "percent": 100.0, "side": "callee"}
    for wanted in (False, True):
        request = await ask("inject fault", **usual, health_checks=wanted, force=wanted)
        assert (request.health_checks, request.force) == (wanted, wanted)
        assert (await ask("inject pause", target="pay", force=wanted)).force is wanted
    assert not (await ask("inject pause", target="pay")).force
