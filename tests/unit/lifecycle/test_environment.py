"""What a service's process finds in its environment."""

from __future__ import annotations

import pytest
from tests.support.cases import load_mesh

from meshctl.lifecycle.environment import mesh_environment, process_environment, variable_name

MESH = load_mesh(
    """
name: shop
services:
  front:
    command: ./front
    upstreams: [gift-cards, cache, bank]
    env: {GREETING: hello, NODE_USE_ENV_PROXY: "0"}
  gift-cards: {command: ./cards}
  cache: {command: ./cache, protocol: tcp}
  bank: {address: "bank.example:443"}
  seed: {command: ./seed, job: true}
"""
)
PORTS = {
    "app/front-v1-1": 20001,
    "outbound/front": 20002,
    "upstream/front/gift-cards": 20003,
    "upstream/front/cache": 20004,
    "upstream/front/bank": 20005,
    "outbound/seed": 20006,
}


def environment(service: str) -> dict[str, str]:
    found = MESH.services[service]
    return mesh_environment(MESH, found, found.versions["v1"], instance=f"{service}-v1-1", ports=PORTS)


def test_a_service_finds_its_place_and_its_upstreams() -> None:
    assert environment("front") == {
        "BANK_HOST": "127.0.0.1",
        "BANK_PORT": "20005",
        "BANK_URL": "http://127.0.0.1:20005",
        "CACHE_HOST": "127.0.0.1",
        "CACHE_PORT": "20004",
        "GIFT_CARDS_HOST": "127.0.0.1",
        "GIFT_CARDS_PORT": "20003",
        "GIFT_CARDS_URL": "http://127.0.0.1:20003",
        "GREETING": "hello",
        "HTTP_PROXY": "http://127.0.0.1:20002",
        "MESH_INSTANCE": "front-v1-1",
        "MESH_NAME": "shop",
        "MESH_SERVICE": "front",
        "MESH_VERSION": "v1",
        "NODE_USE_ENV_PROXY": "0",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "OTEL_SERVICE_NAME": "front",
        "PORT": "20001",
        "PYTHONUNBUFFERED": "1",
        "http_proxy": "http://127.0.0.1:20002",
        "no_proxy": "localhost,127.0.0.1,::1",
    }


def test_a_job_has_no_port() -> None:
    assert "PORT" not in environment("seed")


def test_names_of_services_become_names_of_variables() -> None:
    assert variable_name("gift-cards") == "GIFT_CARDS"


def test_the_shells_variables_are_kept_but_not_its_proxies_nor_meshctls_own() -> None:
    base = {
        "HOME": "/home/ann",
        "HTTP_PROXY": "http://proxy:3128",
        "no_proxy": "*",
        "PORT": "80",
        "MESHCTL_FILE": "mesh.yaml",
        "GREETING": "from the shell",
        "PATH": "/bin",
    }
    made = process_environment(base, {"GREETING": "hello"}, fallback_path="/opt/python/bin")
    assert made == {"HOME": "/home/ann", "GREETING": "hello", "PATH": "/bin:/opt/python/bin"}


@pytest.mark.parametrize(
    ("path", "made"),
    [
        (None, "/usr/local/bin:/usr/bin:/bin:/opt/bin"),
        ("/bin", "/bin:/opt/bin"),
        ("/opt/bin:/bin", "/opt/bin:/bin"),
        ("/opt/bin2", "/opt/bin2:/opt/bin"),
    ],
)
def test_the_folder_of_this_python_is_searched_last_and_once(path: str | None, made: str) -> None:
    base = {} if path is None else {"PATH": path}
    assert process_environment(base, {}, fallback_path="/opt/bin")["PATH"] == made
