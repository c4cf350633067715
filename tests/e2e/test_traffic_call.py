"""``meshctl call`` and what ``status -o json`` promises to scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import wait_until
from tests.e2e.traffic import ECHO, LAB, PATIENT, TCP, Map, free_port, read_map, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world() -> Iterator[Map]:
    topology = {
        "name": "call",
        "defaults": PATIENT,
        "gateway": {"port": free_port(), "routes": [{"path": "/", "service": "a"}]},
        "services": {
            "a": {"command": ECHO, "upstreams": ["b", "t"]},
            "b": {"command": LAB},
            "late": {"command": LAB, "timeout": "300ms", "retry_policy": {"max_attempts": 1}},
            "t": {"command": TCP, "protocol": "tcp"},
            "nobody": {},
        },
    }
    with running(topology) as mesh:
        yield read_map(mesh)


def test_json_has_what_scripts_read(world: Map) -> None:
    answer = world.mesh.call("b/x?y=1")
    assert set(answer) == {"status", "headers", "body", "duration_ms", "instance", "version"}
    assert (answer["status"], answer["instance"], answer["version"]) == (200, "b-v1-1", "v1")
    assert answer["headers"]["content-type"].startswith("application/json")
    assert answer["duration_ms"] > 0
    assert json.loads(answer["body"])["path"] == "/x?y=1"


@pytest.mark.parametrize(("words", "caller"), [((), "gateway"), (("--from", "a"), "a")])
def test_a_call_has_the_identity_of_whom_it_is_from(world: Map, words: tuple[str, ...], caller: str) -> None:
    headers = json.loads(world.mesh.call("b/", *words)["body"])["headers"]
    assert headers["x-forwarded-client-cert"].endswith(f"URI=spiffe://call.mesh/{caller}")


@pytest.mark.parametrize("target", ["b", "b/", "http://b/", "http://b:80/"])
def test_a_target_may_be_a_name_or_a_url(world: Map, target: str) -> None:
    assert json.loads(world.mesh.call(target)["body"])["path"] == "/"


def test_method_headers_and_body_are_sent(world: Map, tmp_path: Path) -> None:
    seen = json.loads(
        world.mesh.call("b/", "-X", "put", "-d", '{"a": 1}', "-H", "X-Mine: yes", "-H", "X-Too: 1")["body"]
    )
    assert (seen["method"], seen["body"]) == ("PUT", '{"a": 1}')
    assert (seen["headers"]["x-mine"], seen["headers"]["x-too"]) == ("yes", "1")
    assert seen["headers"]["content-type"] == "application/json"
    (tmp_path / "body").write_text("from a file")
    seen = json.loads(world.mesh.call("b/", "-d", f"@{tmp_path / 'body'}")["body"])
    assert (seen["method"], seen["body"]) == ("POST", "from a file")
    done = world.mesh.run("call", "b/", "-d", "-", stdin="from stdin")
    assert json.loads(done.out)["body"] == "from stdin"


def test_the_body_goes_to_stdout_and_who_answered_to_stderr(world: Map) -> None:
    done = world.mesh.run("call", "b/x")
    assert done.code == 0
    assert json.loads(done.out)["path"] == "/x"
    assert done.err.startswith("200 OK in ")
    assert "from b-v1-1 (v1), called as gateway" in done.err


def test_include_prints_status_and_headers_first(world: Map) -> None:
    out = world.mesh.must("call", "-i", "b/x")
    head, _, body = out.partition("\n\n")
    assert head.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "x-meshctl-instance: b-v1-1" in head.lower().splitlines()
    assert json.loads(body)["path"] == "/x"


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("--from", "a", "a/"), 502, 'a has no upstream "a"'),
        (("--from", "b", "a/"), 502, 'b has no upstream "a". Its upstreams: none.'),
        (("nope/",), 502, 'gateway has no upstream "nope"'),
        (("t/",), 502, "t speaks plain TCP"),
        (("a/status/404",), 404, "/status/404"),
        (("a/status/500",), 500, "/status/500"),
        (("nobody/",), 503, "no instance of nobody is ready"),
        (("late/sleep/50",), 504, "late was slower than its `timeout` allows"),
    ],
)
def test_an_answer_of_400_and_above_exits_with_1(
    world: Map, words: tuple[str, ...], status: int, complaint: str
) -> None:
    done = world.mesh.run("call", "-o", "json", *words)
    assert done.code == 1
    answer = json.loads(done.out)
    assert answer["status"] == status
    assert complaint in answer["body"] + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("https://b/",), "the sidecars do TLS among themselves"),
        (("ftp://b/",), "only HTTP requests can be sent"),
        (("/x",), "names no service"),
        (("b/", "-H", "no colon"), "no colon"),
        (("b/", "-d", "@/nowhere/at/all"), "/nowhere/at/all"),
        (("b/", "--timeout", "soon"), "--timeout"),
    ],
)
def test_a_call_that_cannot_be_is_a_usage_error(world: Map, words: tuple[str, ...], complaint: str) -> None:
    done = world.mesh.run("call", *words)
    assert done.code == 2
    assert complaint in done.err


def test_a_call_from_an_unknown_service_names_those_there_are(world: Map) -> None:
    done = world.mesh.run("call", "--from", "nope", "b/")
    assert done.code == 1
    assert "no sidecar nope" in done.err
    assert "a, b, gateway, late, nobody, t" in done.err


def test_a_call_that_takes_too_long_for_the_caller_is_given_up(world: Map) -> None:
    done = world.mesh.run("call", "--timeout", "200ms", "a/sleep/50")
    assert done.code == 4
    assert "200 ms" in done.err or "0.2 s" in done.err


def test_status_json_has_what_scripts_read(world: Map) -> None:
    # One check or one push that is late by chance shows, too, until the next one.
    status = wait_until(lambda: (seen := world.mesh.status())["state"] == "ready" and seen, "all is ready")
    assert (status["mesh"], status["state"]) == ("call", "ready")
    assert status["gateway"]["url"] == f"http://127.0.0.1:{world.gateway}"
    assert [item["name"] for item in status["services"]] == ["a", "b", "late", "nobody", "t"]
    service = status["services"][0]
    assert (service["state"], service["identity"]) == ("ready", "spiffe://call.mesh/a")
    (instance,) = service["instances"]
    assert {"id", "version", "pid", "port", "state", "health", "restarts"} <= set(instance)
    assert (instance["id"], instance["version"], instance["state"]) == ("a-v1-1", "v1", "ready")
    assert (instance["health"], instance["restarts"]) == ("healthy", 0)
    sidecar = service["sidecar"]
    assert {"pid", "outbound_port", "inbound_ports", "config", "admin_socket"} <= set(sidecar)
    assert (sidecar["config"], set(sidecar["inbound_ports"])) == ("synced", {"a-v1-1"})
    assert Path(sidecar["admin_socket"]).is_socket()
    assert set(service["upstreams"]) == {"b", "t"}
