"""The control plane tells of circuit breakers what the memory of their sidecars says."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tests.support.control_world import ControlWorld, make_request

from meshctl.control.control_plane import ControlPlane
from meshctl.envoy.circuit_layout import (
    FIELDS,
    FILE_SIZE,
    HEADER_SIZE,
    MAX_PROBES,
    NAME_SIZE,
    REASONS,
    RING,
    SLOT_SIZE,
    STATES,
    read_slots,
)
from meshctl.errors import ConflictError, NotFoundError
from meshctl.wire.circuits import ForceRequest

TOPOLOGY = """
name: test
services:
  web: {command: ./web, upstreams: [api, db]}
  api: {command: ./web, circuit_breaker: {failure_threshold: 3}}
  db: {command: ./web, protocol: tcp}
"""


def make_file(**slots: tuple[dict[str, float], list[tuple[float, str, str, str, float]]]) -> bytes:
    """A sidecar's file: by target its numbers, and all changes that it ever had."""
    data = bytearray(FILE_SIZE)
    struct.pack_into("=2d", data, 0, 1.0, sum(len(changes) for _, changes in slots.values()))
    for index, (target, (numbers, changes)) in enumerate(slots.items()):
        at = HEADER_SIZE + index * SLOT_SIZE
        data[at : at + len(target)] = target.encode()
        values = [numbers.get(name, 0.0) for name in FIELDS]
        values[FIELDS.index("changes")] = float(len(changes))
        struct.pack_into(f"={len(FIELDS)}d", data, at + NAME_SIZE, *values)
        ring = at + NAME_SIZE + len(FIELDS) * 8 + MAX_PROBES * 16
        for number, (time, before, after, reason, value) in enumerate(changes):
            record = (time, STATES.index(before), STATES.index(after), REASONS.index(reason), value)
            struct.pack_into("=5d", data, ring + number % RING * 40, *record)
    return bytes(data)


OPENED = (50.0, "closed", "open", "failures", 3.0)
TRIED = (80.0, "open", "half_open", "timeout", 30.0)
CLOSED = (81.0, "half_open", "closed", "successes", 2.0)


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


async def up(plane: ControlPlane) -> None:
    await plane.up(make_request(TOPOLOGY))
    assert (await plane.ready(60)).state == "ready"


def told(world: ControlWorld) -> list[tuple[str, str, str]]:
    events = world.engine.parts.events._events
    return [(e.kind, e.level, e.message) for e in events if e.kind.startswith("circuit.")]


def put(world: ControlWorld, node: str, data: bytes) -> None:
    world.circuit_files.files[world.paths.circuits(node)] = data


async def test_every_caller_has_a_circuit_to_what_it_calls_over_http(world: ControlWorld) -> None:
    async with world.running() as plane:
        await up(plane)
        found = plane.circuits.list("").circuits
        assert [(c.caller, c.service, c.state, c.failure_threshold) for c in found] == [("web", "api", "closed", 3)]
        # What was called through the gateway by hand is shown too.
        put(world, "gateway", make_file(web=({"failures": 2.0}, [])))
        assert [(c.caller, c.service, c.failures) for c in plane.circuits.list("web").circuits] == [
            ("gateway", "web", 2)
        ]


async def test_an_open_circuit_says_why_and_when_it_tries_again(world: ControlWorld) -> None:
    async with world.running() as plane:
        await up(plane)
        put(world, "web", make_file(api=({"state": 1.0, "retry_at": 1012.34, "rejected": 4.0}, [OPENED])))
        (found,) = plane.circuits.list("api").circuits
        assert (found.state, found.retry_in, found.rejected, found.changed_at, found.reason) == (
            "open",
            12.3,
            4,
            50.0,
            "3 failures in a row",
        )


async def test_changes_are_events_each_once(world: ControlWorld) -> None:
    async with world.running() as plane:
        await up(plane)
        plane.circuits.look()
        put(world, "web", make_file(api=({"state": 1.0}, [OPENED])))
        plane.circuits.look()
        plane.circuits.look()
        assert told(world) == [("circuit.opened", "warning", "web -> api: circuit open: 3 failures in a row")]
        put(world, "web", make_file(api=({}, [OPENED, TRIED, CLOSED])))
        plane.circuits.look()
        assert [kind for kind, _, _ in told(world)] == ["circuit.opened", "circuit.half_opened", "circuit.closed"]


