"""Taking the mesh down cuts no request that is under way."""

from __future__ import annotations

import threading

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import PATIENT, active_requests, ask, look, make_gateway, make_service

pytestmark = pytest.mark.e2e


def test_a_request_under_way_is_answered_before_the_gateway_goes(mesh: MeshUnderTest) -> None:
    gateway = make_gateway("web")
    mesh.write({"name": "calm", "gateway": gateway, "defaults": PATIENT, "services": {"web": make_service()}})
    mesh.up()
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(ask(gateway["port"], "/wait/done")[0]))
    asking.start()
    try:
        wait_until(lambda: active_requests(mesh, "web") == 1, "the service has the request")
        down = mesh.start("down")
        wait_until(lambda: look(mesh)["state"] == "stopping", "the mesh is being stopped")
    finally:
        (mesh.folder / "done").touch()
    _, complaint = down.communicate(timeout=60)
    assert down.returncode == 0, complaint
    asking.join(60)
    assert answers == [200]
    assert mesh.processes() == []
