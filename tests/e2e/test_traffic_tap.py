"""Requests as they pass, on real sidecars: what a tap shows of each kind, and what access logs keep of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import ECHO, LAB, PATIENT, admin, api, ask, ask_many, read_map, running

from meshctl.client.client import MeshClient
from meshctl.wire.requests import SeenRequest, TapSummary
from meshctl.wire.taps import TapQuery

pytestmark = pytest.mark.e2e

ONCE = {"max_attempts": 1}


@pytest.fixture(scope="module")
def mesh() -> Iterator[MeshUnderTest]:
    called: dict[str, Any] = {
        "fine": {"command": LAB},
        "late": {"command": LAB, "timeout": "100ms", "retry_policy": ONCE},
        "broken": {"command": LAB, "retry_policy": {"base_interval": "1ms"}},
        "tripped": {
            "command": LAB,
            "retry_policy": ONCE,
            "circuit_breaker": {"enabled": True, "failure_threshold": 2},
        },
        "limited": {"command": LAB, "rate_limits": [{"name": "few", "requests": 1, "per": "1h"}]},
        "closed": {
            "command": LAB,
            "security": {"rules": [{"name": "no-reading", "action": "deny", "methods": ["GET"]}]},
        },
        "gone": {"command": LAB, "retry_policy": ONCE, "load_balancing": {"health_check": {"interval": "200ms"}}},
        "other": {"command": LAB},
    }
    topology = {
        "name": "taps",
        "defaults": PATIENT | {"circuit_breaker": {"enabled": False}},
        "services": {"a": {"command": ECHO, "upstreams": [*called]}, **called},
    }
    with running(topology) as up:
        yield up


class Follower:
    """A command that runs beside the test and prints one JSON object a line."""

    def __init__(self, mesh: MeshUnderTest, *words: str) -> None:
        self.process = mesh.start(*words, "-o", "json")
        self.found: list[dict[str, Any]] = []
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.found.append(json.loads(text))

    def first_message(self) -> str:
        """The first line that it says."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def wait(self, timeout: float = 120) -> list[dict[str, Any]]:
        """What it found until it ended by itself."""
        self.process.wait(timeout)
        self._reader.join(timeout)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert self.process.stderr is not None
        with self.process.stderr:
            self.said = self.process.stderr.read()
        return self.found

    def stop(self) -> None:
        """Interrupt it."""
        os.kill(self.process.pid, signal.SIGINT)
        self.wait()


