"""Logs of running and stopped meshes, their rotation; folders: two meshes, and paths relative to the file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.processes import (
    MOODY,
    ask,
    assert_no_trace,
    instances,
    make_gateway,
    make_service,
    pids,
)

pytestmark = pytest.mark.e2e


def test_logs_are_followed_cut_searched_and_outlive_the_mesh(mesh: MeshUnderTest) -> None:
    mesh.write({"services": {"web": make_service(), "api": make_service()}})
    mesh.up()
    ports = {name: item["port"] for name, item in instances(mesh).items()}

    def say(name: str, word: str) -> None:
        # Lines bear the time at which they were taken: the next one is said when this one is written.
        assert ask(ports[name], f"/print/{word}")[0] == 200
        written = Path(mesh.paths.log(name))
        wait_until(lambda: f" {word}\n" in written.read_text(), f"{word} is written")

    def read(*words: str) -> list[str]:
        return [line.split()[-1] for line in mesh.must("logs", *words).splitlines()]

    for number in range(3):
        say("web-v1-1", f"web-{number}")
        say("api-v1-1", f"api-{number}")
    merged = [f"{name}-{number}" for number in range(3) for name in ("web", "api")]
    assert read() == merged
    assert read("web") == read("web-v1-1") == ["web-0", "web-1", "web-2"]
    assert read("--grep", "[wa]..-[02]$") == ["web-0", "api-0", "web-2", "api-2"]
    assert sorted(read("-n", "1")) == ["api-2", "web-2"]
    assert read("-n", "2", "api") == ["api-1", "api-2"]

    shapes = [json.loads(line) for line in mesh.must("logs", "-o", "json").splitlines()]
    assert [shape["text"] for shape in shapes] == merged
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(shapes[0]["time"] - 1))
    assert read("--since", moment) == merged
    assert read("--since", "1h", "--until", moment) == []

    # Followed: what was, then what comes, from an instance that joins later too.
    follower = mesh.start("logs", "-f", "-n", "1", "web")
    shown: list[str] = []
    assert follower.stdout is not None
    shown.append(follower.stdout.readline().split()[-1])
    say("web-v1-1", "web-3")
    shown.append(follower.stdout.readline().split()[-1])
    mesh.must("scale", "web=2")
    ports |= {name: item["port"] for name, item in instances(mesh).items()}
    say("web-v1-2", "second")
    line = follower.stdout.readline()
    assert (shown, line.split()[0].startswith("web-v1-2"), line.split()[-1]) == (["web-2", "web-3"], True, "second")
    mesh.must("restart", "web")
    say("web-v1-1", "restarted")
    assert follower.stdout.readline().split()[-1] == "restarted"

    # The mesh ends, and with it what is followed; the lines stay.
    mesh.must("down")
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, out) == (0, ""), err
    assert read("web", "--grep", "web-") == ["web-0", "web-1", "web-2", "web-3"]
    assert read("-n", "1", "api") == ["api-2"]
    unknown = mesh.run("logs", "nobody")
    assert unknown.code == 1
    assert "nobody" in unknown.err


def test_a_chatty_service_fills_no_disk_and_loses_none_of_its_last_lines(mesh: MeshUnderTest) -> None:
    # 60 MB: more than the files that are kept may hold.
    mesh.write({"services": {"chatty": make_service(FLOOD="60000")}})
    mesh.up()
    newest = Path(mesh.paths.log("chatty-v1-1"))
    # What it has said by now may still be on its way.
    wait_until(lambda: newest.exists() and b" flood 059999 " in newest.read_bytes()[-2000:], "all lines are written")
    files = sorted(newest.parent.glob(f"{newest.name}*"))
    assert len(files) == 4
    assert sum(path.stat().st_size for path in files) < 45_000_000
    lines = mesh.must("logs", "--no-prefix", "-n", "20000", "chatty").splitlines()
    assert [line.split()[1] for line in lines] == [f"{number:06}" for number in range(40000, 60000)]


def test_two_meshes_side_by_side_know_nothing_of_each_other(mesh: MeshUnderTest) -> None:
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        other = MeshUnderTest(Path(folder).resolve())
        try:
            ports = {}
            for each, name in ((mesh, "one"), (other, "two")):
                gateway = make_gateway("web")
                each.write({"name": name, "gateway": gateway, "services": {"web": make_service(GREETING=name)}})
                each.up()
                ports[name] = gateway["port"]
            assert {name: ask(port)[1]["greeting"] for name, port in ports.items()} == {"one": "one", "two": "two"}
            assert not set(pids(mesh).values()) & set(pids(other).values())
            before = pids(other)
            mesh.must("down")
            assert_no_trace(mesh, [ports["one"]])
            assert pids(other) == before
            assert ask(ports["two"])[0] == 200
        finally:
            other.close()
        assert_no_trace(other, [ports["two"]])


def test_paths_are_relative_to_the_file_wherever_the_command_runs(mesh: MeshUnderTest) -> None:
    app = mesh.folder / "app"
    deep = mesh.folder / "some" / "where"
    for folder in (app, deep):
        folder.mkdir(parents=True)
    (app / "serve.py").write_text(Path(MOODY[1]).read_text())
    (mesh.folder / ".env").write_text("GREETING=from the file beside\n")
    (mesh.folder / "run.sh").write_text(f"#!/bin/sh\ncd app && exec {sys.executable} serve.py\n")
    (mesh.folder / "run.sh").chmod(0o755)
    mesh.write(
        {
            "services": {
                "web": {
                    "command": [sys.executable, "serve.py"],
                    "working_dir": "app",
                    "env": {"GREETING": "${GREETING}"},
                },
                "api": {"command": "./run.sh"},
            }
        }
    )

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", *words],
            cwd=deep,
            env=mesh.environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("up", "-d", "--wait")
    assert (app / "journal").read_text().splitlines().count("web listens") == 1
    assert (app / "journal").read_text().splitlines().count("api listens") == 1
    assert ask(instances(mesh)["web-v1-1"]["port"])[1]["greeting"] == "from the file beside"
    assert re.search(r"web-v1-1\s+.*ready", run("status"))
    assert not (deep / ".meshctl").exists()
    # From elsewhere, by name of the file: it is the same mesh.
    before = pids(mesh)
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", "-f", str(mesh.folder / "mesh.yaml"), "up", "-d", "--wait"],
            cwd=elsewhere,
            env=mesh.environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert (done.returncode, "nothing changed" in done.stderr) == (0, True), done.stderr
    assert pids(mesh) == before
    run("down")
    assert_no_trace(mesh)
