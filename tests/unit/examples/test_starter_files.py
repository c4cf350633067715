"""What `meshctl init` has to write: complete, valid, and able to run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.shop import SHOP, UPSTREAMS, Fleet, ask

from meshctl.cli import starter
from meshctl.cli.starter import example_names, starter_files
from meshctl.errors import MeshctlError, NotFoundError
from meshctl.ports import SourceFile, TopologySource
from meshctl.spec.load import load
from meshctl.spec.schema import Mesh, Probe

ROOT = SHOP.parents[1]


def load_starter(example: str | None, variables: dict[str, str] | None = None) -> Mesh:
    file = SourceFile(path="mesh.yaml", directory="/srv/shop", text=starter_files(example)["mesh.yaml"])
    return load(TopologySource(files=(file,), variables=variables or {}))


def test_the_shop_declares_the_calls_that_its_code_makes() -> None:
    mesh = load_starter("shop")
    called = {name: service.upstreams for name, service in mesh.services.items() if not service.is_job}
    assert {name: set(upstreams) for name, upstreams in called.items()} == {
        name: set(upstreams) for name, upstreams in UPSTREAMS.items()
    }
    assert len(called) >= 8
    assert mesh.gateway is not None
    assert [(route.path, route.service) for route in mesh.gateway.routes] == [("/", "frontend")]


def test_the_shop_runs_two_versions_of_checkout() -> None:
    checkout = load_starter("shop").services["checkout"]
    assert (checkout.split, checkout.stable) == ({"v1": 90, "v2": 10}, "v1")
    assert [version.replicas for version in checkout.versions.values()] == [2, 1]
    assert checkout.versions["v2"].env["LOYALTY_PERCENT"] == "10"


def test_the_shop_opens_when_it_is_seeded() -> None:
    services = load_starter("shop").services
    assert services["frontend"].depends_on == {"seed": "completed_successfully"}
    assert services["seed"].is_job


def test_every_service_of_the_shop_says_when_it_is_ready() -> None:
    for service in load_starter("shop").services.values():
        for version in service.versions.values():
            assert version.job or isinstance(version.readiness, Probe), service.name


@pytest.mark.parametrize("example", [None, "shop"])
def test_the_gateway_port_can_be_chosen(example: str | None) -> None:
    ports = [load_starter(example, variables).gateway for variables in ({}, {"GATEWAY_PORT": "9090"})]
    assert [gateway.port for gateway in ports if gateway] == [8080, 9090]


@pytest.mark.parametrize("example", [None, *example_names()])
def test_every_command_has_its_file_and_the_topology_comes_first(example: str | None) -> None:
    files = starter_files(example)
    assert next(iter(files)) == "mesh.yaml"
    for service in load_starter(example).services.values():
        for version in service.versions.values():
            interpreter, script = version.command
            assert interpreter == "python"
            assert script in files


def test_the_files_of_an_example_are_those_of_the_repository() -> None:
    files = starter_files("shop")
    assert files["mesh.yaml"] == (ROOT / "mesh.example.yaml").read_text()
    assert {name for name in files if name.endswith(".py")} == {f"examples/shop/{p.name}" for p in SHOP.glob("*.py")}
    assert files["examples/shop/orders.py"] == (SHOP / "orders.py").read_text()


def test_an_installed_package_gives_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {example: starter_files(example) for example in (None, "shop")}
    packaged = tmp_path / "starter"
    shutil.copytree(ROOT / "examples", packaged / "examples")
    shutil.copy(ROOT / "mesh.example.yaml", packaged / "mesh.yaml")
    monkeypatch.setattr(starter, "_PACKAGED", packaged)
    monkeypatch.setattr(starter, "_CHECKOUT", tmp_path / "nowhere")
    assert {example: starter_files(example) for example in (None, "shop")} == wanted


def test_an_installation_without_the_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "_PACKAGED", tmp_path / "nowhere")
    monkeypatch.setattr(starter, "_CHECKOUT", tmp_path / "nowhere")
    with pytest.raises(MeshctlError, match="the example files are missing"):
        starter_files(None)


def test_an_unknown_example_names_the_known_ones() -> None:
    with pytest.raises(NotFoundError) as caught:
        starter_files("bank")
    assert caught.value.hint == "there is: shop"


def test_the_small_starter_greets_through_its_upstream(fleet: Fleet) -> None:
    script = fleet.folder / "hello.py"
    script.write_text(starter_files(None)["hello.py"])
    fleet.urls["hello"] = fleet.start("hello", script=script).url
    web = fleet.start("web", script=script, NAME="web")
    assert ask(web.url).text == "web says: hello from hello\n"
