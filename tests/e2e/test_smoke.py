"""The mesh comes up, carries a request with the caller's identity, and goes without a trace."""

from __future__ import annotations

import json
import sys

import pytest
from tests.e2e.harness import SERVICES, MeshUnderTest

pytestmark = pytest.mark.e2e

ECHO = [sys.executable, str(SERVICES / "echo.py")]


def test_a_request_crosses_two_sidecars_with_the_callers_identity(mesh: MeshUnderTest) -> None:
    mesh.write({"name": "smoke", "services": {"a": {"command": ECHO, "upstreams": ["b"]}, "b": {"command": ECHO}}})
    mesh.up()
    answer = mesh.call("b/x", "--from", "a")
    assert (answer["status"], answer["instance"], answer["version"]) == (200, "b-v1-1", "v1")
    assert "URI=spiffe://smoke.mesh/a" in json.loads(answer["body"])["headers"]["x-forwarded-client-cert"]
    mesh.must("down")
    assert mesh.processes() == []
