"""From a mesh to what is to run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.support.cases import load_mesh

from meshctl.lifecycle.model import InstanceSpec
from meshctl.lifecycle.specs import Surroundings, build_specs, sidecar_name
from meshctl.plan.addresses import assign_ports, needed_keys
from meshctl.spec.schema import HttpProbe, TcpProbe

TEXT = """
name: shop
services:
  front: {command: ./front, upstreams: [orders], depends_on: {seed: completed_successfully}}
  orders:
    command: python orders.py
    replicas: 2
    env: {SECRET: one}
    stop_grace: 9s
    liveness: {tcp: true, interval: 5s}
  cache: {command: ./cache, protocol: tcp}
  quiet: {command: ./quiet, load_balancing: {health_check: false}}
  probed: {command: ./probed, readiness: {http: /up}}
  seed: {command: ./seed, job: true}
  bank: {address: "bank.example:443"}
"""


def build(text: str = TEXT, *, shell: Mapping[str, str] | None = None, **more: int) -> dict[str, InstanceSpec]:
    mesh = load_mesh(text)
    replicas = {name.replace("_", "/"): count for name, count in more.items()}
    ports = assign_ports(
        needed_keys(mesh, replicas), fixed={}, remembered={}, reserved=(), seed="", is_free=lambda _: True
    )
    around = Surroundings(
        envoy="/opt/envoy",
        environment=shell or {"PATH": "/bin"},
        fallback_path="/opt/bin",
        bootstrap=lambda node: f"/state/{node}.json",
        log=lambda name: f"/logs/{name}.log",
    )
    return build_specs(mesh, ports=ports, replicas=replicas, around=around)


def test_there_is_a_sidecar_for_every_service_that_runs_here_and_the_gateway() -> None:
    specs = build()
    assert {name for name, spec in specs.items() if spec.kind == "sidecar"} == {
        "gateway",
        *(f"sidecar.{name}" for name in ("front", "orders", "cache", "quiet", "probed", "seed")),
    }
    assert not any("bank" in name for name in specs)
    assert sidecar_name("gateway") == "gateway"


def test_a_sidecar_is_envoy_with_its_bootstrap_and_always_comes_back() -> None:
    spec = build()["sidecar.orders"]
    assert spec.process.argv[:3] == ("/opt/envoy", "--config-path", "/state/orders.json")
    assert spec.process.log_path == "/logs/sidecar.orders.log"
    assert (spec.restart.mode, spec.restart.max_restarts) == ("always", None)
    assert (spec.readiness, spec.envoy_checked, spec.port) == (None, False, None)


def test_an_instance_is_what_the_topology_says() -> None:
    spec = build()["orders-v1-2"]
    assert (spec.service, spec.version, spec.kind, spec.stop_grace) == ("orders", "v1", "service", 9.0)
    assert spec.process.argv == ("python", "orders.py")
    assert spec.process.cwd == "/srv/shop"
    assert spec.process.env["PORT"] == str(spec.port)
    assert spec.process.env["SECRET"] == "one"
    assert spec.liveness is not None
    assert spec.liveness.interval == 5
    assert spec.envoy_checked


def test_a_job_is_not_probed() -> None:
    specs = build()
    job = specs["seed-v1-1"]
    assert (job.kind, job.readiness, job.port, job.envoy_checked) == ("job", None, None, False)
    assert specs["front-v1-1"].depends_on == {"seed": "completed_successfully"}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("orders-v1-1", HttpProbe(path="/health", expected=((200, 500),))),
        ("cache-v1-1", TcpProbe()),
        ("quiet-v1-1", TcpProbe()),
        ("probed-v1-1", HttpProbe(path="/up")),
    ],
)
def test_without_a_probe_of_its_own_readiness_is_the_health_check_or_a_connection(name: str, check: object) -> None:
    readiness = build()[name].readiness
    assert readiness is not None
    assert readiness.check == check


def test_replica_counts_set_by_command_are_followed() -> None:
    specs = build(orders_v1=3, cache_v1=0)
    assert {name for name in specs if name.startswith("orders-")} == {f"orders-v1-{n}" for n in (1, 2, 3)}
    assert "cache-v1-1" not in specs
    assert "sidecar.cache" in specs


@pytest.mark.parametrize(
    ("old", "new", "restarted"),
    [
        ("SECRET: one", "SECRET: two", {"orders-v1-1", "orders-v1-2"}),
        ("python orders.py", "python more.py", {"orders-v1-1", "orders-v1-2"}),
        ("upstreams: [orders]", "upstreams: [orders], timeout: 9s", set()),
        ("stop_grace: 9s", "stop_grace: 1s", set()),
        ("interval: 5s", "interval: 6s", set()),
    ],
)
def test_only_what_a_process_knows_restarts_it(old: str, new: str, restarted: set[str]) -> None:
    before, after = build(), build(TEXT.replace(old, new))
    assert {name for name in before if before[name].fingerprint != after[name].fingerprint} == restarted


def test_another_shell_restarts_nothing() -> None:
    before, after = build(), build(shell={"PATH": "/usr/bin", "TERM": "xterm"})
    assert {name: spec.fingerprint for name, spec in before.items()} == {n: s.fingerprint for n, s in after.items()}
