"""Meshes beside each other know what the others were given."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from meshctl.adapters.port_claims import PortClaims
from meshctl.errors import MeshctlError


@pytest.fixture
def pair(tmp_path: Path) -> tuple[PortClaims, PortClaims]:
    """The claims of two meshes."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return PortClaims(str(tmp_path / "one")), PortClaims(str(tmp_path / "two"))


def others(claims: PortClaims) -> frozenset[int]:
    with claims.choosing() as found:
        return found


def test_a_mesh_sees_the_ports_of_others_and_not_its_own(pair: tuple[PortClaims, PortClaims]) -> None:
    one, two = pair
    assert others(one) == frozenset()
    one.hold([3, 1])
    assert others(one) == frozenset()
    assert others(two) == {1, 3}
    one.hold([2])
    assert others(two) == {2}


def test_what_cannot_be_read_counts_as_nothing(pair: tuple[PortClaims, PortClaims], tmp_path: Path) -> None:
    one, two = pair
    two.hold([7])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ports.json").write_text("[1, 2")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "ports.json").write_text('{"a": 1}')
    assert others(one) == {7}


def test_a_folder_that_is_gone_is_an_error_for_people(tmp_path: Path) -> None:
    claims = PortClaims(str(tmp_path / "gone" / "mesh"))
    with pytest.raises(MeshctlError, match=r"ports\.lock cannot be opened"), claims.choosing():
        pass
    with pytest.raises(MeshctlError, match=r"ports\.json cannot be written"):
        claims.hold([1])


def test_two_never_choose_at_the_same_time(pair: tuple[PortClaims, PortClaims]) -> None:
    """The second one sees what the first one took."""
    one, two = pair
    inside, seen = threading.Event(), list[frozenset[int]]()

    def choose() -> None:
        inside.wait(60)
        seen.append(others(two))

    other = threading.Thread(target=choose)
    other.start()
    with one.choosing():
        inside.set()
        other.join(0.05)
        assert other.is_alive(), "it waits"
        one.hold([5])
    other.join(60)
    assert seen == [{5}]
