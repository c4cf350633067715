"""Golden signals of real traffic against what a client of its own counted; sidecars that hang or begin anew."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tests.e2e.harness import MeshUnderTest, wait_until
from tests.e2e.traffic import ECHO, GRPC, LAB, PATIENT, Map, api, ask, free_port, read_map, running

from meshctl.telemetry.buckets import bucket_of

pytestmark = pytest.mark.e2e

CLIENTS = 12
SECONDS = 9
PER_SECOND = 12
FAST, SLOW = "0.04", "0.2"


@pytest.fixture(scope="module")
def exported() -> int:
    return free_port()


@pytest.fixture(scope="module")
def world(exported: int) -> Iterator[Map]:
    plain: dict[str, Any] = {
        "load_balancing": {"health_check": False},
        "circuit_breaker": {"enabled": False},
        "retry_policy": {"max_attempts": 1},
    }
    services = {
        "caller": {"command": ECHO, "upstreams": ["steady", "flaky", "greeter", "still", "idle"]},
        "second": {"command": ECHO, "upstreams": ["still"]},
        "steady": {"command": ECHO, "versions": {"v1": {}, "v2": {}}, "split": {"v1": 70, "v2": 30}, **plain},
        "flaky": {"command": LAB, "load_balancing": {"health_check": False}},
        "greeter": {"command": GRPC, "protocol": "grpc", **plain},
        "still": {"command": ECHO, **plain},
        "idle": {"address": "127.0.0.1:1"},
    }
    telemetry = {"prometheus": {"port": exported}, "access_log": "errors"}
    topology = {"name": "signals", "defaults": PATIENT, "services": services, "telemetry": telemetry}
    with running(topology) as mesh:
        yield read_map(mesh)


def metrics(mesh: MeshUnderTest, window: float = 10, **more: str) -> dict[str, Any]:
    words = "&".join(f"{name}={value}" for name, value in {"window": f"{window:g}", **more}.items())
    found: dict[str, Any] = api(mesh, f"/metrics?{words}")
    return found


def edge(found: dict[str, Any], source: str, destination: str) -> dict[str, Any]:
    return next(r for r in found["edges"] if (r["source"], r["destination"]) == (source, destination))


def sidecar(mesh: MeshUnderTest, name: str) -> dict[str, Any]:
    found = metrics(mesh)["sidecars"]
    return next(item for item in found if item["sidecar"] == name)


class Client:
    """Sends a steady load over connections of its own and writes down what it saw of each request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[tuple[float, int, float]] = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]

    def run(self) -> None:
        self._start = time.time() + 0.1
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        for turn in range(SECONDS * PER_SECOND):
            due = self._start + (turn + number / CLIENTS) / PER_SECOND
            time.sleep(max(0.0, due - time.time()))
            count = turn * CLIENTS + number
            # One in ten fails, three in a hundred are slow.
            path = "/status/503" if count % 10 == 0 else f"/sleep/{SLOW if count % 33 == 1 else FAST}"
            start = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            self.seen.append((time.time(), answer.status, (time.perf_counter() - start) * 1000))
        connection.close()

    def quantile(self, share: float) -> float:
        """Milliseconds, as this client saw them: what the machine did meanwhile is in them, too."""
        ordered = sorted(taken for _, _, taken in self.seen)
        return ordered[math.ceil(share * len(ordered)) - 1]

    def rate(self, begin: float, end: float) -> float:
        """Answers a second between two moments."""
        return sum(begin < at <= end for at, _, _ in self.seen) / (end - begin)


@pytest.fixture(scope="module")
def client(world: Map) -> Client:
    """One that has sent its load."""
    made = Client(world.upstream("caller", "steady"))
    made.run()
    return made


