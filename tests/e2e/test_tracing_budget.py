"""Traces of more requests than can be recorded: of a share of them, and no request waits for anybody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import ECHO, LAB, PATIENT, Load, api, ask, read_map, running

pytestmark = pytest.mark.e2e


@pytest.fixture
def mesh() -> Iterator[MeshUnderTest]:
    # Of its own: for some seconds after this test not every request is recorded.
    services = {"a": {"command": ECHO, "upstreams": ["flaky"]}, "flaky": {"command": LAB}}
    with running({"name": "budget", "defaults": PATIENT, "services": services}) as up:
        yield up


def listing(mesh: MeshUnderTest) -> dict[str, Any]:
    found: dict[str, Any] = api(mesh, "/traces?limit=200")
    return found


def test_beyond_the_budget_a_share_is_recorded_and_the_death_of_the_control_plane_fails_no_request(
    mesh: MeshUnderTest,
) -> None:
    port = read_map(mesh).upstream("a", "flaky")
    with Load(port, "/any", clients=2) as load:
        load.wait_for_more(20)
        batches = count()
        # It is opened within a second of the mesh.
        endpoint = urlsplit(wait_until(lambda: listing(mesh)["endpoint"], "a port for spans")).port
        assert endpoint is not None

        def send_spans() -> list[str]:
            """As many as a far busier sidecar would make, so that this does not hang on how fast the machine is."""
            headers = {"content-type": "application/json"}
            told = ask(endpoint, "/v1/traces", method="POST", headers=headers, body=made_up(2000, next(batches)))
            assert told.status == 200
            return [item["sidecar"] for item in listing(mesh)["sampling"]]

        def flags() -> set[str]:
            return {ask(port, "/any").json["headers"]["traceparent"][-2:] for _ in range(10)}

        wait_until(lambda: send_spans() == ["a"], "a share for a alone")
        wait_until(lambda: send_spans() and "00" in flags(), "requests that are not recorded")
        # Whoever has decided already is heeded all the same.
        headers = {"traceparent": f"00-{'3' * 32}-{'a' * 16}-01"}
        heeded = {ask(port, "/any", headers=headers).json["headers"]["traceparent"][-2:] for _ in range(20)}
        assert heeded == {"01"}
        # While spans are on their way.
        mesh.kill_daemon()
        load.wait_for_more(100)
        mesh.up()
        load.wait_for_more(100)
    assert not load.failures
    wait_until(
        lambda: ask(port, "/after-all").status == 200 and listing(mesh)["traces"], "traces of the new control plane"
    )


def made_up(size: int, batch: int) -> bytes:
    """Spans of calls that begin at a's sidecar."""

    def text(key: str, value: str) -> dict[str, Any]:
        return {"key": key, "value": {"stringValue": value}}

    spans = [
        {
            "traceId": f"{0xFADE0000 + batch * size + number:032x}",
            "spanId": f"{number + 1:016x}",
            "name": "GET",
            "startTimeUnixNano": "1",
            "endTimeUnixNano": "2",
            "attributes": [text("meshctl.seen", "upstream/flaky"), text("node_id", "a")],
        }
        for number in range(size)
    ]
    resource = {"attributes": [text("service.name", "a")]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}).encode()
