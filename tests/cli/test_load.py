"""`meshctl load` sends on schedule whatever comes back, counts from when each was due, and says how it went."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from tests.cli.conftest import RunCli, ServedMesh, Sidecar

from meshctl.cli import load as load_module
from meshctl.cli import load_report, render
from meshctl.cli.load_report import (
    describe_second,
    draw_histogram,
    draw_live,
    shape_report,
    summarize,
    summarize_end,
    version_rows,
)
from meshctl.client import load as client_module
from meshctl.client.calls import MeshRequest
from meshctl.client.load import Load
from meshctl.errors import ConflictError
from meshctl.telemetry.load import Arrivals, LoadTally
from meshctl.wire.models import CallTarget

FAST = ("--rps", "200", "--duration", "500ms", "--timeout", "60s")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, what is due is sent in the end, and nobody is told how late that was."""
    monkeypatch.setattr(client_module, "_GRACE", 60.0)
    monkeypatch.setattr(load_report, "LATE_MS", 60_000.0)


def read_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_load_sends_what_is_due_and_sums_up(sidecar: Sidecar, run_cli: RunCli) -> None:
    done = run_cli("load", "payment/pay?a=1", *FAST)
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"payment/pay\?a=1 as gateway: 100 requests in [\d.]+ s, [\d.]+/s of 200/s", lines[0])
    assert lines[1] == "success 100%: 100 with 200"
    assert re.fullmatch(r"latency p50 \S+, p90 \S+, p99 \S+, max \S+", lines[2])
    assert re.fullmatch(r"v1 +100 +100\.0% +100% +\S+ +\S+ +\S+", lines[5])
    assert sum(int(number) for number in re.findall(r"(\d+) \(\d+\.\d%\)$", done.stdout, re.MULTILINE)) == 100
    assert len(sidecar.requests) == 100
    method, path, headers, _ = sidecar.requests[0]
    assert (method, path, headers["host"]) == ("GET", "/pay?a=1", "payment")


def test_the_request_is_what_was_asked_for(sidecar: Sidecar, run_cli: RunCli) -> None:
    words = ("--from", "checkout", "-H", "x-user: ann", "-d", '{"a": 1}', "--rps", "20", "--duration", "100ms")
    assert run_cli("load", "payment", *words).code == 0
    method, _, headers, body = sidecar.requests[0]
    assert (method, headers["x-user"], headers["content-type"]) == ("POST", "ann", "application/json")
    assert body == b'{"a": 1}'


def test_cookies_are_nobodys(sidecar: Sidecar, run_cli: RunCli) -> None:
    """Every request is a user's of its own, so that a sticky split is not taken for one that sends all to one side."""
    sidecar.headers = {**sidecar.headers, "set-cookie": "seen=1; Path=/"}
    run_cli("load", "payment", *FAST)
    assert not any("cookie" in headers for _, _, headers, _ in sidecar.requests)