def test_figures_are_those_that_a_client_saw(world: Map, client: Client) -> None:
    sent = len(client.seen)
    wait_until(lambda: edge(metrics(world.mesh, 300), "caller", "steady")["requests"] == sent, "all were counted")
    # Histograms are added up once a second, so they may come a second after the counters.
    wait_until(
        lambda: (
            sum(b["count"] for b in edge(metrics(world.mesh, 300, buckets="true"), "caller", "steady")["buckets"])
            == sent
        ),
        "all times were counted",
    )
    wait_until(
        lambda: (edge(metrics(world.mesh, 300), "caller", "steady")["served"] or {}).get("requests") == sent,
        "the called side was read too",
    )
    found = metrics(world.mesh, 300)
    row = edge(found, "caller", "steady")
    statuses = Counter(str(status) for _, status, _ in client.seen)
    assert row["statuses"] == dict(statuses)
    assert row["failures"] == statuses["503"] == math.ceil(sent / 10)
    assert row["success"] == pytest.approx(statuses["200"] / sent)
    for share, name, least in ((0.5, "p50_ms", float(FAST) * 1000), (0.99, "p99_ms", float(SLOW) * 1000)):
        # The service takes no less, and its caller no less than the sidecar; but for the bucket.
        most = client.quantile(share)
        assert bucket_of(least) - 1 <= bucket_of(row[name]) <= bucket_of(most) + 1, (name, row[name], most)
    assert row["secured"] is True
    assert row["served"]["requests"] == sent

    # A window in the midst of the load, against what the client finished in that time: from one reading to another,
    # which are a second apart, or two where the machine is late.
    end = math.floor(max(at for at, _, _ in client.seen)) - 1
    length = SECONDS - 4
    shifts = [step / 4 for step in range(-4, 5)]
    rates = [client.rate(end - length + first, end + last) for first in shifts for last in shifts]
    steady = edge(metrics(world.mesh, length, until=str(end)), "caller", "steady")
    assert 0.98 * min(rates) <= steady["rate"] <= 1.02 * max(rates), rates

    # The versions are the service.
    parts = [item for item in found["versions"] if item["destination"] == "steady"]
    (whole,) = [item for item in found["services"] if item["destination"] == "steady"]
    assert sorted(part["version"] for part in parts) == ["v1", "v2"]
    for name in ("requests", "failures", "retries"):
        assert sum(part[name] for part in parts) == whole[name]
    assert sum(part["rate"] for part in parts) == pytest.approx(whole["rate"], abs=0.01)
    # 70 of 100, to five standard deviations.
    assert parts[0]["requests"] == pytest.approx(0.7 * sent, abs=5 * math.sqrt(0.21 * sent))


def test_a_window_without_traffic_says_nothing(world: Map) -> None:
    row = edge(metrics(world.mesh), "caller", "idle")
    assert (row["requests"], row["rate"], row["success"], row["p99_ms"]) == (0, 0, None, None)
    shown = world.mesh.must("stat", "idle").splitlines()
    assert shown[1].split()[:4] == ["idle", "–", "–", "0"]


def test_a_request_tried_twice_is_one_request(world: Map) -> None:
    answer = ask(world.upstream("caller", "flaky"), "/tries/metrics?fail=1")
    assert answer.status == 200

    def counted() -> bool:
        # The two sidecars are read one after the other, and one may be read while the second try is under way.
        row = edge(metrics(world.mesh, 300), "caller", "flaky")
        served = row["served"] or {}
        return (row["requests"], row["retries"], served.get("requests")) == (1, 1, 2)

    wait_until(counted, "the retry was counted at both ends")
    row = edge(metrics(world.mesh, 300), "caller", "flaky")
    assert (row["requests"], row["failures"], row["success"]) == (1, 0, 1)
    # What was in between shows on the other side.
    assert (row["served"]["requests"], row["served"]["failures"]) == (2, 1)


def test_grpc_is_told_by_its_own_status(world: Map) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{world.upstream('caller', 'greeter')}") as channel:
        once = channel.unary_unary("/lab.Echo/Once")
        assert once(b"hello", timeout=60) == b"hello"
        with pytest.raises(grpc.RpcError):
            once(b"fail", timeout=60)
    wait_until(lambda: edge(metrics(world.mesh, 300), "caller", "greeter")["requests"] == 2, "both were counted")
    row = edge(metrics(world.mesh, 300), "caller", "greeter")
    assert row["grpc"] == {"OK": 1, "FAILED_PRECONDITION": 1}
    assert row["failures"] == 0, "the caller's fault is not the server's"

    def logged() -> list[dict[str, Any]]:
        return [json.loads(line) for line in world.mesh.must("logs", "--access", "greeter", "-o", "json").splitlines()]

    lines = wait_until(logged, "it is among the errors, though its HTTP status is 200")
    assert (200, "9", ["grpc FAILED_PRECONDITION"]) in [(r["status"], r["grpc_status"], r["reasons"]) for r in lines]


