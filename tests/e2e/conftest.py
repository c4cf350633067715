"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import MeshUnderTest


@pytest.fixture
def mesh() -> Iterator[MeshUnderTest]:
    """An empty folder for a mesh of one test; gone at the end with all that ran in it."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        under_test = MeshUnderTest(Path(folder).resolve())
        try:
            yield under_test
        finally:
            under_test.close()
