"""``up`` and ``down`` with a control plane in a process of its own, as they meet it in life."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import make_event, make_line

from meshctl.cli import daemon
from meshctl.wire.models import ReadyResult
from meshctl.wire.paths import MeshPaths

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "support" / "fake_daemon.py"

UseDaemon = Callable[[str], None]


def _fakes() -> list[psutil.Process]:
    """Fake control planes that are alive, by their command lines and this test's folder."""
    here = str(Path.cwd().resolve())
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if str(FAKE) in words and here in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture
def use_daemon(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UseDaemon]:
    """Let ``up`` start a fake control plane of a mode; whatever is left of it ends with the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def use(mode: str) -> None:
        monkeypatch.setattr(daemon, "DAEMON_ARGV", (sys.executable, str(FAKE), mode))

    yield use
    for process in _fakes():
        process.kill()


def _mask(text: str) -> str:
    return re.sub(r"\d+\.\d s", "0.0 s", text)


def test_up_detached_starts_the_control_plane_and_returns(use_daemon: UseDaemon, run_cli: RunCli) -> None:
    use_daemon("ok")
    assert run_cli("up", "-d").shown == (
        "--- exit 0\n--- stdout\n--- stderr\nstarted 3 services\n"
        "shop runs; gateway http://127.0.0.1:8080; `meshctl status` shows it, `meshctl down` stops it\n"
    )
    assert len(_fakes()) == 1
    assert run_cli("status").code == 0


def test_up_makes_a_private_state_folder_that_git_ignores(use_daemon: UseDaemon, run_cli: RunCli) -> None:
    use_daemon("ok")
    run_cli("up", "-d")
    assert Path(".meshctl").stat().st_mode & 0o777 == 0o700
    assert Path(".meshctl/.gitignore").read_text() == "*\n"


def test_down_returns_when_the_control_plane_is_gone(use_daemon: UseDaemon, run_cli: RunCli) -> None:
    use_daemon("ok")
    run_cli("up", "-d")
    outcome = run_cli("down")
    assert outcome.shown == "--- exit 0\n--- stdout\n--- stderr\nshop is down\n"
    assert _fakes() == []
    assert run_cli("down").code == 3


def test_up_wait_says_when_all_is_ready(use_daemon: UseDaemon, run_cli: RunCli) -> None:
    use_daemon("ok")
    outcome = run_cli("up", "--wait")
    assert outcome.code == 0
    assert _mask(outcome.stderr).splitlines()[-1] == (
        "shop is ready: 3 services, 4 sidecars in sync, 0.0 s; gateway http://127.0.0.1:8080"
    )


def test_a_service_that_does_not_come_up_is_shown_and_everything_taken_down(
    use_daemon: UseDaemon, run_cli: RunCli, project: Path
) -> None:
    use_daemon("fails")
    outcome = run_cli("up", "--wait")
    assert outcome.code == 1
    assert outcome.stderr.endswith(
        f"""\
error: payment-v1-1 did not come up: exited with 1 before it was ready
  exit code: 1
  last lines of its output:
    Traceback (most recent call last):
    KeyError: 'PAYMENT_KEY'
  log: {project}/.meshctl/logs/payment-v1-1.log
