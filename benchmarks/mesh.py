"""A mesh in a temporary folder, brought up and taken down by the command line as a user would."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

APP = Path(__file__).with_name("app.py")


def meshctl(folder: Path, *words: str, timeout: float = 120) -> str:
    """Run a command in a folder; its standard output. Raises when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "meshctl", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    if done.returncode != 0:
        raise RuntimeError(f"meshctl {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def status(folder: Path) -> dict[str, Any]:
    """What ``meshctl status -o json`` says."""
    found: dict[str, Any] = json.loads(meshctl(folder, "status", "-o", "json"))
    return found


def write_topology(folder: Path, services: dict[str, Any], **more: Any) -> None:
    """Write ``mesh.yaml``."""
    (folder / "mesh.yaml").write_text(yaml.safe_dump({"name": "bench", "services": services, **more}))


def app(**more: Any) -> dict[str, Any]:
    """A service that costs next to nothing."""
    return {"command": [sys.executable, str(APP)], **more}


@contextmanager
def folder_for_mesh() -> Iterator[Path]:
    """A folder; whatever mesh is left in it at the end is taken down."""
    with tempfile.TemporaryDirectory(prefix="meshctl-bench-") as name:
        folder = Path(name)
        try:
            yield folder
        finally:
            if (folder / ".meshctl").exists():
                subprocess.run(
                    [sys.executable, "-m", "meshctl", "down"],
                    cwd=folder,
                    capture_output=True,
                    timeout=60,
                    check=False,
                )


def post(admin_socket: str, path: str) -> None:
    """Change something at the admin interface of a sidecar."""
    connection = http.client.HTTPConnection("admin")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(admin_socket)
    connection.request("POST", path)
    connection.getresponse().read()
    connection.close()