def test_json_is_a_line_each_second_and_one_at_the_end(
    sidecar: Sidecar, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last answer waits for a line that tells of others: so the load is not over before there is one."""
    assert load_module._REPORT == 1.0
    monkeypatch.setattr(load_module, "_REPORT", 0.1)
    show, shown, asked = render.print_json, threading.Event(), 0

    def note(data: bytes) -> None:
        show(data)
        if json.loads(data)["total"]["requests"]:
            shown.set()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == 25:
            await asyncio.to_thread(shown.wait, 60)
        return await sidecar.answer_at_once(request)

    monkeypatch.setattr(render, "print_json", note)
    sidecar.answer_with = answer
    done = run_cli("load", "payment", "--rps", "50", "--duration", "500ms", "--timeout", "60s", "-o", "json")
    assert done.stderr == ""
    *going, last = read_lines(done.stdout)
    first = next(line for line in going if line["total"]["requests"])
    assert not any(line["done"] for line in going)
    assert (last["done"], last["interrupted"]) == (True, False)
    assert 1 <= first["total"]["requests"] < last["total"]["requests"] == 25
    assert (first["histogram"], sum(bar["count"] for bar in last["histogram"])) == ([], 25)
    assert last["versions"][0]["version"] == "v1"
    assert (last["sent"], last["unsent"], last["under_way"]) == (25, 0, 0)


def test_failures_are_counted_and_the_first_is_shown(sidecar: Sidecar, run_cli: RunCli) -> None:
    sidecar.status, sidecar.body, sidecar.headers = 503, b"no healthy\n upstream", {}
    done = run_cli("load", "payment", *FAST)
    assert "success 0%: 100 with 503\n" in done.stdout
    assert "no instance" in done.stdout
    assert done.code == 0
    assert "the first that was no good answer of an instance: 503 no healthy upstream\n" in done.stderr


@pytest.mark.parametrize(("percent", "code"), [("0", 0), ("99", 1)])
def test_too_little_success_is_a_failure_where_that_is_asked(
    sidecar: Sidecar, run_cli: RunCli, percent: str, code: int
) -> None:
    sidecar.status = 500
    assert run_cli("load", "payment", *FAST, "--fail-under", percent).code == code


def test_what_hangs_times_out_and_hides_nobody(sidecar: Sidecar, run_cli: RunCli) -> None:
    """Two connections, none of which is ever answered: what waited for them counts its wait, the rest is told."""
    sidecar.hang = True
    words = ("--rps", "50", "--duration", "600ms", "--connections", "2", "--timeout", "200ms")
    done = run_cli("load", "payment", *words, "-o", "json")
    last = read_lines(done.stdout)[-1]
    assert last["total"]["success"] == 0
    assert set(last["total"]["errors"]) == {"timeout"}
    assert last["total"]["max_ms"] > 350, "those that waited counted from when they were due"
    assert last["unsent"] > 15
    assert last["sent"] + last["unsent"] == 30
    assert f"{last['unsent']} requests were due and not sent: all 2 connections waited for answers" in done.stderr


def test_ctrl_c_ends_it_with_its_summary(sidecar: Sidecar, run_cli: RunCli) -> None:
    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while len(sidecar.requests) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        if len(sidecar.requests) >= 10:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = run_cli("load", "payment", "--rps", "100", "--duration", "2m", "-o", "json")
    thread.join()
    last = read_lines(done.stdout)[-1]
    assert (done.code, last["interrupted"], last["done"]) == (130, True, True)
    assert 10 <= last["sent"] < 12_000


def test_a_sidecar_that_is_not_there_ends_it_at_once(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = CallTarget(source="gateway", socket=f"{served.paths.runtime}/gone", host="", port=0)
    monkeypatch.setattr(served.backend, "call_target", lambda _: gone)
    done = run_cli("load", "payment", "--rps", "100", "--duration", "60s")
    assert (done.code, done.stdout) == (1, "")
    assert "error: the sidecar of gateway takes no connections\n" in done.stderr


def test_a_reader_that_has_enough_ends_it(sidecar: Sidecar, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(_: bytes) -> None:
        raise ConflictError("the reader is gone")

    monkeypatch.setattr(render, "print_json", close)
    monkeypatch.setattr(load_module, "_REPORT", 0.1)
    done = run_cli("load", "payment", "--rps", "20", "--duration", "1h", "-o", "json")
    assert (done.code, done.stderr) == (1, "error: the reader is gone\n")
    assert len(sidecar.requests) < 72_000


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("paymnt",), "did you mean payment?", 1),
        (("zzz",), "services: checkout, frontend, payment", 1),
        (("payment", "--rps", "0"), "--rps: 0 cannot be", 2),
        (("payment", "--rps", "5001"), "at most 5000", 2),
        (("payment", "--duration", "2h"), "at most 1h", 2),
        (("payment", "--timeout", "0"), "--timeout: 0 cannot be", 2),
        (("payment", "--fail-under", "101"), "101 is no percentage", 2),
        (("https://payment",), "the sidecars do TLS among themselves", 2),
    ],
)
def test_what_cannot_be_is_refused(
    sidecar: Sidecar, run_cli: RunCli, words: tuple[str, ...], said: str, code: int
) -> None:
    done = run_cli("load", *words)
    assert done.code == code
    assert said in done.stderr
    assert sidecar.requests == []


async def test_a_slow_service_is_asked_no_less(tmp_path: Any) -> None:
    """Open loop: while nothing is answered, requests go on being sent when they are due."""
    under_way, many = 0, asyncio.Event()

    async def answer(_request: web.Request) -> web.Response:
        nonlocal under_way
        under_way += 1
        if under_way == 8:
            many.set()
        # A closed loop would have one under way at a time, and get no answer.
        await many.wait()
        return web.Response(headers={"x-meshctl-version": "v1", "x-meshctl-instance": "slow-v1-1"})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    target = CallTarget(source="gateway", socket=str(tmp_path / "s"), host="", port=0)
    load = Load(
        target, MeshRequest(service="slow", path="/", timeout=60.0), Arrivals(rate=40, duration=0.5), connections=50
    )
    await load.run()
    await runner.cleanup()
    assert load.tally.total.statuses == {200: 20}
    assert load.unsent == 0


async def test_a_sender_that_is_held_up_knows_that_connections_were_busy(
    sidecar: Sidecar, served: ServedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over before it looks again after the first request, which takes the only connection."""
    passed = 0.0
    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed))
    sidecar.hang = True
    request = MeshRequest(service="payment", path="/", timeout=0.1)
    target = served.backend.call_target("gateway")
    load = Load(target, request, Arrivals(rate=40, duration=0.5), connections=1)
    note = load.tally.note_sent

    def hold_up(**when: Any) -> None:
        nonlocal passed
        passed = 10.0
        note(**when)

    monkeypatch.setattr(load.tally, "note_sent", hold_up)
    await load.run()
    assert (load.tally.sent, load.unsent, load.was_full) == (1, 19, True)