stopping what was started
"""
    )
    assert _fakes() == []


def test_a_wait_that_takes_too_long_is_exit_4_and_names_what_was_awaited(
    use_daemon: UseDaemon, run_cli: RunCli
) -> None:
    use_daemon("slow")
    outcome = run_cli("up", "--wait", "--wait-timeout", "2m")
    assert outcome.code == 4
    assert "  payment-v1-1: starting\n" in outcome.stderr
    assert len(_fakes()) == 1


def test_a_topology_that_is_refused_leaves_nothing_running(use_daemon: UseDaemon, run_cli: RunCli) -> None:
    use_daemon("refuses")
    assert run_cli("up", "-d").shown == (
        "--- exit 1\n--- stdout\n--- stderr\n"
        "error: port 8080 is held by nginx (pid 7)\nhint: stop it, or change the port\n"
    )
    assert _fakes() == []


def test_a_control_plane_that_does_not_start_shows_the_end_of_its_log(
    use_daemon: UseDaemon, run_cli: RunCli, project: Path
) -> None:
    use_daemon("crash")
    assert run_cli("up").shown == (
        "--- exit 1\n--- stdout\n--- stderr\n"
        "error: the control plane ended with exit code 1\n"
        "  ERROR meshctl: no Envoy binary for this machine\n"
        f"hint: the whole log: {project}/.meshctl/logs/daemon.log\n"
    )


def test_a_broken_file_starts_nothing(use_daemon: UseDaemon, run_cli: RunCli, project: Path) -> None:
    use_daemon("ok")
    (project / "mesh.yaml").write_text("services:\n  a: {comand: x}\n")
    outcome = run_cli("up", "-d")
    assert outcome.code == 2
    assert outcome.stderr.startswith("mesh.yaml:2:7: error:")
    assert "  2 |   a: {comand: x}\n    |       ^\n" in outcome.stderr
    assert not (project / ".meshctl").exists()


def test_a_service_that_does_not_exist_starts_nothing(use_daemon: UseDaemon, run_cli: RunCli) -> None:
    use_daemon("ok")
    outcome = run_cli("up", "-d", "paymnt")
    assert (outcome.code, _fakes()) == (1, [])
    assert outcome.stderr == ("error: no service paymnt in shop\nhint: services: checkout, frontend, payment\n")


def test_up_on_a_running_mesh_says_what_changed_and_failing_leaves_it_running(
    served: ServedMesh, run_cli: RunCli
) -> None:
    served.backend.changes = []
    assert run_cli("up", "-d", "checkout").stderr.startswith("nothing changed\n")
    served.backend.readiness = ReadyResult(state="failed", failures=[], waiting=[])
    outcome = run_cli("up", "--wait")
    assert (outcome.code, outcome.stderr.splitlines()[-1]) == (
        1,
        "the mesh ran before and runs on: `meshctl status` shows it",
    )
    assert "down" not in [name for name, _ in served.backend.asked]


def test_what_happened_before_all_was_ready_is_told_though_the_answer_came_first(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ready(timeout: float | None) -> ReadyResult:
        # Nobody who follows is woken: their news comes later than the answer.
        events = served.backend.event_list
        seq = events[-1].seq if events else 0
        events.append(make_event(seq + 1, "payment-v1-1 ready after 0.3 s", subject="payment-v1-1"))
        events.append(make_event(seq + 2, "rollout 1 begins", subject="payment", kind="rollout.begin"))
        return ReadyResult(state="ready", failures=[], waiting=[])

    monkeypatch.setattr(served.backend, "ready", ready)
    outcome = run_cli("up", "--wait")
    assert outcome.code == 0
    assert [line for line in outcome.stderr.splitlines() if "after 0.3 s" in line or "rollout" in line] == [
        "payment-v1-1   ready after 0.3 s"
    ]


def test_up_sends_files_and_only_the_variables_they_name(
    served: ServedMesh, run_cli: RunCli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mesh.yaml").write_text("services:\n  a: {command: 'x ${ONE} ${TWO:-2} ${THREE}'}\n")
    (project / ".env").write_text("ONE=from file\nTHREE=3\nFOUR=4\n")
    monkeypatch.setenv("ONE", "from environment")
    assert run_cli("up", "-d").code == 0
    request = dict(served.backend.asked)["up"]
    assert request.variables == {"ONE": "from environment", "THREE": "3"}
    assert [file.path for file in request.files] == ["mesh.yaml"]


def test_down_stops_what_a_dead_control_plane_left(
    use_daemon: UseDaemon, run_cli: RunCli, project: Path, paths_of: Callable[[Path], MeshPaths]
) -> None:
    use_daemon("ok")
    record = Path(paths_of(project).runtime) / "processes" / "checkout-v1-1.x.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert run_cli("status").stderr == (
        f"error: the control plane of {project} is not running, but its services may be\n"
        "hint: `meshctl up` takes over what runs, `meshctl down` stops it\n"
    )
    assert run_cli("down").shown == (
        "--- exit 0\n--- stdout\n--- stderr\n"
        "the control plane is not running; stopping what it left\nthe mesh is down\n"
    )
    assert not record.exists()


def test_down_on_nothing_is_exit_3(project: Path, run_cli: RunCli) -> None:
    assert run_cli("down").shown == (
        f"--- exit 3\n--- stdout\n--- stderr\nerror: no mesh runs in {project}\nhint: `meshctl up` starts it\n"
    )


def test_up_tells_what_commands_set_otherwise_and_gives_it_up_on_demand(
    served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    line = "payment timeout: 1s (revision 7, ann@apply) differs from 2s in mesh.yaml:12:14"
    served.backend.changes, served.backend.differs = [], [line]
    done = run_cli("up", "-d")
    assert done.stderr.splitlines()[:3] == ["nothing changed", line, "`meshctl up --reset` takes what the files say"]
    request = dict(served.backend.asked)["up"]
    assert (request.author, request.reset) == ("ann@up", False)
    served.backend.differs = ["cart timeout: given up (revision 7, ann@apply), because the files have no service cart"]
    served.backend.asked.clear()
    assert "--reset" not in run_cli("up", "-d", "--reset").stderr
    assert dict(served.backend.asked)["up"].reset


def test_up_tells_of_rollouts_and_does_not_advise_to_undo_them(served: ServedMesh, run_cli: RunCli) -> None:
    note = "checkout: v2 has all of the traffic, since rollout 1 promoted it"
    served.backend.changes, served.backend.notes = [], [note]
    done = run_cli("up", "-d")
    assert done.stderr.splitlines()[:2] == ["nothing changed", note]
    assert "takes what the files say" not in done.stderr


def test_down_force_is_passed_on(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("down", "--force", "--yes").code == 0
    assert ("down", True) in served.backend.asked


# ------------------------------------------------------------------------------------------ attached


class Attached:
    """``meshctl up`` as a process of its own, whose output is read line by line."""

    def __init__(self, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshctl", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.seen: list[str] = []

    def wait_for(self, text: str) -> None:
        """Read until a line has the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(line.rstrip("\n"))
            if text in line:
                return
        pytest.fail(f"no {text!r} in {self.seen}")

    def interrupt(self) -> None:
        os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        assert self.process.stdout is not None
        self.seen += self.process.stdout.read().splitlines()
        return self.process.wait(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def attach() -> Iterator[Callable[..., Attached]]:
    started: list[Attached] = []

    def start(*args: str) -> Attached:
        started.append(Attached(*args))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_attached_lines_are_aligned_and_events_are_among_them(
    served: ServedMesh, attach: Callable[..., Attached]
) -> None:
    up = attach("up")
    up.wait_for("is ready")
    served.do(served.backend.add_line(make_line("payment-v1-1", "hello")))
    up.wait_for("hello")
    assert up.seen[-1] == "payment-v1-1  | hello"
    served.do(served.backend.add_event(make_event(7, "checkout-v1-1 ready")))
    up.wait_for("checkout-v1-1  ready")
    assert up.seen[-1] == "meshctl       | checkout-v1-1  ready"


def test_ctrl_c_stops_the_mesh_gracefully_and_exits_with_130(
    served: ServedMesh, attach: Callable[..., Attached]
) -> None:
    up = attach("up")
    up.wait_for("is ready")
    up.interrupt()
    assert up.end() == 130
    assert "stopping gracefully, press Ctrl+C again to force" in up.seen
    assert [what for name, what in served.backend.asked if name == "down"] == [False]


def test_the_last_lines_and_events_are_shown_while_the_mesh_stops(
    served: ServedMesh, attach: Callable[..., Attached]
) -> None:
    served.backend.hold_down = True
    up = attach("up")
    up.wait_for("is ready")
    up.interrupt()
    _wait_until(lambda: ("down", False) in served.backend.asked)
    served.do(served.backend.add_line(make_line("checkout-v1-1", "good-bye")))
    served.do(served.backend.add_event(make_event(9, "stopped", subject="checkout-v1-1")))
    served.do(served.backend.finish())
    assert up.end() == 130
    assert "checkout-v1-1 | good-bye" in up.seen
    assert "meshctl       | checkout-v1-1  stopped" in up.seen


def test_a_second_ctrl_c_forces(served: ServedMesh, attach: Callable[..., Attached]) -> None:
    served.backend.hold_down = True
    up = attach("up")
    up.wait_for("is ready")
    up.interrupt()
    up.wait_for("stopping gracefully")
    _wait_until(lambda: ("down", False) in served.backend.asked)
    up.interrupt()
    assert up.end() == 130
    assert [what for name, what in served.backend.asked if name == "down"] == [False, True]


def test_ctrl_c_while_waiting_leaves_a_mesh_that_ran_before(
    served: ServedMesh, attach: Callable[..., Attached]
) -> None:
    served.backend.hold_ready = True
    up = attach("up", "--wait")
    _wait_until(lambda: "ready" in [name for name, _ in served.backend.asked])
    up.interrupt()
    assert up.end() == 130
    assert "down" not in [name for name, _ in served.backend.asked]


def test_a_mesh_stopped_from_elsewhere_ends_the_attachment_with_0(
    served: ServedMesh, attach: Callable[..., Attached]
) -> None:
    up = attach("up")
    up.wait_for("is ready")
    served.do(served.backend.finish())
    assert up.end() == 0
    assert up.seen[-1] == "the mesh was stopped"


def test_a_control_plane_that_is_killed_ends_the_attachment_with_1_and_a_hint(
    use_daemon: UseDaemon, run_cli: RunCli, attach: Callable[..., Attached]
) -> None:
    use_daemon("ok")
    run_cli("up", "-d")
    up = attach("up")
    up.wait_for("is ready")
    for process in _fakes():
        process.kill()
    assert up.end() == 1
    assert up.seen[-2:] == [
        "error: the control plane ended unexpectedly; services and sidecars go on",
        "hint: `meshctl up` takes over what runs, `meshctl down` stops it",
    ]


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
