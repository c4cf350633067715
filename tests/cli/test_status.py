"""``meshctl status``: what is shown in a pipe, on narrow terminals, in JSON, and when nothing runs."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import T0, make_instance, make_service, make_status

from meshctl.cli import status
from meshctl.wire.models import MeshStatus, decode


@pytest.fixture(autouse=True)
def _still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "read_clock", lambda: T0 + 190)


def test_a_pipe_gets_every_column(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("status").shown == (
        """\
--- exit 0
--- stdout
shop: degraded  gateway http://127.0.0.1:8080
SERVICE   VERSION  INSTANCE       STATE    HEALTH      PID   PORT  RESTARTS  CONFIG      AGE
checkout  v1 90%   checkout-v1-1  ready    healthy    4001  20001         0  synced    3m10s
checkout  v2 10%   checkout-v2-1  ready    healthy    4002  20002         1  synced    3m10s
frontend  v1       frontend-v1-1  ready    healthy    4003  20003         0  synced    3m10s
payment   v1       payment-v1-1   backoff  unhealthy     -  20004         3  rejected      -

payment-v1-1: exited with 1; next try in 2.0 s
sidecar of payment: configuration rejected: Proto constraint validation failed
--- stderr
"""
    )


def test_sixty_columns_keep_what_matters(served: ServedMesh, run_cli: RunCli) -> None:
    shown = run_cli("ps", width=60)
    assert shown.shown == (
        """\
--- exit 0
--- stdout
shop: degraded  gateway http://127.0.0.1:8080
SERVICE   INSTANCE       STATE    HEALTH     CONFIG
checkout  checkout-v1-1  ready    healthy    synced
checkout  checkout-v2-1  ready    healthy    synced
frontend  frontend-v1-1  ready    healthy    synced
payment   payment-v1-1   backoff  unhealthy  rejected

payment-v1-1: exited with 1; next try in 2.0 s
sidecar of payment: configuration rejected: Proto constraint validation failed
--- stderr
"""
    )


def test_twenty_columns_cut_the_widest_column(served: ServedMesh, run_cli: RunCli) -> None:
    lines = run_cli("-q", "status", width=20).stdout.splitlines()
    assert lines[0] == "SERVICE   INS…  STATE"
    assert len(lines) == 5


def test_wide_adds_ports_pids_and_identities(served: ServedMesh, run_cli: RunCli) -> None:
    first = run_cli("status", "-o", "wide", "checkout").stdout.splitlines()[2]
    assert first.split()[-5:] == ["127.0.0.1", "20011", "4101", "payment:20021", "spiffe://shop.mesh/checkout"]


def test_json_is_the_wire_shape(served: ServedMesh, run_cli: RunCli) -> None:
    outcome = run_cli("status", "-o", "json")
    assert decode(outcome.stdout.encode(), MeshStatus) == served.backend.mesh
    assert (outcome.code, outcome.stderr) == (0, "")


def test_json_of_one_service_has_only_that(served: ServedMesh, run_cli: RunCli) -> None:
    shown = json.loads(run_cli("status", "frontend", "-o", "json").stdout)
    assert [service["name"] for service in shown["services"]] == ["frontend"]


def test_an_unknown_service_is_named_with_those_that_exist(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("status", "frontent").shown == (
        "--- exit 1\n--- stdout\n--- stderr\nerror: no service frontent\nhint: services: checkout, frontend, payment\n"
    )


def test_external_services_and_those_without_instances_have_a_row(served: ServedMesh, run_cli: RunCli) -> None:
    bank = make_service("bank", [], kind="external", sidecar=None, identity="", health="unknown")
    later = make_service("later", [], kind="registered", state="pending", health="unknown")
    done = make_service("seed", [make_instance("seed-v1-1", state="completed", pid=None, port=None, exit_code=0)])
    served.backend.mesh = make_status(services=[bank, later, done], gateway=None, state="ready")
    assert run_cli("status", width=100).stdout == (
        """\
shop: ready
SERVICE  VERSION  INSTANCE   STATE      HEALTH   PID  PORT  RESTARTS  CONFIG    AGE
bank     -        -          external   unknown    -     -         -  -           -
later    -        -          pending    unknown    -     -         -  synced      -
seed     v1       seed-v1-1  completed  healthy    -     -         0  synced  3m10s
"""
    )


def test_a_mesh_that_has_just_begun_has_a_header_only(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.mesh = msgspec.structs.replace(
        make_status(), mesh="", state="starting", services=[], gateway=None, directory="/mesh"
    )
    assert run_cli("status").stdout == "/mesh: starting\n"


def test_nothing_running_is_exit_3(project: Path, run_cli: RunCli) -> None:
    assert run_cli("status").shown == (
        f"--- exit 3\n--- stdout\n--- stderr\nerror: no mesh runs in {project}\nhint: `meshctl up` starts it\n"
    )


def test_no_escape_sequences_without_a_terminal(served: ServedMesh, run_cli: RunCli) -> None:
    assert "\x1b" not in run_cli("status").stdout