def test_requests_by_host_name_and_by_upstream_are_one_edge(world: Map) -> None:
    before = edge(metrics(world.mesh, 300), "caller", "still")["requests"]
    assert ask(world.upstream("caller", "still")).status == 200
    assert ask(world.proxy("caller"), "http://still/").status == 200
    assert ask(world.proxy("caller"), "http://nobody/").status == 502
    wait_until(lambda: edge(metrics(world.mesh, 300), "caller", "still")["requests"] == before + 2, "both were counted")
    # It came after them.
    lost = wait_until(
        lambda: [row for row in metrics(world.mesh, 300)["edges"] if row["destination"] == "-"], "it was counted, too"
    )
    assert [row["statuses"] for row in lost] == [{"502": 1}]


def test_a_stream_gives_one_object_a_line(world: Map) -> None:
    watching = world.mesh.start("edges", "caller", "--watch", "-o", "json")
    try:
        assert watching.stdout is not None
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert lines[0]["time"] < lines[1]["time"]


def test_prometheus_reads_what_is_exported(client: Client, exported: int, tmp_path: Path) -> None:
    if not (prometheus := shutil.which("prometheus")) or not (promtool := shutil.which("promtool")):
        pytest.skip("no prometheus on this machine: apt-get install prometheus")
    with urllib.request.urlopen(f"http://127.0.0.1:{exported}/metrics", timeout=20) as answer:
        text = answer.read()
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    listen = f"127.0.0.1:{free_port()}"
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "mesh", "static_configs": [{"targets": [f"127.0.0.1:{exported}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
             f"--web.listen-address={listen}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:

        def query(expression: str) -> dict[str, float]:
            url = f"http://{listen}/api/v1/query?query={urllib.parse.quote(expression)}"
            try:
                with urllib.request.urlopen(url, timeout=20) as answer:
                    result = json.load(answer)["data"]["result"]
            except OSError:
                return {}
            return {next(iter(item["metric"].values()), ""): float(item["value"][1]) for item in result}

        total = 'sum by (status) (meshctl_requests_total{source="caller",destination="steady"})'
        served = 'sum by (version) (meshctl_served_requests_total{destination="steady",source="caller"})'
        sent = len(client.seen)
        # The sidecars of both sides are read one after the other.
        wait_until(
            lambda: sum(query(total).values()) == sum(query(served).values()) == sent, "Prometheus has every request"
        )
        assert query(total)["503"] == math.ceil(sent / 10)
        p99 = query(
            'histogram_quantile(0.99, sum by (le) (meshctl_request_duration_seconds_bucket{destination="steady"}))'
        )
        assert 0.14 < p99[""] < max(0.3, 1.5 * client.quantile(0.99) / 1000)
    finally:
        server.terminate()
        server.wait(timeout=30)


def counted(world: Map) -> int:
    """How many requests of ``second`` to ``still`` are known: those of a test before have been waited for by it."""
    requests: int = edge(metrics(world.mesh, 300), "second", "still")["requests"]
    return requests


def test_a_sidecar_that_hangs_stalls_no_other(world: Map) -> None:
    hung = psutil.Process(world.services["flaky"]["sidecar"]["pid"])
    begun = counted(world)
    hung.suspend()
    try:
        wait_until(lambda: sidecar(world.mesh, "flaky")["stale"], "its figures are known to be old")
        wait_until(lambda: not sidecar(world.mesh, "second")["stale"], "and those of others are not")
        assert ask(world.upstream("second", "still")).status == 200
        wait_until(lambda: counted(world) == begun + 1, "it was counted")
        assert sidecar(world.mesh, "flaky")["stale"]
        shown = world.mesh.must("stat")
        assert "flaky: its sidecar's figures are" in shown
    finally:
        hung.resume()
    wait_until(lambda: not sidecar(world.mesh, "flaky")["stale"], "it answers again")


def test_a_sidecar_that_is_restarted_begins_anew(world: Map) -> None:
    port = world.upstream("second", "still")
    # What was counted since the last reading goes with the sidecar, so nothing may be unread when it does.
    begun = counted(world)
    assert ask(port).status == 200
    wait_until(lambda: counted(world) == begun + 1, "it was counted")
    before, resets = counted(world), sidecar(world.mesh, "second")["resets"]
    os.kill(world.services["second"]["sidecar"]["pid"], signal.SIGKILL)
    answered: list[int] = []

    def ask_again() -> bool:
        try:
            answered.append(ask(port).status)
        except OSError:
            return False
        return answered[-1] == 200

    wait_until(ask_again, "the sidecar runs again")
    assert all(ask_again() for _ in range(20))
    wait_until(lambda: sidecar(world.mesh, "second")["resets"] == resets + 1, "it was seen to begin anew")
    wait_until(lambda: counted(world) == before + len(answered), "all were counted, before and after")
