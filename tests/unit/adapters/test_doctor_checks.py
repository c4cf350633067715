"""Every check of the doctor finds what it is for, says what to do, and is quiet otherwise."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.fakes.backend import make_instance, make_service, make_status

from meshctl.adapters import doctor_machine, doctor_mesh
from meshctl.adapters.doctor_checks import CHECKS, run_checks
from meshctl.adapters.doctor_context import DoctorContext, Findings
from meshctl.adapters.keeper_protocol import MARKER
from meshctl.errors import Where
from meshctl.spec.policy_schema import Policies
from meshctl.spec.schema import Gateway, Mesh, Service, Version
from meshctl.wire.models import DoctorCheck
from meshctl.wire.paths import MeshPaths, locate

NOW = datetime(2026, 2, 2, 12, tzinfo=UTC).timestamp()
HERE = Where("mesh.yaml", 3, 5)


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A short private folder for sockets."""
    folder = tempfile.mkdtemp(prefix="mt-", dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def paths(tmp_path: Path, runtime: Path) -> MeshPaths:
    return locate(str(tmp_path), environ={"XDG_RUNTIME_DIR": str(runtime)}, uid=os.getuid())


def make_context(paths: MeshPaths, **changes: object) -> DoctorContext:
    values: dict[str, object] = {
        "environ": {"PATH": os.environ["PATH"]},
        "uid": os.getuid(),
        "now": NOW,
        "paths": paths,
    }
    return DoctorContext(**{**values, **changes})  # type: ignore[arg-type]


def make_mesh(
    *,
    command: tuple[str, ...] = ("sh",),
    folder: str = "/",
    port: int | None = None,
    replicas: int = 1,
    gateway_port: int | None = None,
) -> Mesh:
    version = Version(name="v1", command=command, env={}, working_dir=folder, port=port, replicas=replicas, where=HERE)
    service = Service(
        name="web",
        versions={"v1": version},
        stable="v1",
        split={"v1": 100},
        depends_on={},
        policies=Policies(),
        where=HERE,
    )
    gateway = None
    if gateway_port is not None:
        gateway = Gateway(port=gateway_port, host="127.0.0.1", routes=(), where=HERE)
    return Mesh(
        name="shop",
        directory="/",
        trust_domain="shop.mesh",
        egress="allow_any",
        gateway=gateway,
        services={"web": service},
    )


def only(findings: Findings) -> DoctorCheck:
    (finding,) = findings
    return finding


async def test_all_checks_work_without_mesh_and_topology(paths: MeshPaths) -> None:
    report = await run_checks(make_context(paths))
    assert report.ok
    assert {"envoy", "python", "sockets", "disk", "clock"} <= {check.name for check in report.checks}
    assert not Path(paths.state).exists()
    assert not Path(paths.runtime).exists()


async def test_whatever_is_not_ok_says_what_to_do(paths: MeshPaths) -> None:
    context = make_context(
        paths,
        environ={"MESHCTL_ENVOY": "/none", "HTTP_PROXY": "http://x", "PATH": ""},
        now=0.0,
        uid=-5,
        topology="mesh.yaml",
        problems=2,
    )
    report = await run_checks(context)
    assert not report.ok
    assert all(check.fix for check in report.checks if check.level != "ok")
    assert all(not check.fix for check in report.checks if check.level == "ok")


def test_no_check_is_left_out_of_the_table() -> None:
    written = {
        function
        for module in (doctor_machine, doctor_mesh)
        for name, function in vars(module).items()
        if name.startswith("check_") and function.__module__ == module.__name__
    }
    assert written == set(CHECKS)


async def test_a_missing_envoy_is_an_error(paths: MeshPaths) -> None:
    found = only(await doctor_machine.check_envoy(make_context(paths, environ={"MESHCTL_ENVOY": "/none"})))
    assert found.level == "error"
    assert "/none" in found.message


async def test_an_old_envoy_is_a_warning(paths: MeshPaths, tmp_path: Path) -> None:
    old = tmp_path / "envoy"
    old.write_text("#!/bin/sh\necho 'envoy  version: 9e55/1.29.3/Clean/RELEASE/BoringSSL'\n")
    old.chmod(0o755)
    found = only(await doctor_machine.check_envoy(make_context(paths, environ={"MESHCTL_ENVOY": str(old)})))
    assert (found.level, "1.29.3" in found.message) == ("warning", True)


@pytest.mark.parametrize(
    ("soft", "replicas", "level"),
    [(20_000, 1, "ok"), (resource.RLIM_INFINITY, 1, "ok"), (256, 1, "warning"), (256, 100, "error")],
)
def test_the_limit_of_open_files_is_weighed_against_the_topology(
    paths: MeshPaths, monkeypatch: pytest.MonkeyPatch, soft: int, replicas: int, level: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 524_288))
    mesh = make_mesh(replicas=replicas)
    assert only(doctor_machine.check_open_files(make_context(paths, mesh=mesh))).level == level


