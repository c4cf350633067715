"""`scale`, `restart`, `register` and `deregister` ask for what was said and tell what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh

from meshctl.api.server import serve
from meshctl.errors import NotFoundError, RejectedError
from meshctl.wire.models import RegisterRequest, RestartRequest, ScaleRequest


def test_scale_sets_one_version_after_another(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("scale", "checkout/v2=3", "payment=0")
    assert done.shown == (
        "--- exit 0\n--- stdout\n--- stderr\n"
        "checkout/v2: 2 -> 3; applied to 2/2 sidecars in 12 ms\n"
        "payment/: 2 -> 0; applied to 2/2 sidecars in 12 ms\n"
    )
    assert served.backend.asked == [
        ("scale", ScaleRequest(service="checkout", version="v2", replicas=3)),
        ("scale", ScaleRequest(service="payment", version="", replicas=0)),
    ]


def test_scale_prints_json(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("scale", "checkout/v2=3", "-o", "json")
    assert json.loads(done.stdout) == {
        "message": "checkout/v2: 2 -> 3",
        "acked": 2,
        "total": 2,
        "duration_ms": 12.0,
    }
    assert done.stderr == ""


@pytest.mark.parametrize(
    "word", ["checkout", "checkout=", "checkout=-1", "checkout=x", "=3", "checkout/=3", "a=\u00b2"]
)
def test_one_wrong_word_scales_nothing(served: ServedMesh, run_cli: RunCli, word: str) -> None:
    done = run_cli("scale", "payment=2", word)
    assert done.code == 2
    assert "write SERVICE=N or SERVICE/VERSION=N" in done.stderr
    assert served.backend.asked == []


def test_a_refusal_of_the_mesh_is_shown_with_its_hint(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.failures["scale"] = NotFoundError("checkout has no version v9", hint="its versions: v1, v2")
    done = run_cli("scale", "checkout/v9=1")
    assert done.shown == (
        "--- exit 1\n--- stdout\n--- stderr\nerror: checkout has no version v9\nhint: its versions: v1, v2\n"
    )


def test_restart_takes_services_and_instances(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("restart", "payment", "checkout-v1-1")
    assert done.stderr == "restarted payment, checkout-v1-1; applied to 2/2 sidecars in 12 ms\n"
    assert served.backend.asked == [("restart", RestartRequest(targets=["payment", "checkout-v1-1"]))]


def test_restart_without_names_means_all(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("restart", "-q").shown == "--- exit 0\n--- stdout\n--- stderr\n"
    assert served.backend.asked == [("restart", RestartRequest(targets=[]))]


def test_a_rejection_by_a_sidecar_is_a_failure(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.failures["restart"] = RejectedError("the sidecar of payment refused it", detail="bad port")
    done = run_cli("restart")
    assert (done.code, "bad port" in done.stderr) == (1, True)


def test_register_prints_the_id_for_scripts(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("register", "payment", "--address", "127.0.0.1:9000", "--version", "v2")
    assert done.shown == (
        "--- exit 0\n--- stdout\npayment-r1\n--- stderr\n"
        "registered 127.0.0.1:9000 as payment v2, until it is deregistered\n"
    )
    assert served.backend.asked == [
        ("register", RegisterRequest(service="payment", address="127.0.0.1:9000", version="v2", ttl=None))
    ]


def test_register_takes_a_ttl_and_prints_json(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("register", "payment", "--address", "localhost:9000", "--ttl", "1m", "-o", "json")
    assert json.loads(done.stdout) == {
        "id": "payment-r1",
        "service": "payment",
        "version": "v1",
        "expires_at": 1_770_000_060.0,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("--address", "9000"),
        ("--address", ":9000"),
        ("--address", "localhost:0"),
        ("--address", "localhost:70000"),
        ("--address", "localhost:http"),
        ("--address", "localhost:1", "--ttl", "soon"),
        ("--address", "localhost:1", "--ttl", "10ms"),
    ],
)
def test_wrong_addresses_and_ttls_register_nothing(
    served: ServedMesh, run_cli: RunCli, arguments: tuple[str, ...]
) -> None:
    assert run_cli("register", "payment", *arguments).code == 2
    assert served.backend.asked == []


def test_deregister_takes_several_ids(served: ServedMesh, run_cli: RunCli) -> None:
    run_cli("register", "payment", "--address", "127.0.0.1:9000")
    run_cli("register", "checkout", "--address", "127.0.0.1:9001")
    done = run_cli("deregister", "payment-r1", "checkout-r1")
    assert (done.code, served.backend.instances.registrations) == (0, {})
    assert "deregistered payment-r1; applied to 2/2 sidecars in 12 ms" in done.stderr


def test_deregister_of_an_unknown_id_fails(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("deregister", "payment-r9")
    assert (done.code, "no registration payment-r9" in done.stderr) == (1, True)


@pytest.fixture
def keep_alive(served: ServedMesh, project: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts `register --keep-alive` in a process of its own and waits until it has registered."""

    def start() -> subprocess.Popen[str]:
        words = ["register", "payment", "--address", "127.0.0.1:9000", "--ttl", "1s", "--keep-alive"]
        child = subprocess.Popen(
            [sys.executable, "-m", "meshctl", *words],
            cwd=project,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "payment-r1\n"
        return child

    started: list[subprocess.Popen[str]] = []
    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.communicate()


def read_until(child: subprocess.Popen[str], text: str) -> None:
    """Read what it says until a line has the text."""
    assert child.stderr is not None
    for line in child.stderr:
        if text in line:
            return
    pytest.fail(f"it ended without {text!r}")


async def _wait_asked(served: ServedMesh, name: str, times: int) -> None:
    while sum(asked == name for asked, _ in served.backend.asked) < times:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_keep_alive_renews_until_a_signal_and_then_deregisters(
    served: ServedMesh, keep_alive: Callable[[], subprocess.Popen[str]], signum: signal.Signals, code: int
) -> None:
    child = keep_alive()
    served.do(_wait_asked(served, "heartbeat", 2))
    child.send_signal(signum)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert served.backend.instances.registrations == {}
    assert "renewing it every 0.333333 s; Ctrl+C deregisters it" in err
    assert err.endswith("deregistered payment-r1\n")


def test_keep_alive_deregisters_when_it_is_interrupted_as_soon_as_it_has_told_the_id(
    served: ServedMesh, keep_alive: Callable[[], subprocess.Popen[str]]
) -> None:
    child = keep_alive()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.endswith("deregistered payment-r1\n")
    assert served.backend.instances.registrations == {}


def test_keep_alive_registers_again_when_the_mesh_has_forgotten_it(
    served: ServedMesh, keep_alive: Callable[[], subprocess.Popen[str]]
) -> None:
    child = keep_alive()
    served.backend.instances.registrations.clear()
    served.do(_wait_asked(served, "register", 2))
    served.do(_wait_asked(served, "heartbeat", 3))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert "registered again as payment-r1" in err
    assert served.backend.instances.registrations == {}


def test_keep_alive_waits_for_a_control_plane_that_has_gone(
    served: ServedMesh, keep_alive: Callable[[], subprocess.Popen[str]]
) -> None:
    child = keep_alive()
    assert served._runner is not None
    served.do(served._runner.close())
    # That there is none, or that it broke off a heartbeat that was under way.
    read_until(child, "; trying on")
    served._runner = served.do(serve(served.backend, served.paths.api_socket))
    read_until(child, "the control plane answers again")
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert served.backend.instances.registrations == {}