# ------------------------------------------------------------------------------------------ how it looks


def report(*, seconds: int = 3, done: bool = True) -> tuple[Any, LoadTally]:
    tally = LoadTally()
    for second in range(seconds):
        for number in range(10):
            due = second + number / 10
            tally.note_sent(due=due, now=due, waited=False)
            version = "v2" if number == 0 else "v1"
            status = 503 if number == 9 else 200
            took = 0.004 if status == 200 else 0.25
            tally.note_ended(due=due, now=due + took, status=status, version=version if status == 200 else "")
    arrivals = Arrivals(rate=10, duration=seconds if done else 30)
    names = ("checkout", "/pay", "gateway")
    return shape_report(tally, arrivals, names=names, elapsed=float(seconds), unsent=0, done=done), tally


def test_a_summary_and_its_histogram() -> None:
    shown, tally = report()
    assert [line.plain for line in summarize(shown)] == [
        "checkout/pay as gateway: 30 requests in 3.0 s, 10/s of 10/s",
        "success 90.00%: 27 with 200, 3 with 503",
        "latency p50 4.1ms, p90 4.3ms, p99 250ms, max 250ms",
    ]
    rows = [[str(cell) for cell in row][:4] for row in version_rows(shown)]
    assert rows == [
        ["v1", "24", "80.0%", "100%"],
        ["v2", "3", "10.0%", "100%"],
        ["no instance", "3", "10.0%", "0%"],
    ]
    bars = [line.plain for line in draw_histogram(tally.total, 60)]
    assert bars[0] == "  <= 5.7ms  ██████████████████████████████  27 (90.0%)"
    assert bars[-1] == "  <= 260ms  ███▍                            3 (10.0%)"
    assert all(len(line) <= 60 for line in bars)


def test_a_live_view_fits_its_width() -> None:
    shown, tally = report(done=False)
    view = draw_live(shown, tally.recent(3.0, 60), 44).plain.splitlines()
    assert view[0].startswith("checkout/pay as gateway, 10/s: 3 s, 27 s l")
    assert all(len(line) <= 43 for line in view)
    assert "▇██" in view[4]
    assert describe_second(shown) == (
        "3s  30 answered  10/s  success 90.00%  p50 4.1ms  p99 250ms  v1 80.0% v2 10.0% no instance 10.0%"
    )


def test_what_is_to_be_known_beside_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = LoadTally()
    for _ in range(3):
        tally.note_sent(due=0.0, now=0.08, waited=False)
    monkeypatch.undo()  # nobody is patient here
    late = shape_report(
        tally, Arrivals(rate=10, duration=1), names=("a", "/", "gateway"), elapsed=1.0, unsent=7, done=True
    )
    full, slow = (list(summarize_end(late, 5, was_full=was_full)) for was_full in (True, False))
    assert "all 5 connections waited for answers" in full[0]
    assert "cannot send so many a second here" in slow[0]
    assert "up to 80ms late in sending" in full[1]
    assert full[2] == "3 requests were under way at the end and are not counted"
