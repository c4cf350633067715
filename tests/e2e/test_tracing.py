"""Traces of real requests through real sidecars: every hop from both sides, every try, and why it went as it did."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import ECHO, LAB, PATIENT, api, ask, free_port, read_map, running

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples" / "shop"
CALLS = {
    ("frontend", "checkout"),
    ("checkout", "cart"),
    ("checkout", "catalog"),
    ("checkout", "inventory"),
    ("checkout", "payment"),
    ("checkout", "orders"),
}
ONCE = {"max_attempts": 1}
REQUEST_ID = "7b0a1a0e-6a2f-4c55-8f0e-5a4f2f0c9d11"
SAMPLED = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


def shop() -> dict[str, Any]:
    def service(name: str, *upstreams: str, **more: Any) -> dict[str, Any]:
        command = [sys.executable, str(EXAMPLES / f"{name}.py")]
        return {"command": command, "upstreams": list(upstreams), "readiness": {"http": "/health"}, **more}

    return {
        "catalog": service("catalog"),
        "payment": service("payment"),
        "orders": service("orders"),
        "inventory": service("inventory", "catalog"),
        "cart": service("cart", "catalog", "inventory"),
        "recommendations": service("recommendations", "catalog", "inventory"),
        "checkout": service("checkout", "cart", "catalog", "inventory", "payment", "orders"),
        "frontend": service(
            *("frontend", "catalog", "cart", "recommendations", "checkout", "orders"),
            depends_on={"seed": "completed_successfully"},
        ),
        "seed": {
            "command": [sys.executable, str(EXAMPLES / "seed.py")],
            "job": True,
            "upstreams": ["catalog", "inventory"],
            "depends_on": {"catalog": "healthy", "inventory": "healthy"},
            "restart": {"mode": "on_failure", "backoff": "100ms"},
        },
    }


class Sink(BaseHTTPRequestHandler):
    """A receiver to which spans are passed on."""

    got: ClassVar[list[tuple[str, int]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append((self.path, len(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def sink() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def mesh(sink: int) -> Iterator[MeshUnderTest]:
    called: dict[str, Any] = {
        "flaky": {"command": LAB, "retry_policy": {"base_interval": "1ms"}},
        "late": {"command": LAB, "timeout": "200ms", "retry_policy": ONCE},
        "tripped": {
            "command": LAB,
            "retry_policy": ONCE,
            "circuit_breaker": {"enabled": True, "failure_threshold": 2},
        },
        "mirrored": {"command": LAB, "versions": {"v1": {}, "v2": {}}, "mirror": {"version": "v2"}},
        "spare": {"command": LAB, "retry_policy": ONCE, "fallback": {"strategy": "static", "body": "spare"}},
    }
    topology = {
        "name": "traces",
        "gateway": {"port": free_port(), "routes": [{"path": "/", "service": "frontend"}]},
        "defaults": PATIENT | {"circuit_breaker": {"enabled": False}},
        "telemetry": {"otlp": {"endpoint": f"http://127.0.0.1:{sink}"}, "access_log": "all"},
        "services": {**shop(), "a": {"command": ECHO, "upstreams": [*called]}, **called},
    }
    with running(topology) as up:
        yield up


def traces(mesh: MeshUnderTest, query: str = "limit=200") -> list[dict[str, Any]]:
    return list(api(mesh, f"/traces?{query}")["traces"])


def trace(mesh: MeshUnderTest, trace_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api(mesh, f"/traces/{trace_id}")
    return found


def trace_of(mesh: MeshUnderTest, name: str) -> dict[str, Any]:
    """The newest trace of a request, once all of it has come."""

    def find() -> dict[str, Any] | None:
        found = [item for item in traces(mesh) if item["name"] == name and item["complete"]]
        return trace(mesh, found[0]["id"]) if found else None

    found: dict[str, Any] = wait_until(find, f"a whole trace of {name}")
    return found


def calls(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in found["spans"] if row["kind"] == "caller"]


def call_of(found: dict[str, Any], to: str) -> dict[str, Any]:
    return next(row for row in calls(found) if row["destination"] == to)


def test_an_order_shows_every_hop_from_both_sides_and_what_checkout_did(mesh: MeshUnderTest) -> None:
    port = read_map(mesh).gateway
    body = json.dumps({"customer": "ann"}).encode()
    headers = {"content-type": "application/json", "idempotency-key": "order-1"}
    answer = ask(port, "/orders", method="POST", headers=headers, body=body)
    assert answer.status == 201, answer.text

    def whole() -> dict[str, Any] | None:
        found = trace_of(mesh, "POST /orders")
        # Spans of a service itself come by themselves, and not at the same time.
        return found if sum(row["kind"] == "own" for row in found["spans"]) >= 2 else None

    found: dict[str, Any] = wait_until(whole, "the spans of checkout itself")
    assert {(row["source"], row["destination"]) for row in calls(found)} >= CALLS | {("gateway", "frontend")}
    by_id = {row["id"]: row for row in found["spans"]}
    for row in calls(found):
        (served,) = [item for item in found["spans"] if item["parent"] == row["id"]]
        assert (served["kind"], served["attempt"]) == ("callee", 0)
        assert served["instance"].startswith(row["destination"])
        assert row["start_ms"] <= served["start_ms"]
        assert served["duration_ms"] <= row["duration_ms"]
        assert (served["source"], row["status"]) == (row["source"], served["status"])
    own = {row["name"]: row for row in found["spans"] if row["kind"] == "own"}
    assert set(own) == {"price the basket", "reserve and charge"}
    assert own["price the basket"]["attributes"]["items"].isdecimal()
    # Calls that checkout made in the course of one of them stand under it.
    above = by_id[own["reserve and charge"]["parent"]]
    assert (above["kind"], above["service"]) == ("callee", "checkout")
    assert by_id[call_of(found, "payment")["parent"]]["name"] == "reserve and charge"
    assert (found["failed"], found["complete"]) == (False, True)


def test_each_try_is_a_row_and_a_retry_that_succeeds_fails_nothing(mesh: MeshUnderTest) -> None:
    port = read_map(mesh).upstream("a", "flaky")
    assert ask(port, "/tries/one?fail=2").status == 200
    found = trace_of(mesh, "GET /tries/one?fail=2")
    tries = [row for row in found["spans"] if row["kind"] == "callee"]
    assert [(row["attempt"], row["status"]) for row in tries] == [(1, 503), (2, 503), (3, 200)]
    assert calls(found)[0]["notes"] == ["3 tries"]
    assert not found["failed"]
    (line,) = traces(mesh, "error=true&service=flaky")
    assert (line["id"], line["failed"], line["failed_spans"] > 0) == (found["id"], False, True)
    drawn = mesh.must("trace", found["id"][:10])
    assert "succeeded in the end" in drawn
    assert re.search(r"try 3 at flaky-v1-1\s+200", drawn)


def test_timeouts_open_circuits_and_fallbacks_are_told_in_words(mesh: MeshUnderTest) -> None:
    at = read_map(mesh)
    assert ask(at.upstream("a", "late"), "/sleep/50").status == 504
    notes = trace_of(mesh, "GET /sleep/50")["spans"][0]["notes"]
    assert notes == ["timeout"]

    assert ask(at.upstream("a", "spare"), "/tries/spare?fail=9").text == "spare"
    assert "fallback answer" in trace_of(mesh, "GET /tries/spare?fail=9")["spans"][0]["notes"]

    for number in range(3):
        ask(at.upstream("a", "tripped"), f"/tries/t?fail=9&n={number}")
    ask(at.upstream("a", "tripped"), "/tripped")
    found = trace_of(mesh, "GET /tripped")
    assert found["spans"][0]["notes"] == ["circuit open"]
    assert len(found["spans"]) == 1, "nobody was asked"


def test_a_copy_is_a_call_of_its_own_beside_the_tries(mesh: MeshUnderTest) -> None:
    assert ask(read_map(mesh).upstream("a", "mirrored"), "/tries/copied?fail=1").status == 200

    def whole() -> dict[str, Any] | None:
        found = trace_of(mesh, "GET /tries/copied?fail=1")
        return found if len(found["spans"]) >= 5 else None

    found: dict[str, Any] = wait_until(whole, "the copy and both tries")
    call, copy = sorted(calls(found), key=lambda row: row["depth"])
    assert [(row["destination"], row["version"]) for row in (call, copy)] == [("mirrored", "v1"), ("mirrored", "v2")]
    assert (copy["name"], copy["parent"], copy["source"], copy["status"]) == ("mirrored copy", call["id"], "a", 503)
    served = {row["instance"]: row for row in found["spans"] if row["kind"] == "callee" and row["status"] == 503}
    assert (served["mirrored-v2-1"]["parent"], served["mirrored-v2-1"]["attempt"]) == (copy["id"], 0)
    assert served["mirrored-v1-1"]["attempt"] == 1
    assert not found["failed"]


def test_a_callers_own_context_is_kept_and_its_decision_heeded(mesh: MeshUnderTest) -> None:
    port = read_map(mesh).upstream("a", "flaky")
    sampled, unsampled = "1" * 32, "2" * 32
    # Spans that nobody asked for would have come before the others.
    for trace_id, flag in ((unsampled, "00"), (sampled, "01")):
        headers = {"traceparent": f"00-{trace_id}-{'a' * 16}-{flag}", "x-request-id": REQUEST_ID}
        told = ask(port, "/any", headers=headers).json["headers"]
        assert told["traceparent"].split("-")[1::2] == [trace_id, flag]
        assert told["x-request-id"] == REQUEST_ID
        assert "x-client-trace-id" not in told
    wait_until(
        lambda: any(item["id"] == sampled and item["complete"] for item in traces(mesh)),
        "the trace that the caller began, whole but for what is above it",
    )
    assert not any(item["id"] == unsampled for item in traces(mesh))


def test_request_ids_say_nothing_of_tracing(mesh: MeshUnderTest) -> None:
    """An id that sidecars make is a plain UUID of version 4, and one that a caller brings stays as it is."""
    port = read_map(mesh).upstream("a", "flaky")
    made = ask(port, "/any").json["headers"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made["x-request-id"])
    assert SAMPLED.fullmatch(made["traceparent"])
    brought = "7b0a1a0e-6a2f-9c55-8f0e-5a4f2f0c9d11"
    assert ask(port, "/any", headers={"x-request-id": brought}).json["headers"]["x-request-id"] == brought


def test_a_trace_leads_to_its_access_logs(mesh: MeshUnderTest) -> None:
    ask(read_map(mesh).upstream("a", "flaky"), "/to-the-logs")
    found = trace_of(mesh, "GET /to-the-logs")

    def lines() -> list[str]:
        return [line for line in mesh.must("logs", "--trace", found["id"]).splitlines() if "/to-the-logs" in line]

    assert wait_until(lambda: len(lines()) >= 2 and lines(), "both sides in the access logs")


def test_spans_are_passed_on(mesh: MeshUnderTest) -> None:
    ask(read_map(mesh).upstream("a", "flaky"), "/passed-on")
    wait_until(lambda: any(path == "/v1/traces" and size for path, size in Sink.got), "spans at the other receiver")