async def test_more_changes_than_are_kept_and_a_file_made_anew(world: ControlWorld) -> None:
    async with world.running() as plane:
        await up(plane)
        put(world, "web", make_file(api=({"state": 1.0}, [OPENED, TRIED] * RING)))
        plane.circuits.look()
        assert len(told(world)) == RING
        put(world, "web", make_file(api=({"state": 1.0}, [OPENED])))
        plane.circuits.look()
        assert len(told(world)) == RING + 1


async def test_what_an_earlier_control_plane_told_is_not_told_again(world: ControlWorld) -> None:
    async with world.running() as plane:
        await up(plane)
    put(world, "web", make_file(api=({"state": 1.0}, [OPENED])))
    async with world.running() as plane:
        plane.circuits.begin()
        plane.circuits.look()
        assert told(world) == []
        put(world, "web", make_file(api=({"state": 2.0}, [OPENED, TRIED])))
        plane.circuits.look()
        assert [kind for kind, _, _ in told(world)] == ["circuit.half_opened"]


async def test_forcing_is_a_revision_of_policy_and_holds_at_once(world: ControlWorld) -> None:
    async with world.running() as plane:
        await up(plane)
        request = ForceRequest(service="api", forced="open", author="ann@circuit open", reason="a move")
        applied = await plane.circuits.force(request)
        assert applied.message == "the circuit to api is held open"
        assert applied.acked == applied.total > 0
        (found,) = plane.circuits.list("api").circuits
        # Its sidecar has had no request since, and has noted nothing.
        assert (found.state, found.forced, found.failure_threshold) == ("open", "open", 3)
        head = plane.policies.history("api").revisions[0]
        assert (head.author, head.reason) == ("ann@circuit open", "a move")
        assert [kind for kind, _, _ in told(world)] == ["circuit.forced_open"]
        again = await plane.circuits.force(request)
        assert again.total == 0
        assert len(told(world)) == 1


@pytest.mark.parametrize("service", ["api", "web"])
async def test_what_is_let_go_again_differs_from_the_files_in_nothing(world: ControlWorld, service: str) -> None:
    async with world.running() as plane:
        await up(plane)
        before = plane.policies.list(service).policies
        for forced in ("open", "auto", "auto"):
            request = ForceRequest(service=service, forced=forced, author="ann@circuit", reason="")
            last = await plane.circuits.force(request)
        assert last.total == 0
        assert plane.policies.list(service).policies == before
        assert len(plane.policies.history(service).revisions) == (3 if before else 2)


@pytest.mark.parametrize(
    "text",
    [
        TOPOLOGY + "defaults: {circuit_breaker: {forced: open}}\n",
        TOPOLOGY.replace("failure_threshold: 3", "failure_threshold: 3, forced: open"),
    ],
)
async def test_what_the_files_hold_open_is_let_go_all_the_same(world: ControlWorld, text: str) -> None:
    async with world.running() as plane:
        await plane.up(make_request(text))
        assert (await plane.ready(60)).state == "ready"
        await plane.circuits.force(ForceRequest(service="api", forced="auto", author="ann@circuit", reason=""))
        (found,) = plane.circuits.list("api").circuits
        assert (found.forced, found.failure_threshold) == ("auto", 3)


@pytest.mark.parametrize(("service", "error"), [("nobody", NotFoundError), ("db", ConflictError)])
async def test_what_has_no_circuit_cannot_be_forced(world: ControlWorld, service: str, error: type[Exception]) -> None:
    async with world.running() as plane:
        await up(plane)
        with pytest.raises(error):
            await plane.circuits.force(ForceRequest(service=service, forced="open", author="", reason=""))


async def test_before_any_up_there_is_nothing_to_list(world: ControlWorld) -> None:
    async with world.running() as plane:
        with pytest.raises(ConflictError):
            plane.circuits.list("")


def test_a_file_of_another_size_holds_no_slots() -> None:
    assert read_slots(b"") == ()
