"""Where a mesh keeps its files and sockets."""

from __future__ import annotations

import pytest

from meshctl.wire.paths import MeshPaths, locate

LONGEST_NAME = "a" * 40
SUN_PATH = 104


@pytest.mark.parametrize(
    ("runtime", "begin"),
    [
        ("", "/tmp/meshctl-1000/"),
        ("/run/user/1000", "/run/user/1000/meshctl/"),
        ("/a/very/long/folder" * 5, "/tmp/meshctl-1000/"),
    ],
)
def test_sockets_lie_where_their_paths_are_short(runtime: str, begin: str) -> None:
    paths = locate("/home/ann/a folder/" * 20, environ={"XDG_RUNTIME_DIR": runtime}, uid=1000)
    assert paths.runtime.startswith(begin)
    sockets = [
        paths.api_socket,
        paths.ads_socket,
        paths.keeper_socket,
        paths.gateway_pipe,
        *(paths.admin_socket("a" * length) for length in range(1, 41)),
    ]
    assert len(set(sockets)) == len(sockets)
    assert max(len(path) for path in sockets) < SUN_PATH


def test_long_names_that_begin_alike_do_not_meet() -> None:
    paths = MeshPaths("/home/ann/shop", "/run/m/1")
    assert paths.admin_socket(f"{LONGEST_NAME[:-1]}b") != paths.admin_socket(LONGEST_NAME)
    assert paths.admin_socket("orders") == "/run/m/1/orders.admin"


def test_meshes_of_two_folders_do_not_meet() -> None:
    one, two = (locate(folder, environ={}, uid=1000) for folder in ("/home/ann/shop", "/home/ann/shop2"))
    assert one.runtime != two.runtime
    assert one.tag != two.tag


def test_what_must_last_lies_beside_the_topology() -> None:
    paths = locate("/home/ann/shop", environ={}, uid=1000)
    lasting = [paths.database, paths.ca, paths.logs, paths.sidecars, paths.daemon_log, paths.log("orders-v1-1"),
               paths.bootstrap("orders")]  # fmt: skip
    assert all(path.startswith("/home/ann/shop/.meshctl/") for path in lasting)
    assert len(set(lasting)) == len(lasting)


def test_the_memory_of_circuit_breakers_lies_beside_the_sidecar_s_admin_socket() -> None:
    paths = MeshPaths("/srv/shop", "/run/mesh")
    assert paths.circuits("cart") == "/run/mesh/cart.circuits-1"
    assert paths.circuits("a" * 40) == paths.admin_socket("a" * 40).replace(".admin", ".circuits-1")