@pytest.mark.parametrize(("free", "level"), [(5 * 10**9, "ok"), (500 * 10**6, "warning"), (10**6, "error")])
def test_little_room_on_the_disk_is_reported(
    paths: MeshPaths, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert only(doctor_machine.check_disk(make_context(paths))).level == level


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "ok"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "warning"),
        ({"http_proxy": "http://proxy:3128", "NO_PROXY": "example.com"}, "warning"),
        ({"http_proxy": "http://proxy:3128", "NO_PROXY": "localhost, 127.0.0.1"}, "ok"),
        ({"ALL_PROXY": "socks5://proxy", "no_proxy": "*"}, "ok"),
    ],
)
def test_proxy_variables_must_spare_this_machine(paths: MeshPaths, environ: dict[str, str], level: str) -> None:
    assert only(doctor_machine.check_proxy_variables(make_context(paths, environ=environ))).level == level


@pytest.mark.parametrize("year", [1970, 2019, 2130])
def test_an_absurd_year_is_an_error(paths: MeshPaths, year: int) -> None:
    now = datetime(year, 3, 1, tzinfo=UTC).timestamp()
    found = only(doctor_machine.check_clock(make_context(paths, now=now)))
    assert (found.level, str(year) in found.message) == ("error", True)


def write_certificate(path: Path, not_before: float) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.fromtimestamp(not_before, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(("ahead", "level"), [(-3600.0, "ok"), (30.0, "ok"), (3600.0, "error")])
def test_a_certificate_from_the_future_is_an_error(paths: MeshPaths, ahead: float, level: str) -> None:
    write_certificate(Path(paths.ca) / "shop.mesh" / "leafs" / "checkout.pem", NOW + ahead)
    assert only(doctor_machine.check_clock(make_context(paths))).level == level


def test_state_from_the_future_is_a_warning(paths: MeshPaths) -> None:
    Path(paths.state).mkdir()
    Path(paths.database).touch()
    os.utime(paths.database, (NOW + 3600, NOW + 3600))
    assert only(doctor_machine.check_clock(make_context(paths))).level == "warning"


def test_an_invalid_topology_is_an_error_with_its_count(paths: MeshPaths) -> None:
    found = only(doctor_mesh.check_topology(make_context(paths, topology="mesh.yaml", problems=1)))
    assert (found.level, found.message) == ("error", "mesh.yaml has 1 problem")


def test_programs_and_folders_of_services_must_exist(paths: MeshPaths, tmp_path: Path) -> None:
    def check(**changes: object) -> DoctorCheck:
        return only(doctor_mesh.check_commands(make_context(paths, mesh=make_mesh(**changes))))  # type: ignore[arg-type]

    assert check(command=("sh", "-c", "true")).level == "ok"
    missing = check(command=("pythn", "app.py"))
    assert (missing.level, missing.message) == ("error", "pythn is not an executable on the PATH")
    assert "mesh.yaml:3:5" in missing.fix
    assert check(folder=str(tmp_path / "none")).level == "error"
    script = tmp_path / "run"
    script.write_text("#!/bin/sh\n")
    assert check(command=("./run",), folder=str(tmp_path)).level == "error"
    script.chmod(0o755)
    assert check(command=("./run",), folder=str(tmp_path)).level == "ok"


def test_the_python_of_meshctl_serves_services_on_machines_without_one(paths: MeshPaths, tmp_path: Path) -> None:
    mesh = make_mesh(command=(Path(sys.executable).name, "app.py"))
    assert (
        only(doctor_mesh.check_commands(make_context(paths, mesh=mesh, environ={"PATH": str(tmp_path)}))).level == "ok"
    )


@pytest.fixture
def held() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_fixed_port_held_by_another_process_is_an_error(paths: MeshPaths, held: int) -> None:
    found = only(doctor_mesh.check_ports(make_context(paths, mesh=make_mesh(gateway_port=held))))
    assert found.level == "error"
    assert f"(pid {os.getpid()})" in found.message
    assert found.fix == f"Stop it (`kill {os.getpid()}`), or choose another `gateway.port` (mesh.yaml:3:5)."


def test_a_port_held_by_the_mesh_itself_is_fine(paths: MeshPaths, held: int) -> None:
    status = make_status(services=[make_service("web", [make_instance("web-v1-1", pid=os.getpid())])])
    found = only(doctor_mesh.check_ports(make_context(paths, mesh=make_mesh(port=held), status=status)))
    assert (found.level, "held by this mesh" in found.message) == ("ok", True)


def test_every_replica_of_a_fixed_port_is_checked(paths: MeshPaths, held: int) -> None:
    findings = doctor_mesh.check_ports(make_context(paths, mesh=make_mesh(port=held - 1, replicas=2)))
    assert (findings[1].name, findings[1].level) == (f"port {held}", "error")


def test_a_topology_without_fixed_ports_has_nothing_to_check(paths: MeshPaths) -> None:
    assert only(doctor_mesh.check_ports(make_context(paths, mesh=make_mesh()))).level == "ok"
    assert doctor_mesh.check_ports(make_context(paths)) == []


def test_socket_paths_must_fit_the_limit_of_the_system(tmp_path: Path) -> None:
    paths = MeshPaths(str(tmp_path), f"/tmp/{'x' * 100}")
    found = only(doctor_mesh.check_sockets(make_context(paths)))
    assert (found.level, "too long" in found.message) == ("error", True)


def test_the_runtime_directory_must_be_private_and_ones_own(paths: MeshPaths) -> None:
    folder = Path(paths.runtime)
    folder.mkdir(parents=True, mode=0o700)
    assert only(doctor_mesh.check_sockets(make_context(paths))).level == "ok"
    assert only(doctor_mesh.check_sockets(make_context(paths, uid=os.getuid() + 1))).level == "error"
    folder.chmod(0o755)
    found = only(doctor_mesh.check_sockets(make_context(paths)))
    assert (found.level, found.fix) == ("error", f"Run `chmod 700 {folder}`.")


def test_the_trial_socket_is_removed(paths: MeshPaths, runtime: Path) -> None:
    assert only(doctor_mesh.check_sockets(make_context(paths))).level == "ok"
    assert list(runtime.iterdir()) == []


def test_a_running_control_plane_is_named(paths: MeshPaths) -> None:
    found = only(doctor_mesh.check_state(make_context(paths, status=make_status())))
    assert (found.level, found.message) == ("ok", "mesh shop is degraded (pid 2000000000)")


def test_processes_without_a_control_plane_are_a_warning(paths: MeshPaths) -> None:
    context = make_context(paths)
    marked = {**os.environ, MARKER: f"{context.paths.tag}/checkout-v1-1"}
    foreign = {**os.environ, MARKER: "00000000/checkout-v1-1"}
    code = "print(flush=True); input()"
    children = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for env in (marked, foreign)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        found = only(doctor_mesh.check_state(context))
        assert found.level == "warning"
        assert "1 process of the mesh runs on: checkout-v1-1" in found.message
    finally:
        for child in children:
            child.communicate(b"\n", timeout=60)


def test_sockets_that_nobody_serves_are_a_warning(paths: MeshPaths) -> None:
    Path(paths.runtime).mkdir(parents=True)
    assert only(doctor_mesh.check_state(make_context(paths))).level == "ok"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(paths.api_socket)
    found = only(doctor_mesh.check_state(make_context(paths)))
    assert (found.level, paths.api_socket in found.message) == ("warning", True)
