"""Processes of the example shop, for one test or for all of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.shop import UPSTREAMS, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Processes of one test."""
    fleet = Fleet(tmp_path)
    try:
        yield fleet
    finally:
        fleet.stop_all()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The whole shop, seeded."""
    fleet = Fleet(tmp_path_factory.mktemp("shop"))
    try:
        for service in UPSTREAMS:
            fleet.urls[service] = fleet.start(service, MESH_SERVICE=service, MESH_VERSION="v1").url
        assert fleet.run("seed.py").returncode == 0
        yield fleet
    finally:
        fleet.stop_all()
