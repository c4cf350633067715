"""Taking the mesh down cuts no request that is under way."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from tests.e2e.harness import SERVICES, MeshUnderTest, wait_until
from tests.e2e.processes import ask, free_port

from meshctl.adapters.envoy_admin import EnvoyAdmin

pytestmark = pytest.mark.e2e

_ACTIVE = "/stats?filter=^http.gateway.downstream_rq_active$"


def test_a_request_under_way_is_answered_before_the_gateway_goes(mesh: MeshUnderTest) -> None:
    port = free_port()
    gateway = {"port": port, "routes": [{"path": "/", "service": "web"}]}
    mesh.write(
        {
            "name": "calm",
            "gateway": gateway,
            "services": {"web": {"command": [sys.executable, str(SERVICES / "echo.py")]}},
        }
    )
    mesh.up()
    socket = mesh.paths.admin_socket("gateway")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(ask(port, "/sleep/0.8")[0]))
    asking.start()
    wait_until(lambda: "rq_active: 1" in asyncio.run(EnvoyAdmin().get(socket, _ACTIVE)), "a request under way")
    mesh.must("down")
    asking.join(10)
    assert answers == [200]
    assert mesh.processes() == []