class Tap(Follower):
    """A tap that has begun, at every sidecar but that of the service that hangs."""

    def __init__(self, mesh: MeshUnderTest, *words: str, hangs: str = "") -> None:
        super().__init__(mesh, "tap", *words)
        assert "tapping" in self.first_message()

        def are_told() -> bool:
            services = [item for item in api(mesh, "/status")["services"] if item["name"] != hangs]
            return {item["sidecar"]["config"] for item in services} == {"synced"}

        # A sidecar that takes long reports from then on only.
        wait_until(are_told, "sidecars report")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that hangs for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_every_kind_of_answer_is_told_in_words(mesh: MeshUnderTest) -> None:
    places = read_map(mesh)
    port = {name: places.upstream("a", name) for name in ("fine", "late", "broken", "tripped", "limited", "closed")}
    for name in ("broken", "tripped"):
        assert ask(places.own(f"{name}-v1-1"), "/set-echo/503/0").status == 200
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    tap = Tap(mesh, "--from", "a", "--max", "10", "--for", "100s")
    ask(port["fine"], "/told?x=%1b%22%0a", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    ask(port["late"], "/sleep/50")
    ask(port["broken"], "/never")
    for _ in range(4):
        ask(port["tripped"], "/again")
    for _ in range(2):
        ask(port["limited"], "/many")
    ask(port["closed"], "/secret")
    seen = tap.wait()
    by_service: dict[str, list[dict[str, Any]]] = {}
    for request in seen:
        by_service.setdefault(request["destination"], []).append(request)
    told = {name: (found[-1]["status"], found[-1]["reasons"]) for name, found in by_service.items()}
    assert told["late"] == (504, ["timeout"])
    assert told["broken"] == (503, ["retry limit"])
    assert told["tripped"] == (503, ["circuit open"])
    assert told["limited"][0] == 429
    assert "rate limited" in told["limited"][1]
    assert told["closed"] == (403, ["denied"])
    (fine,) = by_service["fine"]
    assert (fine["status"], fine["reasons"], fine["instance"], fine["version"]) == (200, [], "fine-v1-1", "v1")
    assert (fine["path"], fine["trace_id"], fine["tries"]) == ("/told?x=%1b%22%0a", trace, 1)
    # A caller counts a request once, however often it was tried.
    assert len(by_service["broken"]) == 1
    assert by_service["broken"][0]["tries"] == 3
    assert "10 of 10 requests shown" in tap.said


def test_a_service_without_a_healthy_instance_is_told_so(mesh: MeshUnderTest) -> None:
    places = read_map(mesh)
    port, own = places.upstream("a", "gone"), places.own("gone-v1-1")
    ask(own, "/set-health/500")
    try:
        wait_until(lambda: mesh.service("gone")["instances"][0]["health"] == "unhealthy", "gone is unhealthy")
        tap = Tap(mesh, "--to", "gone", "--status", "503", "--max", "1", "--for", "100s")
        wait_until(lambda: ask(port, "/x").status == 503, "refused")
        (request,) = tap.wait()
        assert (request["status"], request["reasons"]) == (503, ["no healthy upstream"])
    finally:
        ask(own, "/set-health/200")
        wait_until(lambda: mesh.service("gone")["instances"][0]["health"] == "healthy", "gone is healthy again")


def test_taps_choose_and_do_not_disturb_each_other(mesh: MeshUnderTest) -> None:
    fine, closed = (read_map(mesh).upstream("a", name) for name in ("fine", "closed"))
    callee = Tap(mesh, "--side", "callee", "--to", "fine", "--path", "/sleep*", "--max", "2", "--for", "100s")
    failed = Tap(mesh, "--status", "4xx", "--to", "fine", "--to", "closed", "--max", "1", "--for", "100s")
    slow = Tap(mesh, "--to", "fine", "--min-duration", "1s", "--max", "1", "--for", "100s")
    assert [ask(fine, path).status for path in ("/one", "/sleep/0.01", "/sleep/1.2")] == [200] * 3
    assert ask(closed, "/secret").status == 403
    assert [(r["side"], r["source"], r["path"]) for r in callee.wait()] == [
        ("callee", "a", "/sleep/0.01"),
        ("callee", "a", "/sleep/1.2"),
    ]
    assert [(request["destination"], request["path"]) for request in failed.wait()] == [("closed", "/secret")]
    # Unless one that should have been quick was slow.
    (request,) = slow.wait()
    assert request["path"] == "/sleep/1.2" or request["duration_ms"] >= 1000


async def test_a_flood_is_sampled_and_what_is_left_out_is_counted(mesh: MeshUnderTest) -> None:
    port = read_map(mesh).upstream("a", "fine")
    everything = TapQuery(to=["fine"], source=["a"], side="caller", path="", methods=[], statuses=[], minimum_ms=0)
    seen: list[SeenRequest] = []
    last: TapSummary | None = None
    asked: asyncio.Task[Any] | None = None
    async with MeshClient(mesh.paths.api_socket) as client, asyncio.timeout(200):
        async for item in client.taps.tap(everything):
            asked = asked or asyncio.create_task(asyncio.to_thread(ask_many, port, "/flood", 800))
            if item.request is not None:
                seen.append(item.request)
            last = item.summary or last
            if asked.done() and last is not None and last.passed >= 800 and len(seen) == last.reported:
                break
    assert last is not None
    assert (last.passed, last.shown, last.dropped) == (800, len(seen), 0)
    assert 100 <= len(seen) <= 800


def test_a_sidecar_that_hangs_stalls_nobody(mesh: MeshUnderTest) -> None:
    with stopped(mesh.pids()["sidecar.late"]):
        tap = Tap(mesh, "--to", "fine", "--max", "1", "--for", "100s", hangs="late")
        assert ask(read_map(mesh).upstream("a", "fine"), "/x").status == 200
        assert [request["path"] for request in tap.wait()] == ["/x"]
        assert "late" in tap.said
    mesh.up()


def test_access_logs_keep_requests_and_lead_from_a_trace_to_its_lines(mesh: MeshUnderTest) -> None:
    def logged(*words: str) -> list[dict[str, Any]]:
        return [json.loads(text) for text in mesh.must("logs", "-o", "json", *words).splitlines()]

    trace = "0af7651916cd43dd8448eb211c80319c"
    places = read_map(mesh)

    def sides() -> set[tuple[str, str]]:
        # Again each time: how many are logged in a second is bounded, and another test may have used it up.
        for name in ("fine", "other"):
            ask(places.upstream("a", name), "/kept", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        return {(line["side"], line["destination"]) for line in logged("--trace", trace) if "side" in line}

    # Sidecars write their logs once a second.
    wait_until(lambda: len(sides()) >= 4, "both sides of both requests are logged")
    assert sides() == {(side, name) for side in ("caller", "callee") for name in ("fine", "other")}
    assert {"other"} == {r["destination"] for r in logged("--access", "other")}
    assert not [line for line in logged("--sidecars") if line.get("text", "").startswith('{"access"')]


def test_what_ended_leaves_sidecars_as_they_were(mesh: MeshUnderTest) -> None:
    """Neither a tap whose client is killed nor a control plane that dies while somebody taps leaves reports on."""

    def is_on() -> bool:
        entries = json.loads(admin(mesh.paths.admin_socket("a"), "/runtime"))["entries"]
        return bool(entries["meshctl.tap.outbound"]["final_value"] not in ("0", ""))

    tap = Tap(mesh)
    assert is_on()
    tap.process.kill()
    tap.wait()
    wait_until(lambda: not is_on(), "off again")
    tap = Tap(mesh)
    try:
        mesh.kill_daemon()
        assert is_on()
        tap.process.kill()
        tap.wait()
    finally:
        mesh.up()
    wait_until(lambda: not is_on(), "off again after the control plane died")


def test_what_follows_goes_on_after_a_control_plane_that_died(mesh: MeshUnderTest) -> None:
    """Events and lines without loss or repetition, in one order; requests from then on."""
    port = read_map(mesh).upstream("a", "fine")

    def ask_for(path: str) -> None:
        assert ask(port, path).status == 200

    def paths(follower: Follower) -> list[str]:
        return [line["path"] for line in follower.found if line["path"].startswith("/follow")]

    last = json.loads(mesh.must("events", "-o", "json").splitlines()[-1])["seq"]
    events = Follower(mesh, "events", "-f")
    lines = Follower(mesh, "logs", "-f", "--access", "sidecar.a")
    tap = Tap(mesh, "--path", "/follow")
    ask_for("/follow/1")
    wait_until(lambda: events.found and paths(lines) and paths(tap), "all three follow")
    try:
        mesh.kill_daemon()
        ask_for("/follow/2")
    finally:
        mesh.up()
    numbers = [json.loads(text)["seq"] for text in mesh.must("events", "-o", "json").splitlines()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[-1] > last
    wait_until(lambda: events.found[-1]["seq"] >= numbers[-1], "new events are followed")

    def is_tapped() -> bool:
        ask_for("/follow/3")
        return "/follow/3" in paths(tap)

    wait_until(is_tapped, "new requests are tapped")
    wait_until(lambda: paths(lines)[-1] == "/follow/3", "new lines are followed")
    for follower in (events, lines, tap):
        follower.stop()
    followed = [event["seq"] for event in events.found]
    assert followed == list(range(followed[0], followed[-1] + 1))
    assert paths(tap)[0] == "/follow/1"
    assert (paths(lines).count("/follow/1"), paths(lines).count("/follow/2")) == (1, 1)
    assert "the control plane ended" in tap.said
    assert "requests shown" in tap.said


def test_mistakes_are_told(mesh: MeshUnderTest) -> None:
    for words, message in (
        (("--status", "9xx"), "no status"),
        (("--side", "both"), "no side"),
        (("--to", "nobody"), "no service nobody"),
        (("--min-duration", "soon"), "no duration"),
    ):
        done: Any = mesh.run("tap", *words)
        assert done.code != 0
        assert message in done.err
