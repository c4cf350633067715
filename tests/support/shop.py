"""Runs the processes of the examples with no mesh: each is told where the others are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOP = Path(__file__).parents[2] / "examples" / "shop"
DEADLINE = 60.0
UPSTREAMS = {
    "catalog": (),
    "payment": (),
    "orders": (),
    "inventory": ("catalog",),
    "cart": ("catalog", "inventory"),
    "recommendations": ("catalog", "inventory"),
    "checkout": ("cart", "catalog", "inventory", "payment", "orders"),
    "frontend": ("catalog", "cart", "recommendations", "checkout", "orders"),
}
"""In an order in which every service comes after those that it calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(url: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """One request; underscores in header names stand for hyphens."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {name.replace("_", "-"): value for name, value in headers.items()}, method=method
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=DEADLINE) as answer:
            status, found, text = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, found, text = error.code, error.headers, error.read()
    return Answer(status=status, headers={name.lower(): value for name, value in found.items()}, text=text.decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that listens at ``url``."""

    process: subprocess.Popen[bytes]
    url: str


class Fleet:
    """Starts processes in a folder of their own and ends every one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.urls: dict[str, str] = {}
        self._started: list[Running] = []

    def environment(self, **env: str) -> dict[str, str]:
        """A clean environment, with the URLs of what runs."""
        urls = {f"{name.upper()}_URL": url for name, url in self.urls.items()}
        return {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **urls, **env}

    def start(self, service: str, *, script: Path | None = None, **env: str) -> Running:
        """Start a service; return when it answers ``/health``."""
        log = self.folder / f"{service}-{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, script or SHOP / f"{service}.py"],
                cwd=self.folder,
                env=self.environment(**{"PORT": "0", **env}),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = Running(process=process, url=f"http://{self._find_address(process, log)}")
        self._started.append(running)
        assert ask(f"{running.url}/health").status == 200
        return running

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of the shop's scripts to its end."""
        return subprocess.run(
            [sys.executable, SHOP / script, *arguments],
            cwd=self.folder,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE * 2,
        )

    def stop(self, running: Running) -> int:
        """End a process with SIGTERM; its exit code."""
        running.process.terminate()
        return running.process.wait(DEADLINE)

    def stop_all(self) -> None:
        """End what still runs."""
        for running in self._started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait(DEADLINE)

    @staticmethod
    def _find_address(process: subprocess.Popen[bytes], log: Path) -> str:
        tick = threading.Event()
        for _ in range(int(DEADLINE / 0.01)):
            for line in log.read_text().splitlines(keepends=True):
                if line.startswith("listening on ") and line.endswith("\n"):
                    return line.split()[-1]
            assert process.poll() is None, log.read_text()
            tick.wait(0.01)
        raise AssertionError(f"it never listened: {log.read_text()}")
